"""Small odd inputs, each run by the real command; their `expected.txt` says what was asked, and what happened once."""

import ast
import io
import re
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.weights.formats.safetensors_file import parse_header

pytestmark = pytest.mark.usefixtures("one_thread")

_ONE_RED = r"1 image; 1 object: red 1\n"
_DATA = "data {case} --output {out}"
_TRAIN = (
    "train {case} --output {out} --weights scratch --size 64 --epochs 1 --batch-size 4 --no-tensorboard --device cpu "
    "--no-fit-default-boxes"
)
_VIDEO = "detect {case} --json {out}/frames.json"

READ = [
    *("coco-data-folder", "coco-image-id-types", "coco-person-keypoints", "coco-windows-backslash"),
    *(f"coco-null/{name}" for name in ("idnull", "nullarea", "nulliscrowd", "nullsize")),
    *("images-in-parent-path/images/set", "json-yaml-crash/folder-x.json", "tiff-orientation-6", "voc-appledouble"),
    *(f"layouts-missing/{name}" for name in ("cvat_voc", "cvat_yolo", "labelimg-yolo", "labelme", "voc-flat")),
    *(f"layouts-missing/{name}" for name in ("voc-lower", "voc-noset", "voc-rfvoc")),
    *(f"utf8-bom/{name}" for name in ("coco-bom", "voc-bomlist", "yolo-bomclasses", "yolo-bomlabel", "yolo-y_listbom")),
    *(f"category-names/{name}" for name in ("background", "yolo-background", "parent", "parent-of-same-name")),
]
REFUSED = {
    "category-names/voc-no-name": r"a\.xml:1: an object needs a name",
    "category-names/yolo-blank-line": r"classes\.txt: class 1, counted from 0, has an empty name",
    "category-names/yolo-duplicate": r"classes\.txt: two classes share the name 'red'",
    "coco-two-files-one-split": r"instances_train\.json and .*train\.json are both the split 'train'",
    "json-yaml-crash/id-1e999": r"train\.json:1 holds 1e999, which is not a finite number",
    "json-yaml-crash/train-5": r"data\.yaml: train must be a folder",
    "layouts-missing/datumaro": r"default\.json is of Datumaro; convert it by",
    "voc-objects-elsewhere/nested": r"a\.xml:1: the outermost element is <annotations>",
    "voc-objects-elsewhere/objects": r"a\.xml:1: its objects do not lie directly",
    "yolo-confidence-and-track": r"a\.txt:1: the numbers of an outline must be fractions",
    "yolo-no-labels-folder": "No image has a file of labels, such as",
    "hostile/coco_1e308.json": r"coco_1e308\.json",
    "hostile/coco_huge_int.json": r"coco_huge_int\.json",
    "hostile/coco_inf_id.json": r"coco_inf_id\.json",
    "hostile/coco_text_box.json": r"coco_text_box\.json",
    "hostile/deep_coco.json": r"deep_coco\.json",
    "hostile/yaml_bomb2.yaml": r"yaml_bomb2\.yaml",
    "hostile/yaml_deep.yaml": r"yaml_deep\.yaml",
}
ROWS = [
    *((case, _DATA, 0, _ONE_RED) for case in READ),
    *((case, command, 2, phrase) for case, phrase in REFUSED.items() for command in (_DATA, _TRAIN)),
    ("voc-encodings/latin1-list", _DATA, 0, r"train\.txt is not UTF-8; it is read as Latin-1(?s:.*)1 object: red 1\n"),
    ("voc-encodings/gb2312", _DATA, 0, "1 object: 汽车 1\n"),
    ("voc-names-ending-in-1", _DATA, 0, "2 images; 2 objects: red 2\n"),
    ("voc-names-ending-in-1/2", _DATA, 0, "2 images; 2 objects: red 2\n"),
    ("train-thin-image", f"{_TRAIN} --augmentation ssd", 0, r"run/best\n"),
    pytest.param("train-thin-image", f"{_TRAIN} --augmentation ssdlite", 0, r"run/best\n", marks=pytest.mark.slow),
    ("tiff-orientation-6", f"{_TRAIN} --on-invalid raise", 0, r"run/best\n"),
    ("tiff-orientation-6", "evaluate {case} --model {tiny} --on-invalid raise", 0, "red  AP .*1 object"),
    ("results-by-id", "evaluate --annotations {case}/ann.json --results {case}/res.json", 0, "person  AP 1.0000"),
    (
        "exif-refused",
        "detect {case}",
        0,
        r"exif6_undef\.jpg: no objects\n.*raw_profile\.png: no objects",
    ),
    ("heic-in-folder", "detect {case}", 0, r"a\.jpg: no objects\n.*b\.heic: no objects"),
    ("frames-with-a-bad-one", "detect {case} --frames", 1, r": 3 frames,(?s:.*)f2\.png is not an image"),
    ("audio-with-cover/coveronly.mp4", _VIDEO, 1, r"coveronly\.mp4 holds no video"),
    ("video-colon/cam:1.mp4", _VIDEO, 0, r"cam:1\.mp4: 20 frames"),
    ("video-colon/cam:1.mp4", "detect {case} --output {out}", 0, r"cam:1\.mp4: 20 frames"),
    ("video-long-last-frame/hold.mp4", _VIDEO, 0, "20 frames"),
    ("video-long-last-frame/hold.gif", _VIDEO, 0, "10 frames"),
    ("video-mirrored/hflip.mp4", _VIDEO, 0, "20 frames"),
    ("video-mirrored/rot90h.mp4", _VIDEO, 0, "20 frames"),
    ("video-times/late.mkv", _VIDEO, 0, '20 frames(?s:.*)"frame": 19, "time": 1.9'),
    ("video-times/vfr_gap.mp4", _VIDEO, 0, '20 frames(?s:.*)"frame": 19, "time": 6.9'),
    ("video-times/vfr_longlast.mp4", _VIDEO, 0, '21 frames(?s:.*)"frame": 20, "time": 5.9'),
    ("video-truncated/trunc.webm", _VIDEO, 1, r": 4 frames(?s:.*)trunc\.webm is broken or cut off"),
    ("video-truncated/vp9.webm", _VIDEO, 0, r"20 frames"),
    ("hostile/bomb_P_13300.png", "detect {case}", 1, r"13300 × 13300 pixels, and 54000000 are allowed"),
    ("hostile/image_hang.bin", "detect {case}", 0, r"image_hang\.bin: no objects"),
    ("hostile/really_eps.jpg", "detect {case}", 1, r"really_eps\.jpg is not an image"),
    ("hostile/unknown_codec.mp4", _VIDEO, 1, r"unknown_codec\.mp4 is in a video format that FFmpeg does not know"),
    *(
        (f"hostile/{name}", "convert {case} --output {out}", 2, re.escape(name))
        for name in ("explist.pth", "half_expand.pth", "tuplekey.pth", "zipbomb.pth", "pb_bomb.pb")
    ),
    ("hostile/float8.pth", "convert {case} --output {out}", 0, r"float8\.pth: "),
]


