// The page: a photo, a file or the webcam is shown with its boxes.

import { openDetector } from "./detector.js";

const page = document.getElementById("browser-detector");
const part = (name) => page.querySelector(`[data-part=${name}]`);
const canvas = part("picture");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const camera = document.createElement("video");
camera.muted = camera.playsInline = true;

let detector;
let photo;
// Whatever is shown next ends what was shown before.
let turn = 0;

const tell = (text) => (part("status").textContent = text);

/** Run a step that may fail, and tell the reader why it did. */
async function attempt(step) {
  try {
    await step();
  } catch (error) {
    tell(error.name === "NotAllowedError" ? "The browser did not allow the camera." : error.message);
    console.error(error);
  }
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} can't be loaded: ${response.status} ${response.statusText}`);
  return response.blob();
}

async function open(blob) {
  const ort = await import(page.dataset.runtime);
  detector = await openDetector(ort, new Uint8Array(await blob.arrayBuffer()));
  const { builder, thresholds } = detector.description;
  part("threshold").min = thresholds.score_thresh; // The file drops lower scores by itself.
  showThreshold();
  part("model").textContent = builder || "your detector";
}

const showThreshold = () => (part("score").textContent = Number(part("threshold").value).toFixed(2));

function paint(source, width, height) {
  Object.assign(canvas, { width, height });
  pen.fillStyle = "white"; // Transparent pixels become white.
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0, width, height);
}

/** Draw the boxes that score enough, and list them. */
function showBoxes(found) {
  const shown = found.filter(({ score }) => score > part("threshold").value);
  shown.forEach(draw);
  part("list").textContent = shown.map(({ label, score }) => `· ${label} ${score.toFixed(2)}`).join(" ");
  canvas.dispatchEvent(new CustomEvent("detected", { detail: shown }));
}

function draw({ label, score, box: [x1, y1, x2, y2] }) {
  const text = `${label} ${score.toFixed(2)}`;
  const unit = Math.max(canvas.width / 400, 1);
  pen.lineWidth = 2 * unit;
  // Golden angles keep the colours of neighbouring classes apart.
  const hue = (137.5 * detector.description.categories.indexOf(label)) % 360;
  pen.strokeStyle = pen.fillStyle = `hsl(${hue} 90% 35%)`;
  pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  pen.font = `${11 * unit}px sans-serif`;
  const top = Math.max(y1, 14 * unit);
  pen.fillRect(x1, top - 14 * unit, pen.measureText(text).width + 6 * unit, 14 * unit);
  pen.fillStyle = "white";
  pen.fillText(text, x1 + 3 * unit, top - 3 * unit);
}

/** Stop what is shown, and return whether it is still the turn of what begins here. */
function begin() {
  const mine = ++turn;
  camera.srcObject?.getTracks().forEach((track) => track.stop());
  camera.srcObject = null;
  part("webcam").textContent = "Webcam";
  return () => mine === turn;
}

async function showPhoto(blob) {
  const current = begin();
  // Upright as EXIF says, in the file's own colours: as Python reads it.
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("The browser can't read this file as a picture.");
  });
  if (!current()) return;
  paint(bitmap, bitmap.width, bitmap.height);
  const start = performance.now();
  const found = await detector.detect(pen.getImageData(0, 0, canvas.width, canvas.height));
  if (!current()) return;
  photo = { blob, bitmap, found };
  tell(`${((performance.now() - start) / 1000).toFixed(2)} s`);
  showBoxes(found);
}

async function showCamera() {
  const current = begin();
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  if (!current()) return stream.getTracks().forEach((track) => track.stop());
  camera.srcObject = stream;
  part("webcam").textContent = "Stop";
  await camera.play();
  for (const times = []; current(); await new Promise(requestAnimationFrame)) {
    paint(camera, camera.videoWidth, camera.videoHeight);
    const found = await detector.detect(pen.getImageData(0, 0, canvas.width, canvas.height));
    if (!current()) return;
    showBoxes(found);
    times.push(performance.now());
    if (times.length > 1) tell(`${((1000 * (times.length - 1)) / (times.at(-1) - times[0])).toFixed(1)} frames a second`);
    if (times.length > 10) times.shift();
  }
}

const samplePhoto = () => attempt(async () => showPhoto(await fetched(page.dataset.photo)));

part("sample").addEventListener("click", samplePhoto);
part("file").addEventListener("change", ({ target }) => target.files[0] && attempt(() => showPhoto(target.files[0])));
part("webcam").addEventListener("click", () => (camera.srcObject ? begin() : attempt(showCamera)));
part("threshold").addEventListener("input", () => {
  showThreshold();
  if (camera.srcObject || !photo) return; // The next frame shows it.
  paint(photo.bitmap, canvas.width, canvas.height);
  showBoxes(photo.found);
});
part("own").addEventListener("change", ({ target }) =>
  attempt(async () => {
    await open(target.files[0]);
    if (photo && !camera.srcObject) await showPhoto(photo.blob);
  }),
);

await attempt(async () => {
  tell("Loading the detector …");
  await open(await fetched(page.dataset.model));
  page.querySelectorAll("[disabled]").forEach((control) => (control.disabled = false));
  await samplePhoto();
});
