"""Draws figures of the pages when the docs are built, from what the code computes."""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from PIL import Image
from torch import Tensor

import ssd_zoo
from ssd_zoo.data import draw_detections, read_image
from ssd_zoo.deploy.formats import FORMATS
from ssd_zoo.detector.boxes import decode_boxes
from ssd_zoo.detector.loss import cross_entropy
from ssd_zoo.detector.matcher import match_default_boxes
from ssd_zoo.models.table import latencies
from ssd_zoo.video import Tracker, detect_stream

EXAMPLES = Path(__file__).parents[1] / "examples"
OBJECT, MATCHED, MISTAKEN = "#e6007a", "#00a3e0", "#ff8c00"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, draw in FIGURES.items():
        files.append(File.generated(config, f"figures/{name}.webp", content=_picture(draw)))
    for plot in (latency, speed):
        files.append(File.generated(config, f"figures/{plot.__name__}.svg", content=_picture(plot, "svg")))
    for photo in EXAMPLES.glob("*.jpg"):
        files.append(File.generated(config, f"photos/{photo.name}", content=photo.read_bytes()))
    return files


@functools.cache
def _picture(draw: Callable[[], Figure], kind: str = "webp") -> bytes:
    file = io.BytesIO()
    draw().savefig(file, format=kind, dpi=110, **({"pil_kwargs": {"quality": 80}} if kind == "webp" else {}))
    return file.getvalue()


@functools.cache
def lesson() -> dict[str, Tensor]:
    """Return what a detector computes in training for the photo of the cup: matching, losses, feature maps."""
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.5).eval()
    photo = read_image(EXAMPLES / "coffee.jpg")
    with torch.inference_mode():
        [found] = model([photo])
        batch = model.prepare([photo])
        boxes, _, valid = model.prepare_targets([found], [photo.shape[-2:]])
        raw, maps = model.forward_raw(batch), model.backbone(batch)
    [matched] = match_default_boxes(boxes, valid, model.default_boxes, model.iou_thresh)
    background = cross_entropy(raw["cls_logits"], torch.zeros_like(matched)[None], model.score_function)[0]
    negatives = background.masked_fill(matched >= 0, 0).topk(3 * int((matched >= 0).sum())).indices
    pixels = torch.nn.functional.interpolate(photo[None] / 255, (300, 300), mode="bilinear", antialias=True)[0]
    return {
        "photo": pixels.clamp(0, 1).permute(1, 2, 0),
        "objects": boxes[0],
        "default": model.default_boxes,
        "decoded": decode_boxes(raw["bbox_regression"][0], model.default_boxes),
        "scores": raw["cls_logits"][0, :, 1:].max(1).values,
        "matched": matched,
        "negatives": negatives,
    } | {f"map{k}": features[0] for k, features in enumerate(maps)}


def default_boxes() -> Figure:
    facts, first = lesson(), 0
    figure, axes = _panels(6, columns=3)
    for k, ax in enumerate(axes):
        side = facts[f"map{k}"].shape[-1]
        number = 3 if k == 0 else 6
        cell = (side // 2) * side + side // 2
        _show(ax, facts["photo"], f"map {k + 1}: {side} × {side} cells, {number} boxes each")
        _grid(ax, side)
        _boxes(ax, facts["default"][first + cell * number : first + (cell + 1) * number], MATCHED, 1.8)
        first += side * side * number
    return figure


def matching() -> Figure:
    facts = lesson()
    figure, axes = _panels(2, columns=2, width=7)
    for k, (ax, name) in enumerate(zip(axes, ("cup", "dining table"), strict=True)):
        mine = facts["default"][facts["matched"] == k]
        _show(ax, facts["photo"], f"{name}: {len(mine)} default boxes match")
        _boxes(ax, mine, MATCHED, 0.9)
        _boxes(ax, facts["objects"][k : k + 1], OBJECT, 3)
    return figure


def negatives() -> Figure:
    facts = lesson()
    positive = facts["default"][facts["matched"] >= 0]
    figure, axes = _panels(3, columns=3)
    chosen = facts["default"][facts["negatives"]]
    panels = (
        (facts["default"], "all", "#555555"),
        (positive, "matched", MATCHED),
        (chosen, "hard negatives", MISTAKEN),
    )
    for ax, (boxes, name, colour) in zip(axes, panels, strict=True):
        _show(ax, facts["photo"], f"{name}: {len(boxes)}")
        x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).clamp(0, 300).T.numpy()
        ax.scatter(x, y, s=9 if len(boxes) > 100 else 40, color=colour, edgecolor="white", linewidth=0.5)
    return figure


def feature_maps() -> Figure:
    facts = lesson()
    figure, axes = _panels(6, columns=6)
    for k, ax in enumerate(axes):
        features = facts[f"map{k}"]
        channels, side = features.shape[:2]
        strength = features.clamp(min=0).mean(0)
        _show(ax, facts["photo"], f"{side} × {side} × {channels}")
        ax.imshow(strength.numpy(), extent=(0, 300, 300, 0), cmap="magma", alpha=0.85, interpolation="nearest")
    return figure