class Blind(ssd_zoo.SSD):
    """Of one convolution, and finds nothing: what is run here is the reading."""

    def __init__(self):
        backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8, padding=1))
        backbone.forward = lambda batch: [backbone[0](batch)]
        boxes = ssd_zoo.DefaultBoxGenerator(aspect_ratios=[[]], scales=[0.4, 0.5])
        super().__init__(backbone, boxes, (32, 32), ["background", "red"], score_thresh=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A saved detector of one class."""
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite300_mobilenet_v2(
        weights=None, weights_backbone=None, size=64, categories=["background", "red"], score_thresh=0.5
    )
    return ssd_zoo.save_pretrained(model, tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize(("case", "command", "code", "phrase"), ROWS)
def test_case(case, command, code, phrase, cases, tiny, tmp_path, capsys, caplog, monkeypatch):
    if "detect" in command and ("video" in case or ".mp4" in case):
        pytest.importorskip("av", reason="VIDEOS ARE NOT TESTED without PyAV")
    if "heic" in case:
        pytest.importorskip("pillow_heif", reason="HEIC IS NOT TESTED without pillow-heif")
    monkeypatch.setattr("ssd_zoo.cli.detect.open_detector", lambda *args, **options: Blind().eval())
    words = [word.format(case=cases / case, out=tmp_path / "run", tiny=tiny) for word in command.split()]
    began = time.process_time()
    assert main(words) == code
    assert "hostile" not in case or time.process_time() - began < 5, "it hangs"
    out, err = capsys.readouterr()
    frames = tmp_path / "run/frames.json"
    said = "\n".join([caplog.text, out, err, frames.read_text() if frames.exists() else ""])
    assert re.search(phrase, said), said
    assert "Traceback" not in said


def of_literal(case):
    """The files that a case of the fuzzer was made of."""
    return ast.literal_eval(case.read_text())


def test_a_config_with_lists_and_numbers_too_large(cases, tiny, tmp_path):
    (tmp_path / "config.json").write_bytes(of_literal(cases / "hostile/config_boxes_list.txt")[0])
    shutil.copy(tiny / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"config\.json.* not a finite number of 64 bits"):
        ssd_zoo.from_pretrained(tmp_path)


def test_a_config_that_names_the_hub(cases, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a request was made"))
    shutil.copy(cases / "hostile/config_hf-hub.json", tmp_path / "config.json")
    # Without the config that the file holds itself.
    save_file(load_file(tiny / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="hf-hub:owner/evil"):
        ssd_zoo.from_pretrained(tmp_path)


def test_results_with_a_crowd_of_64_bits(cases, tmp_path, capsys):
    names = ("truth.json", "found.json")
    for name, content in zip(names, of_literal(cases / "hostile/results_iou.txt"), strict=True):
        (tmp_path / name).write_bytes(content)
    files = ["--annotations", str(tmp_path / names[0]), "--results", str(tmp_path / names[1])]
    assert main(["evaluate", *files]) == 2
    assert "truth.json" in capsys.readouterr().err


def test_a_cached_header_of_another_shape(cases):
    content = (cases / "hostile/hub_header_cached.bin").read_bytes()
    with pytest.raises(ValueError, match="shape"):
        parse_header(io.BytesIO(content), len(content), "x.safetensors")


# Run by tests of their own.
OTHERS = {"config_boxes_list.txt", "config_hf-hub.json", "results_iou.txt", "hub_header_cached.bin"}


def test_the_table_has_every_case(cases):
    rows = {getattr(row, "values", row)[0] for row in ROWS}
    assert {folder.name for folder in cases.iterdir() if folder.is_dir()} == {case.split("/")[0] for case in rows}
    of_hostile = {case.split("/")[1] for case in rows if case.startswith("hostile/")}
    assert {file.name for file in (cases / "hostile").iterdir()} == of_hostile | OTHERS
