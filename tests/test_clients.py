"""Packages that use detectors take ours as they are, without an adapter; `pip install ".[clients]"` brings them."""

import importlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from labelled import colourful, make_coco
from PIL import Image
from test_readme import PAGES, blocks
from torch import nn

import ssd_zoo
from ssd_zoo.data import DetectionPresetEval, collate, open_dataset, read_image

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Other packages may use what is deprecated.
    pytest.mark.filterwarnings("default"),
]


def client(name: str, package: str = "'.[clients]'") -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"NO CLIENT: {error}; pip install {package} brings it")


@pytest.fixture(scope="module")
def model():
    return ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.3).eval()


@pytest.fixture(scope="module")
def coffee() -> Path:
    return Path(__file__).parents[1] / "examples" / "coffee.jpg"


@pytest.fixture(scope="module")
def detections(model, coffee):
    return ssd_zoo.predict(model, [coffee], 0.3)


def small(categories: Sequence[str] = ("background", "square")) -> ssd_zoo.SSD:
    torch.manual_seed(0)
    return ssd_zoo.ssdlite320_mobilenet_v2(
        categories=list(categories), size=64, weights_backbone=None, norm_layer=lambda n: nn.GroupNorm(1, n)
    )


def squares(count: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """White squares on black, with their boxes."""
    samples = []
    for i in range(count):
        image = torch.zeros(3, 64, 64)
        image[:, 10 + i : 40 + i, 8:38] = 1
        samples.append((image, {"boxes": torch.tensor([[8.0, 10 + i, 38, 40 + i]]), "labels": torch.tensor([1])}))
    return samples


def test_torchmetrics(detections):
    client("faster_coco_eval")
    client("torchmetrics")
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(backend="faster_coco_eval")
    # What is found counts as true, so all is found.
    metric.update(detections, [{key: found[key] for key in ("boxes", "labels")} for found in detections])
    assert metric.compute()["map"] == pytest.approx(1)
    metric.reset()
    metric.update(detections, [{"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": detections[0]["labels"][:1]}])
    assert metric.compute()["map"] == 0


def test_torchmetrics_measures_what_we_measure(model, test_data):
    client("faster_coco_eval")
    client("torchmetrics")
    from torchmetrics.detection import MeanAveragePrecision

    dataset = open_dataset(test_data / "coco128")
    part = torch.utils.data.Subset(dataset, range(24))
    of_model = [dataset.categories.index(name) if name in dataset.categories else 0 for name in model.categories]
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    for image, target in part:
        with torch.inference_mode():
            [found] = model([image])
        labels = torch.tensor(of_model)[found["labels"]]
        of_data = {key: found[key][labels > 0] for key in ("boxes", "scores")} | {"labels": labels[labels > 0]}
        metric.update([of_data], [{key: target[key] for key in ("boxes", "labels", "area", "iscrowd")}])
    theirs = metric.compute()
    ours = ssd_zoo.training.evaluate(
        model, part, categories=dataset.categories, score_thresh=model.score_thresh
    ).metrics
    assert ours["AP"] > 0.2
    for name, of_theirs in {"": "", "50": "_50", "75": "_75", "small": "_small", "large": "_large"}.items():
        assert ours[f"AP{name}"] == pytest.approx(theirs[f"map{of_theirs}"].item(), abs=1e-6), name


def test_supervision_annotates(detections, coffee):
    sv = client("supervision")
    photo = np.asarray(Image.open(coffee))
    found = detections[0].to_supervision()
    picture = sv.BoxAnnotator().annotate(photo.copy(), found)
    picture = sv.LabelAnnotator().annotate(picture, found)
    x1, y1, x2, y2 = found.xyxy[0].round().astype(int)
    changed = (picture != photo).any(2)
    assert changed[(y1 + y2) // 2, x2 - 3 : x2 + 3].any()
    assert changed[y1:y2, x1:x2].any()


def test_supervision_tracks(detections):
    sv = client("supervision")
    # Its own tracker, where this version still has it; it went into a package of its own.
    tracker = None if hasattr(sv, "ByteTrack") else client("trackers").ByteTrackTracker()
    update = tracker.update if tracker else sv.ByteTrack().update_with_detections
    numbers = [update(detections[0].to_supervision()).tracker_id.tolist() for _ in range(5)]
    # The score of the other object is too low to start a track.
    assert numbers[-1][0] >= 0
    assert numbers[-1] == numbers[-2]


def test_supervision_slices(model, coffee):
    sv = client("supervision")
    photo = np.asarray(Image.open(coffee))
    # Beside each other, the photo and its mirror image: a cup in both.
    wide = np.concatenate([photo, photo[:, ::-1]], 1)
    slicer = sv.InferenceSlicer(
        callback=lambda tile: ssd_zoo.predict(model, tile).to_supervision(),
        slice_wh=(photo.shape[1], photo.shape[0]),
        overlap_wh=(0, 0),
    )
    found = slicer(wide)
    cups = found[found.data["class_name"] == "cup"]
    assert len(cups) == 2
    first, second = sorted(cups.xyxy.tolist())
    assert second[0] == pytest.approx(wide.shape[1] - first[2], abs=12)


def test_sahi(model, coffee, detections):
    client("sahi")
    from sahi import AutoDetectionModel
    from sahi.predict import get_prediction, get_sliced_prediction

    theirs = AutoDetectionModel.from_pretrained(
        model_type="torchvision",
        model=model,
        category_mapping={str(label): name for label, name in enumerate(model.categories)},
        confidence_threshold=0.5,
        device="cpu",
    )
    whole = get_prediction(str(coffee), theirs).object_prediction_list
    expected = detections[0]["boxes"][detections[0]["scores"] > 0.5].tolist()
    assert len(whole) == len(expected) == 2
    for found, box in zip(whole, expected, strict=True):
        # SAHI's boxes are whole pixels.
        assert found.bbox.to_xyxy() == pytest.approx(box, abs=1)
    sliced = get_sliced_prediction(str(coffee), theirs, slice_height=300, slice_width=450, verbose=0)
    assert "cup" in {found.category.name for found in sliced.object_prediction_list}


def test_lightning(tmp_path, monkeypatch):
    lightning = client("lightning")
    client("faster_coco_eval")
    client("torchmetrics")
    monkeypatch.chdir(tmp_path)
    loader = torch.utils.data.DataLoader(squares(4), batch_size=4, collate_fn=collate)
    model = ssd_zoo.ssdlite320_ultraface_slim(categories=["background", "square"], size=64)
    sample = {"torch": torch, "ssd_zoo": ssd_zoo, "model": model, "loader": loader}
    [code] = blocks(PAGES["docs/finetune.md"], "py")
    exec(code, sample)
    assert list(Path("lightning_logs").rglob("*.ckpt"))
    assert ssd_zoo.from_pretrained("runs/lightning").categories == ["background", "square"]

    class Task(sample["Task"]):
        losses, precisions = [], []

        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            self.losses.append(loss.item())
            return loss

        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.precisions.append(self.trainer.callback_metrics["AP"].item())

        def predict_step(self, batch, index):
            return self.model(batch[0])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 0.002)

    task = Task(small())
    trainer = lightning.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, loader, loader)
    assert np.mean(task.losses[-3:]) < 0.8 * task.losses[0]
    assert len(task.precisions) == 8
    [batch] = trainer.predict(task, loader)
    assert [found["boxes"].shape[1] for found in batch] == [4] * 4
    ours = ssd_zoo.training.evaluate(task.model, open_dataset(squares(4), categories=["background", "square"]))
    assert task.precisions[-1] == pytest.approx(ours.metrics["AP"], abs=1e-6)