def time() -> Figure:
    """Draw the pixels that one cell depends on, by gradients: of a model of images, and of one of clips."""
    photo = read_image(EXAMPLES / "coffee.jpg")
    clip = torch.stack([photo.roll(-12 * k, 2) for k in reversed(range(4))])
    figure, axes = _panels(8, columns=4)
    for row, name in enumerate(("ssdlite300_mobilenet_v2", "ssdlite300_mobilenet_v2_3d")):
        options = {"inflate": "average", "temporal_stages": [4]} if row else {}
        model = ssd_zoo.get_model(name, weights="COCO_TF_V1", size=160, **options).eval()
        images = model.prepare([clip] if row else list(clip)).requires_grad_()
        maps = model.backbone(images, lengths=[4]) if row else model.backbone(images)
        cell = maps[0][3, :, 5, 5]
        cell.square().sum().backward()
        seen = images.grad.abs().sum(1)
        for k, ax in enumerate(axes[4 * row : 4 * row + 4]):
            title = "this frame" if k == 3 else f"{3 - k} before"
            pixels = torch.nn.functional.interpolate(clip[k : k + 1] / 255, (300, 300), antialias=True, mode="bilinear")
            _show(ax, pixels[0].clamp(0, 1).permute(1, 2, 0) * 0.45, title if row == 0 else "")
            glow = (seen[k] / seen.max()).sqrt().clamp(0, 1).numpy()
            ax.imshow(0 * glow + 1, cmap="Wistia", alpha=glow, extent=(0, 300, 300, 0))
            if k == 0:
                ax.text(-0.08, 0.5, ("2-D", "3-D")[row], transform=ax.transAxes, rotation=90, va="center", ha="right")
    return figure


def tracks() -> Figure:
    """Draw three frames of a pan over both photos, with the number of each object."""
    astronaut, coffee = (read_image(EXAMPLES / name)[:, :400] for name in ("astronaut.jpg", "coffee.jpg"))
    wide = torch.nn.functional.avg_pool2d(torch.cat([astronaut[:, :, :310], coffee], 2).float(), 2).byte()
    frames = [wide[:, :, x : x + 250] for x in range(0, 206, 5)]  # small frames have large labels
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.5).eval()
    tracker, pictures = Tracker(fps=10), []
    for k, (frame, found) in enumerate(detect_stream(model, frames)):
        found["track_ids"] = tracker.update(found, k / 10)
        pictures.append(draw_detections(frame, found, model.categories))
    figure, axes = _panels(3, columns=3, shape=400 / 500)
    for k, ax in zip((2, 16, 40), axes, strict=True):
        _picture_of(ax, pictures[k], f"frame {k}")
    return figure


def phone() -> Figure:
    """Draw the way of a photo through an app."""
    facts = lesson()
    photo = Image.open(EXAMPLES / "coffee.jpg")
    found = ssd_zoo.predict("COCO_TF_V1", photo)
    figure, axes = _panels(4, columns=4)
    _picture_of(axes[0], photo, "photo")
    _show(axes[1], facts["photo"], "inputOf")
    _show(axes[2], facts["photo"], "runtime")
    _boxes(axes[2], facts["decoded"][facts["scores"].topk(60).indices], MISTAKEN, 0.5)
    _picture_of(axes[3], photo, "detectionsOf")
    _named(axes[3], found["boxes"], found.names)
    return figure


def settings() -> Figure:
    """Draw what the same tensors find with other default boxes, and with other names of classes."""
    photo = Image.open(EXAMPLES / "coffee.jpg")
    original = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1")
    shapes = [[(0.7 * width, 0.7 * height) for width, height in one] for one in original.default_box_generator.shapes]
    smaller = ssd_zoo.DefaultBoxGenerator(shapes=shapes, clip="none")
    others = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", default_boxes=smaller)
    gapless = ssd_zoo.get_model_weights("ssd300_vgg16d")["COCO_MMDET_V1"].meta["categories"]
    figure, axes = _panels(3, columns=3, shape=400 / 600)
    panels = (
        ("the original's settings", original, original.categories),
        ("other default boxes", others, original.categories),
        ("COCO's classes, numbered without gaps", original, gapless),
    )
    for ax, (title, model, categories) in zip(axes, panels, strict=True):
        found = ssd_zoo.predict(model, photo)
        _picture_of(ax, photo, title)
        _named(ax, found["boxes"], [categories[label] for label in found["labels"]])
    return figure


