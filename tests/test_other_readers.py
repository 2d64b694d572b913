"""What CONTRIBUTING.md says of supervision's readers."""

import json

import numpy as np
import pytest
from labelled import PICTURES, draw
from layouts import NAMES, SHAPES, write, yolo_text

from ssd_zoo.data import open_dataset

supervision = pytest.importorskip("supervision", reason="THE READERS OF SUPERVISION ARE NOT COMPARED without it")
if not supervision.__version__.startswith("0.31."):
    pytest.skip(f"CONTRIBUTING.md tells of supervision 0.31, not {supervision.__version__}", allow_module_level=True)
BOXES = [list(map(float, box)) for picture in PICTURES for _, box in picture.things]


def boxes(found):
    return [box for path in sorted(found.annotations) for box in found.annotations[path].xyxy.tolist()]


def ours(path):
    return [list(thing.box) for image in open_dataset(path).images for thing in image.objects]


def of_yolo(root):
    write(root / "data.yaml", f"names: {NAMES}\ntrain: images/train\n")
    return supervision.DetectionDataset.from_yolo(
        str(root / "images/train"), str(root / "labels/train"), str(root / "data.yaml")
    )


def test_ids_as_texts_lose_all_objects_in_silence(tmp_path):
    [file] = SHAPES["coco_images"](tmp_path, "train", PICTURES)
    assert isinstance(json.loads(file.read_text())["annotations"][0]["image_id"], str)
    assert boxes(supervision.DetectionDataset.from_coco(str(tmp_path / "images"), str(file))) == []
    assert ours(tmp_path) == BOXES


@pytest.mark.parametrize(("name", "error"), [("coco_outlines", KeyError), ("coco_nulls", TypeError)])
def test_outlines_without_a_box_and_nulls_are_tracebacks(tmp_path, name, error):
    [file] = SHAPES[name](tmp_path, "train", PICTURES)
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry["image_id"] = int(entry["image_id"])
    file.write_text(json.dumps(content))
    images = tmp_path / ("images" if name == "coco_outlines" else ".")
    with pytest.raises(error):
        supervision.DetectionDataset.from_coco(str(images), str(file))
    assert ours(tmp_path) == BOXES


def test_boxes_of_voc_begin_a_pixel_before(tmp_path):
    SHAPES["voc_flat"](tmp_path, "train", PICTURES)
    theirs = supervision.DetectionDataset.from_pascal_voc(str(tmp_path / "train"), str(tmp_path / "train"))
    assert np.array_equal(np.array(boxes(theirs)) - BOXES, [[-1, -1, 0, 0]] * 3)
    assert ours(tmp_path) == BOXES


def test_pixels_in_yolo_are_boxes_beyond_the_image(tmp_path):
    files = SHAPES["yolo_folders"](tmp_path, "train", PICTURES)
    for file, picture in zip(files, PICTURES, strict=True):
        file.write_text(yolo_text(picture._replace(size=(1, 1))))
    assert np.abs(boxes(of_yolo(tmp_path))).max() > 1000
    with pytest.raises(ValueError, match="3 boxes are not fractions of the image"):
        open_dataset(tmp_path)


def test_a_confidence_and_a_track_make_another_box(tmp_path):
    """As `save_txt` of Ultralytics writes them where it tracks."""
    draw(PICTURES[0], tmp_path / "images/train/a.png")
    write(tmp_path / "labels/train/a.txt", "0 0.5 0.5 0.25 0.5 0.9 7\n")
    [box] = boxes(of_yolo(tmp_path))
    assert box != [30, 15, 50, 45]
    with pytest.raises(ValueError, match="remove confidences and numbers of tracks"):
        open_dataset(tmp_path)


def test_corners_in_coco_pass(tmp_path):
    [file] = SHAPES["coco_images"](tmp_path, "train", PICTURES)
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry |= {"image_id": int(entry["image_id"]), "bbox": [x, y, x + width, y + height], "area": width * height}
    file.write_text(json.dumps(content))
    theirs = boxes(supervision.DetectionDataset.from_coco(str(tmp_path / "images"), str(file)))
    assert theirs[0] == [8, 6, 48, 36]
    with pytest.raises(ValueError, match="the boxes are corners"):
        open_dataset(tmp_path)