def test_torchvisions_training_loop(tmp_path, monkeypatch, capsys):
    # What its version of 2020 takes from torch and pycocotools, which have since removed it, and from a GPU.
    six = SimpleNamespace(string_classes=str)
    monkeypatch.setitem(sys.modules, "torch._six", six)
    monkeypatch.setattr(torch, "_six", six, raising=False)
    monkeypatch.setattr("pycocotools.cocoeval.Params.useSegm", None, raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    # Not in an extra: it asks for a fork of pycocotools. It is the folder references/detection of torchvision.
    engine = client("torchvision_detection", "--no-deps torchvision-detection").engine

    def as_tensors(image, target):
        # torchvision's loop of today takes image_id as the whole number that it is.
        image, target = DetectionPresetEval()(image, target)
        return image, {key: torch.as_tensor(value) for key, value in target.items()}

    data = open_dataset(make_coco(tmp_path, pictures=colourful(8)), transforms=as_tensors)
    loader = torch.utils.data.DataLoader(data, batch_size=4, collate_fn=collate)
    model = small(data.categories)
    optimizer = torch.optim.AdamW(model.parameters(), 0.002)
    losses = []
    # After the first epoch, in which the learning rate rises from 0.
    for epoch in range(1, 6):
        logged = engine.train_one_epoch(model, optimizer, loader, torch.device("cpu"), epoch, print_freq=100)
        losses.append(logged.meters["loss"].global_avg)
    assert losses[-1] < 0.8 * losses[0]
    assert logged.meters["classification"].count == 2
    theirs = engine.evaluate(model, loader, torch.device("cpu")).coco_eval["bbox"].stats
    ours = ssd_zoo.training.evaluate(model, data).metrics
    assert theirs[:2] == pytest.approx([ours["AP"], ours["AP50"]])
    assert theirs[1] > 0.1


def test_albumentations():
    albumentations = client("albumentations")
    flip = albumentations.Compose(
        [albumentations.HorizontalFlip(p=1)],
        bbox_params=albumentations.BboxParams(format="pascal_voc", label_fields=["labels"]),
    )
    [(image, target)] = squares(1)
    pixels = (image * 255).byte().permute(1, 2, 0).numpy()
    changed = flip(image=pixels, bboxes=target["boxes"].numpy(), labels=target["labels"].numpy())
    boxes = torch.as_tensor(np.array(changed["bboxes"]), dtype=torch.float32)
    # Of 64 columns: 8 to 38 becomes 26 to 56.
    assert boxes.tolist() == [[26, 10, 56, 40]]
    labels = torch.as_tensor(np.array(changed["labels"]), dtype=torch.int64)
    pixels = torch.from_numpy(changed["image"]).permute(2, 0, 1)
    assert pixels[:, 10:40, 26:56].min() == 255
    losses = small()([pixels], [{"boxes": boxes, "labels": labels}])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def inside(heat: torch.Tensor, box: Sequence[float]) -> torch.Tensor:
    x1, y1, x2, y2 = map(round, box)
    mask = torch.zeros(heat.shape, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM"])
def test_grad_cam(method, coffee, detections, tmp_path, monkeypatch):
    client("pytorch_grad_cam")
    (tmp_path / "photos").mkdir()
    shutil.copy(coffee, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    [code] = blocks(PAGES["docs/python.md"], "py")
    sample = {}
    exec(code.replace("GradCAM", method), sample)
    assert sample["picture"].shape == (*sample["photo"].shape[1:], 3)
    heat = torch.from_numpy(sample["heat"])
    assert heat.shape == sample["photo"].shape[1:]
    assert heat.max() > 0.5
    cup = inside(heat, detections[0]["boxes"][0].tolist())
    print(method, heat[cup].mean(), heat[~cup].mean())
    assert heat[cup].max() > 0
    if method == "GradCAM":  # The other knows of no target.
        assert heat[cup].mean() > 2 * heat[~cup].mean(), "the cup is what speaks for a cup"


def test_captum(model, coffee):
    client("captum")
    from captum.attr import Saliency

    def score_of_cup(batch):
        return model.forward_raw(batch)["cls_logits"][..., model.categories.index("cup")].amax(1)

    batch = model.prepare([read_image(coffee)])
    heat = Saliency(score_of_cup).attribute(batch.requires_grad_())[0].sum(0)
    assert heat.shape == batch.shape[-2:]
    cup = inside(heat, [300 * part for part in (174 / 600, 24 / 400, 416 / 600, 252 / 400)])
    assert heat[cup].mean() > 2 * heat[~cup].mean(), "the cup is what speaks for a cup"


def test_accelerate_moves_detections(detections):
    client("accelerate")
    from accelerate.utils import send_to_device

    moved = send_to_device(detections[0], "cpu")
    assert isinstance(moved, ssd_zoo.Detections)
    assert torch.equal(moved["boxes"], detections[0]["boxes"])


def test_accelerate_trains_and_gathers():
    accelerator = client("accelerate").Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader(squares(4), batch_size=4, collate_fn=collate)
    model = small()
    model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 0.002), loader)
    losses = []
    for _ in range(8):
        for images, targets in loader:
            loss = sum(model(images, targets).values())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    with torch.inference_mode():
        found = accelerator.gather_for_metrics(model.eval()(images))
    assert [one["boxes"].shape[1] for one in found] == [4] * 4
    assert isinstance(accelerator.unwrap_model(model), ssd_zoo.SSD)
