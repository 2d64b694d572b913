"""The Kotlin code for phones, JavaScript for browsers, and C++ give the model's input and detections."""

import functools
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_readme import blocks

import ssd_zoo
from ssd_zoo.data import read_image
from ssd_zoo.deploy.description import Description

SOURCE = ROOT / "docs/phone/Detections.kt"
KOTLIN = """
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun bytes(name: String) = ByteBuffer.wrap(File(name).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
fun floats(name: String) = bytes(name).asFloatBuffer().let { from -> FloatArray(from.capacity()) { from.get(it) } }
fun ints(name: String) = bytes(name).asIntBuffer().let { from -> IntArray(from.capacity()) { from.get(it) } }

fun main(args: Array<String>) {
    val (photoHeight, photoWidth, height, width) = args.slice(0..3).map { it.toInt() }
    val (score, nms) = args.slice(4..5).map { it.toFloat() }
    val (softmax, antialias, first) = args.slice(6..8).map { it == "True" }
    val (topk, most) = args.slice(9..10).map { it.toIntOrNull() }
    val settings = Settings(height, width, softmax, antialias, score, nms, topk, most!!, first)
    val input = inputOf(ints("argb"), photoHeight, photoWidth, settings)
    val buffer = ByteBuffer.allocate(4 * input.size).order(ByteOrder.LITTLE_ENDIAN)
    buffer.asFloatBuffer().put(input)
    File("input").writeBytes(buffer.array())
    val (logits, offsets, defaults) = listOf("cls_logits", "bbox_regression", "default_boxes").map { floats(it) }
    for (one in detectionsOf(logits, offsets, defaults, photoHeight, photoWidth, settings))
        println("${one.label} ${one.score} ${one.box.joinToString(" ")}")
}
"""
JAVASCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
import { detectionsOf } from "./detections.mjs";
import { toPlanes } from "./pixels.mjs";

const description = JSON.parse(readFileSync("description.json"));
const [height, width] = process.argv.slice(2).map(Number);
const picture = { data: readFileSync("rgba"), height, width };
writeFileSync("input", toPlanes(picture, description.size, description.antialias));
const names = ["cls_logits", "bbox_regression", "default_boxes"];
const floats = (name) => new Float32Array(new Uint8Array(readFileSync(name)).buffer);
const raw = Object.fromEntries(names.map((name) => [name, floats(name)]));
for (const { label, score, box } of detectionsOf(raw, description, picture))
  console.log(description.categories.indexOf(label), score, ...box);
"""
CPP = """
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

