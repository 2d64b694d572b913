"""The page of the site that detects in a browser finds what Python finds, in photos and by the camera."""

import base64
import functools
import http.server
import io
import os
import threading
from pathlib import Path

import pytest
from conftest import CHROMIUM, ROOT
from PIL import Image
from test_export import build
from test_readme import PAGES, blocks

import ssd_zoo
from ssd_zoo.data import read_image
from ssd_zoo.deploy import export, load

LISTEN = """
addEventListener('detected', (event) => Object.assign(window, { found: event.detail, frame: window.seen }), true);
const read = CanvasRenderingContext2D.prototype.getImageData;
CanvasRenderingContext2D.prototype.getImageData = function (...area) {
  window.seen = this.canvas.toDataURL();  // what is detected in, as PNG, before boxes are drawn
  return read.apply(this, area);
};
"""
RUNTIME_ADDRESS = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/ort.wasm.min.mjs"
# What the reader of the page "Deploy" has: the runtime, and the pixels of a photo.
PIXELS = f"""
import * as ort from "{RUNTIME_ADDRESS}";
import {{ toPlanes }} from "./pixels.js";
const shown = document.querySelector("canvas");
const photo = shown.getContext("2d").getImageData(0, 0, shown.width, shown.height);
const pixels = toPlanes(photo, [300, 300], true);
"""
PHOTO = """async () => {
  const photo = await createImageBitmap(await (await fetch("coffee.jpg")).blob(), { colorSpaceConversion: "none" });
  const canvas = Object.assign(document.createElement("canvas"), { width: photo.width, height: photo.height });
  canvas.getContext("2d").drawImage(photo, 0, 0);
  document.body.prepend(canvas);
  window.lines = [];
  console.log = (...parts) => lines.push(parts.map((part) => ArrayBuffer.isView(part) ? Array.from(part) : part));
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("default"),
    pytest.mark.xdist_group("site"),
]

RUNTIME = Path(os.environ.get("SSD_ZOO_ONNXRUNTIME_WEB", ROOT / "node_modules" / "onnxruntime-web" / "dist"))
PHOTOS = [ROOT / "examples" / name for name in ("coffee.jpg", "astronaut.jpg")]


@pytest.fixture(scope="module")
def address(site):
    """Where a web server of its own has the page."""
    if not (RUNTIME / "ort.wasm.min.mjs").is_file():
        pytest.skip(f"NO BROWSER TEST: {RUNTIME} has no ort.wasm.min.mjs; npm install --no-save onnxruntime-web")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/browser/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    camera = tmp_path_factory.mktemp("camera") / "coffee.mjpeg"
    camera.write_bytes(PHOTOS[0].read_bytes() * 2)
    options = ["use-fake-ui-for-media-stream", "use-fake-device-for-media-stream"]
    options += [f"use-file-for-fake-video-capture={camera}"]
    with sync_playwright() as playwright:
        arguments = [f"--{option}" for option in options]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, chromium_sandbox=False)


@pytest.fixture
def page(address, browser):
    """The page, which takes onnxruntime-web from this machine; `found` holds what it detected last."""

    def serve(route):
        path = RUNTIME / route.request.url.rpartition("/")[2]
        route.fulfill(path=path, headers={"access-control-allow-origin": "*", "content-type": kind(path)})

    page = browser.new_page(viewport={"width": 1366, "height": 900})
    page.set_default_timeout(120_000)
    page.route("https://cdn.jsdelivr.net/npm/onnxruntime-web@*/dist/*", serve)
    page.add_init_script(LISTEN)
    page.goto(address)
    yield page
    page.close()


def kind(path):
    return "application/wasm" if path.suffix == ".wasm" else "text/javascript"


def wait_for_boxes(page):
    page.wait_for_function("window.found")
    step = "const found = window.found; Object.assign(window, { shot: window.frame, found: undefined }); return found;"
    return page.evaluate(f"() => {{ {step} }}")


def assert_same(found, photo):
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()
    expected = ssd_zoo.predict(model, photo, score_thresh=0.5)
    assert [row["label"] for row in found] == expected.names
    assert expected.names
    for row, box, of_python in zip(found, expected["boxes"].tolist(), expected["scores"].tolist(), strict=True):
        assert row["box"] == pytest.approx(box, abs=1)
        assert row["score"] == pytest.approx(of_python, abs=0.01)


def test_photos(page):
    assert_same(wait_for_boxes(page), PHOTOS[0])
    for photo in PHOTOS:
        page.locator("[data-part=file]").set_input_files(photo)
        assert_same(wait_for_boxes(page), photo)
    assert page.locator("[data-part=status]").inner_text().endswith(" s")
    assert page.locator("[data-part=list]").inner_text() == "· person 0.62"
    page.locator("[data-part=threshold]").fill("0.7")
    assert wait_for_boxes(page) == []


def test_own_detector(page, tmp_path):
    wait_for_boxes(page)
    page.locator("[data-part=own]").set_input_files(PHOTOS[0])
    page.get_by_text("This is not an ONNX file.").wait_for()
    # Neither averages pixels nor takes floating-point numbers.
    for nms in ("inside", "outside"):
        file = export(build(score_thresh=0.1), tmp_path / f"{nms}.onnx", format="onnx", pixels="uint8", nms=nms)
        page.locator("[data-part=own]").set_input_files(file)
        found = wait_for_boxes(page)
        detector = load(file, score_thresh=0.5)
        [expected] = detector([read_image(PHOTOS[0])])
        assert len(found) == len(expected["boxes"]) > 3
        # Ours rounds between resizing rows and columns, which moves boxes of random weights, and their order.
        for box, label in zip(expected["boxes"].tolist(), expected["labels"].tolist(), strict=True):
            row = min(found, key=lambda row: sum(abs(a - b) for a, b in zip(row["box"], box, strict=True)))
            found.remove(row)
            assert row["box"] == pytest.approx(box, abs=2)
            assert row["label"] == detector.categories[label]


def test_webcam(page):
    wait_for_boxes(page)
    page.get_by_role("button", name="Webcam").click()
    page.get_by_text("frames a second").wait_for()
    found = wait_for_boxes(page)
    frame = Image.open(io.BytesIO(base64.b64decode(page.evaluate("() => window.shot").partition(",")[2])))
    assert [row["label"] for row in found] == ["cup", "dining table"]
    assert_same(found, frame.convert("RGB"))
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("() => document.querySelector('[data-part=webcam]').textContent") == "Webcam"


def test_samples_of_the_pages(page):
    wait_for_boxes(page)
    page.evaluate(PHOTO)
    expected = ssd_zoo.predict("ssdlite300_mobilenet_v2", PHOTOS[0])
    assert expected.names == ["cup", "dining table"]
    categories = ssd_zoo.SSDLite300_MobileNet_V2_Weights.COCO_TF_V1.meta["categories"]
    # The sample of the page "Deploy" has boxes in pixels of 300 × 300; the photo has 600 × 400.
    for file, before, across, down in (("browser", "", 1, 1), ("deploy", PIXELS, 2, 4 / 3)):
        [code] = blocks(PAGES[f"docs/{file}.md"], "js")
        page.add_script_tag(content=f"{before}{code}\nwindow.done = '{file}';", type="module")
        page.wait_for_function(f"window.done === '{file}'")
        found = page.evaluate("lines.splice(0)")[:2]
        for (label, score, (x1, y1, x2, y2)), name, row in zip(found, expected.names, expected.to_coco(), strict=True):
            assert (label if file == "browser" else categories[label]) == name
            assert score == pytest.approx(row["score"], abs=0.01)
            x, y, width, height = row["bbox"]
            there = [x1 * across, y1 * down, x2 * across, y2 * down]
            assert there == pytest.approx([x, y, x + width, y + height], abs=1)
