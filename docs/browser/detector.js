// A detector that ssd_zoo exported to ONNX, run by onnxruntime-web.

import { readDescription } from "./description.js";
import { detectionsOf } from "./detections.js";
import { toPlanes } from "./pixels.js";

/**
 * Open an ONNX file that `ssd-zoo export … --format onnx` wrote.
 *
 * @param ort The module of onnxruntime-web.
 * @param bytes The file's content, a Uint8Array.
 * @returns The file's description, and a function that maps ImageData to detections in descending order of score:
 *   `{ label, score, box }` each, with the box as x1, y1, x2, y2 in pixels of the picture.
 */
export async function openDetector(ort, bytes) {
  const description = readDescription(bytes);
  check(description);
  const session = await ort.InferenceSession.create(bytes);
  return { description, detect: (image) => detect(ort, session, description, image) };
}

function check({ in_chans, state, tile }) {
  if (in_chans !== 3) throw new Error(`This page shows colours to a detector; the file takes ${in_chans} channels.`);
  if (Object.keys(state).length) throw new Error("This page takes models of images; the file is one of clips.");
  if (tile) throw new Error("This page takes pictures whole; the file's model cuts them into tiles.");
}

async function detect(ort, session, description, image) {
  const { nms, size, antialias, pixels, categories } = description;
  let planes = toPlanes(image, size, antialias);
  if (pixels === "uint8") planes = Uint8Array.from(planes, (value) => Math.round(255 * value));
  const outputs = await session.run({ images: new ort.Tensor(pixels, planes, [1, 3, ...size]) });
  const data = Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
  if (nms === "outside") return detectionsOf(data, description, image);
  const [down, across] = [image.height / size[0], image.width / size[1]];
  return Array.from({ length: Number(data.count[0]) }, (_, i) => {
    const [x1, y1, x2, y2] = data.boxes.subarray(4 * i, 4 * i + 4);
    return {
      label: categories[Number(data.labels[i])],
      score: data.scores[i],
      box: [x1 * across, y1 * down, x2 * across, y2 * down],
    };
  });
}