std::vector<float> floats(const char* name) {
  std::ifstream file(name, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const float* first = reinterpret_cast<const float*>(bytes.data());
  return {first, first + bytes.size() / sizeof(float)};
}

int main(int, char** args) {
  auto number = [&](int i) { return std::strtof(args[i], nullptr); };
  auto holds = [&](int i) { return std::string(args[i]) == "True"; };
  Settings by{number(3), number(4), holds(7), holds(9), number(5), number(6), std::atoi(args[10]), std::atoi(args[11])};
  auto logits = floats("cls_logits"), offsets = floats("bbox_regression"), defaults = floats("default_boxes");
  int boxes = defaults.size() / 4;
  for (Detection one : choose(logits.data(), offsets.data(), defaults.data(), boxes, logits.size() / boxes, by)) {
    std::printf("%d %.9g", one.label, one.score);
    float scales[] = {number(2) / by.width, number(1) / by.height};
    for (int i = 0; i < 4; i++) std::printf(" %.9g", one.box[i] * scales[i % 2]);
    std::printf("\\n");
  }
}
"""
MODELS = {
    "coco": lambda: ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.1),
    "as it was trained": lambda: ssd_zoo.ssdlite300_mobilenet_v2(
        weights="COCO_TF_V1", score_thresh=0.1, antialias=False
    ),
    "bccd, wide": lambda: ssd_zoo.ssdlite300_mobilenet_v2(weights="BCCD_V1", score_thresh=0.05),
    "softmax": lambda: ssd_zoo.ssdlite300_mobilenet_v2(
        weights="COCO_TF_V1", score_thresh=0.05, score_function="softmax", nms_thresh=0.4, clip_before_nms=True
    ),
    "few of each class": lambda: ssd_zoo.ssdlite300_mobilenet_v2(
        weights="COCO_TF_V1", score_thresh=0.001, topk_candidates=3, detections_per_img=300
    ),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("kotlinc") is None:
        pytest.skip("KOTLIN IS NOT TESTED: apt install kotlin")
    folder = tmp_path_factory.mktemp("kotlin")
    (folder / "main.kt").write_text(KOTLIN)
    command = ["kotlinc", SOURCE, "main.kt", "-include-runtime", "-d", "program.jar"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program.jar"


@pytest.fixture(scope="module")
def cpp_program(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("C++ IS NOT TESTED: apt install g++")
    folder = tmp_path_factory.mktemp("cpp")
    [code] = blocks((ROOT / "docs/raw_output.md").read_text(encoding="utf-8"), "cpp")
    (folder / "main.cpp").write_text(code + CPP)
    command = ["g++", "-std=c++11", "-O2", "-Wall", "-Wextra", "-Werror", "main.cpp", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program"


def test_page_prints_the_settings_that_it_shows(monkeypatch, capsys):
    page = (ROOT / "docs/phone.md").read_text()
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.5)
    model.description = Description.of(model, nms="outside", pixels="float32")
    monkeypatch.setattr(ssd_zoo.deploy, "load", lambda file: model)
    [code] = blocks(page, "py")
    exec(code, {})
    settings, boxes, categories = capsys.readouterr().out.splitlines()
    shown = "".join(blocks(page, "kotlin")[0].split())
    start, _, more = shown.partition("/*and")
    assert (settings + boxes + categories).replace(" ", "").startswith(start)
    assert categories.count('", "') + 1 == 3 + int(more.partition("more*/)")[0])


@pytest.fixture(params=["kotlin", "javascript", "c++"])
def command(request, tmp_path):
    """Start of a command that reads `tmp_path` and prints detections; but for C++ it writes the input there, too."""
    if request.param == "kotlin":
        return ["java", "-jar", request.getfixturevalue("program")]
    if request.param == "c++":
        return [request.getfixturevalue("cpp_program")]
    if shutil.which("node") is None:
        pytest.skip("JAVASCRIPT IS NOT TESTED: apt install nodejs")
    for name in ("detections", "pixels"):
        shutil.copy(ROOT / f"docs/browser/{name}.js", tmp_path / f"{name}.mjs")
    (tmp_path / "main.mjs").write_text(JAVASCRIPT)
    return ["node", "main.mjs"]


@functools.cache
@torch.no_grad()
def asked(name, photo):
    """Returns a model, a photo, its batch, and the model's raw output and detections."""
    torch.manual_seed(0)
    model, image = MODELS[name]().eval(), read_image(ROOT / "examples" / photo)
    batch = model.prepare([image])
    [detections] = model([image])
    return model, image, batch, model.forward_raw(batch), detections


# One of pytest's processes compiles the programs, and asks each model once for all languages.
@pytest.mark.xdist_group("phone")
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("photo", ["astronaut.jpg", "coffee.jpg"])
def test_detections_in_other_languages(command, photo, name, tmp_path):
    model, image, batch, raw, expected = asked(name, photo)
    red, green, blue = image.to(torch.int32)
    (tmp_path / "argb").write_bytes((-(2**24) + red * 2**16 + green * 2**8 + blue).to(torch.int32).numpy().tobytes())
    rgba = torch.cat([image, torch.full_like(image[:1], 255)])
    (tmp_path / "rgba").write_bytes(rgba.permute(1, 2, 0).contiguous().numpy().tobytes())
    (tmp_path / "description.json").write_text(Description.of(model, nms="outside", pixels="float32").to_json())
    for key, value in {**raw, "default_boxes": model.default_boxes}.items():
        (tmp_path / key).write_bytes(value.float().numpy().tobytes())
    settings = (*image.shape[1:], *model.size, model.score_thresh, model.nms_thresh, model.score_function == "softmax")
    settings = (*settings, model.antialias, model.clip_before_nms, model.topk_candidates, model.detections_per_img)
    done = subprocess.run([*command, *map(str, settings)], cwd=tmp_path, check=True, capture_output=True, text=True)
    if len(command) > 1:
        pixels = torch.from_numpy(np.frombuffer((tmp_path / "input").read_bytes(), np.float32).copy())
        expected_pixels = (batch * model.image_std + model.image_mean).flatten()
        torch.testing.assert_close(pixels, expected_pixels, rtol=0, atol=1e-4)
    found = torch.tensor([[float(value) for value in line.split()] for line in done.stdout.splitlines()])
    assert len(expected["scores"]) > 0
    assert found[:, 0].tolist() == expected["labels"].tolist()
    torch.testing.assert_close(found[:, 1], expected["scores"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 2:], expected["boxes"], rtol=0, atol=0.01)