def timm() -> Figure:
    """Draw the first feature maps of detectors on three backbones, and the default boxes of a cell in each."""
    plain = torch.full((1, 1, 3), 0.25)
    models = {
        "ssdlite_timm\nmobilenetv4_conv_small": ssd_zoo.ssdlite_timm("mobilenetv4_conv_small", weights_backbone=None),
        "ssd_timm\nconvnext_tiny": ssd_zoo.ssd_timm("convnext_tiny", weights_backbone=None),
        "ssd_timm\nvit_small_patch16_dinov3": ssd_zoo.ssd_timm("vit_small_patch16_dinov3", weights_backbone=None),
    }
    figure, axes = _panels(12, columns=4, width=7.5)
    for row, (name, model) in enumerate(models.items()):
        first = 0
        with torch.inference_mode():
            maps = model.eval().backbone(torch.zeros(1, 3, 320, 320))
        axes[4 * row].set_ylabel(name, fontsize=8)
        for ax, features in zip(axes[4 * row : 4 * row + 4], maps, strict=False):
            side = features.shape[-1]
            cell = first + 6 * ((side // 2) * side + side // 2)
            _show(ax, plain, f"{side} × {side} × {features.shape[1]}")
            _grid(ax, side)
            _boxes(ax, model.default_boxes[cell : cell + 6] * 300 / 320, MATCHED, 1.4)
            first += 6 * side * side
    return figure


def latency() -> Figure:
    """Draw AP on COCO over the time of one image: filled points on val2017, open ones on minival14."""
    machine, times = latencies()
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    ax = figure.subplots()
    points = [
        (figures["AP"], builder, weights, data)
        for builder, weights in times
        for data, figures in ssd_zoo.get_model_weights(builder)[weights].meta["metrics"].items()
        if data.startswith(("COCO-val", "COCO-minival"))
    ]
    lowest = 0.0
    for ap, builder, weights, data in sorted(points):
        eager, exported = times[builder, weights]
        ax.plot([exported, eager], [ap, ap], color="#bbbbbb", lw=1, zorder=1)
        for milliseconds, colour in ((eager, MATCHED), (exported, OBJECT)):
            face = "white" if data == "COCO-minival14" else colour
            ax.scatter(milliseconds, ap, edgecolor=colour, facecolor=face, zorder=2)
        lowest = max(lowest + 0.3, ap)  # Names do not lie on each other.
        ax.annotate(
            f"{builder}, {weights}", (max(eager, exported), lowest), (8, -3), textcoords="offset points", fontsize=7
        )
    for colour, name in ((MATCHED, "eager"), (OBJECT, "OpenVINO")):
        ax.scatter([], [], color=colour, label=name)
    ax.set(xscale="log", xlabel=f"ms of one image; {machine}", ylabel="AP on COCO, published")
    ax.set_xlim(right=ax.get_xlim()[1] * 6)  # room for names
    ax.legend(loc="upper left")
    ax.grid(alpha=0.3)
    return figure


def speed() -> Figure:
    """Draw the time from one decoded photo to its detections, which stands in the table of the page on speed."""
    page = (Path(__file__).parent / "benchmarks.md").read_text(encoding="utf-8")
    text = page.partition("<!-- files: ")[2].partition("<!-- end of files")[0]
    _, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    times = {name: float(least) for name, least, *_ in rows if "network alone" not in name}
    figure = Figure(figsize=(8.5, 0.26 * len(times) + 0.7), layout="constrained")
    ax = figure.subplots()
    ours = ("ssd_zoo", "optimized", *FORMATS)
    bars = ax.barh(
        list(times), list(times.values()), color=[OBJECT if name.startswith(ours) else MATCHED for name in times]
    )
    ax.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    ax.set(xlabel="ms from one decoded photo to its detections")
    ax.margins(x=0.1)
    ax.invert_yaxis()
    return figure


FIGURES = {
    "default_boxes": default_boxes,
    "matching": matching,
    "negatives": negatives,
    "feature_maps": feature_maps,
    "time": time,
    "tracks": tracks,
    "phone": phone,
    "settings": settings,
    "timm": timm,
}


def _panels(number: int, columns: int, width: int = 10, shape: float = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, whose height is the share `shape` of their width."""
    side, rows = width / columns, number // columns
    figure = Figure(figsize=(width, rows * (shape * side + 0.3)), layout="constrained")
    return figure, list(figure.subplots(rows, columns).flat)


def _show(ax: Axes, image: Tensor, title: str) -> None:
    ax.imshow(image.numpy(), extent=(0, 300, 300, 0))
    ax.set(xlim=(0, 300), ylim=(300, 0), xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)


def _picture_of(ax: Axes, picture: Image.Image, title: str) -> None:
    ax.imshow(picture)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()


def _named(ax: Axes, boxes: Tensor, names: Sequence[str]) -> None:
    _boxes(ax, boxes, OBJECT, 2)
    for (x, _, _, y), name in zip(boxes.tolist(), names, strict=True):
        ax.text(x + 12, y - 16, name, fontsize=9, color="white", backgroundcolor=OBJECT)


def _grid(ax: Axes, side: int) -> None:
    for line in range(1, side):
        ax.axhline(line * 300 / side, color="white", lw=0.4, alpha=0.6)
        ax.axvline(line * 300 / side, color="white", lw=0.4, alpha=0.6)


def _boxes(ax: Axes, boxes: Tensor, colour: str, width: float) -> None:
    for x1, y1, x2, y2 in boxes.tolist():
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, lw=width))
