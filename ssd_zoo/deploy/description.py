"""The description of a detector that its exported file carries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

from ssd_zoo.deploy.digest import is_digest
from ssd_zoo.detector.inputs import resize_images
from ssd_zoo.detector.postprocess.thresholds import Thresholds
from ssd_zoo.detector.sizes import parse_size
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.detector.tiles import check_tiles
from ssd_zoo.models.loading import find_report
from ssd_zoo.version import __version__
from ssd_zoo.weights.categories import check_names
from ssd_zoo.weights.outside import mapping, parse_json, quote, whole

__all__ = ["KEY", "Description", "Nms", "Pixels"]

KEY = "ssd_zoo"
"""Name of the description among a file's metadata."""

Nms = Literal["inside", "outside"]
Pixels = Literal["float32", "uint8"]

_FORMAT = 1
_CHOICES: dict[str, tuple[str | bool, ...]] = {
    "nms": ("inside", "outside"),
    "pixels": ("float32", "uint8"),
    "score_function": ("softmax", "sigmoid"),
    "antialias": (True, False),
    "last_frame_only": (True, False),
    "int8": (True, False),
    "bfloat16": (True, False),
}


@dataclass(frozen=True)
class Description:
    """What an exported file says about its detector.

    Attributes:
        nms: Whether the file's outputs are detections (`"inside"`) or raw output (`"outside"`).
        pixels: Type of the input: `"float32"` from 0 to 1, or `"uint8"` from 0 to 255.
        size: (height, width) of the input in pixels.
        in_chans: Channels of the input.
        antialias: Whether images are averaged when they are scaled down to the input.
        image_mean: Subtracted from pixels between 0 and 1, one number per channel. The file itself does it.
        image_std: Divides the result. The file itself does it.
        score_function: `"softmax"` over all classes, or `"sigmoid"` of each.
        thresholds: Thresholds of post-processing.
        categories: Names of the classes, background first.
        state: For models that relate the frames of clips, names and shapes of the state's tensors, without the axis of
            streams; empty for models of images.
        last_frame_only: Whether only the last frame of each piece of a stream gets detections.
        builder: Name of the model's builder; empty if no registered builder made it.
        licence: Licence of the weights; None if unknown.
        origin: Origin of the weights; None if unknown.
        tile: (height, width) in pixels of the tiles that larger images are cut into; None takes images whole.
        tile_overlap: Least overlap of neighbouring tiles, as a share of their side.
        int8: Whether convolutions compute in eight-bit integers.
        bfloat16: Whether it computes in bfloat16 where the CPU can.
        digest: Digest of the file, computed with zeros in its place. None in archives, which have checksums, and in
            files of older versions.
        version: Version of ssd_zoo that wrote the file.
        format: Version of this description.
    """

    nms: Nms
    pixels: Pixels
    size: tuple[int, int]
    in_chans: int
    antialias: bool
    image_mean: list[float]
    image_std: list[float]
    score_function: str
    thresholds: Thresholds
    categories: list[str]
    state: dict[str, list[int]]
    last_frame_only: bool
    builder: str
    licence: str | None
    origin: str | None
    tile: tuple[int, int] | None = None
    tile_overlap: float = 0.25
    int8: bool = False
    bfloat16: bool = False
    digest: str | None = None
    version: str = field(default=__version__)
    format: int = _FORMAT

    @classmethod
    def of(
        cls,
        model: SSD,
        *,
        nms: Nms,
        pixels: Pixels,
        int8: bool = False,
        bfloat16: bool = False,
        licence: str | None = None,
        origin: str | None = None,
    ) -> "Description":
        """Return the description of a model for its file.

        By default licence and origin are those of the weights that it was built with.
        """
        report = find_report(model)
        return cls(
            nms=nms,
            pixels=pixels,
            int8=int8,
            bfloat16=bfloat16,
            size=model.size,
            in_chans=model.in_chans,
            antialias=model.antialias,
            image_mean=model.image_mean.flatten().tolist(),
            image_std=model.image_std.flatten().tolist(),
            score_function=model.score_function,
            thresholds=model._thresholds(),
            categories=model.categories,
            state={name: list(value.shape[1:]) for name, value in _first_state(model).items()},
            last_frame_only=getattr(model.backbone, "frames", "all") == "last",
            builder=(model.recipe or ("", {}))[0],
            licence=licence or (None if report is None else report.licence),
            origin=origin or (None if report is None else report.origin or report.source),
            tile=model.tile,
            tile_overlap=model.tile_overlap,
        )

    def resize(self, images: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor | None]:
        """Resize checked images to a batch `(N, C, height, width)` of the file's size and pixels; see `resize_images`.

        Also return the least and greatest pixel of each image, `(2, N)`; None if all are uint8.
        """
        return resize_images(images, self.size, antialias=self.antialias, dtype=getattr(torch, self.pixels))

    def blank_state(self, streams: int) -> dict[str, Tensor]:
        """Return the state of streams before their first frame, all zeros; empty for models of images."""
        return {
            name: torch.zeros(streams, *shape, dtype=torch.int64 if name == "frames_seen" else torch.float32)
            for name, shape in self.state.items()
        }

    def to_json(self) -> str:
        """Return the description as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None, source: str) -> "Description":
        """Read a description.

        Args:
            text: The JSON; None if the file has no description.
            source: Name of the file in errors.

        Raises:
            ValueError: If there is no text, it is not a description, holds values that are not allowed, or has a newer
                format.
        """
        if text is None:
            raise ValueError(f"{source} was not exported by ssd_zoo: it carries no description of a detector.")
        try:
            known: Any = mapping(parse_json(text, "it"), "it")
            if whole(known.get("format", 0), "format") > _FORMAT:
                raise ValueError(
                    f"it has format {known['format']}, written by ssd_zoo {quote(known.get('version'))}; this version "
                    f"({__version__}) reads formats up to {_FORMAT}. pip install --upgrade ssd_zoo"
                )
            _check_fields(known, cls)
            return _checked(cls(**{**known, **_parsed(known)}))
        except (KeyError, TypeError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"The description in {source} can't be used: {what}") from error


def _check_fields(known: Mapping[str, object], cls: type[Description] | type[Thresholds]) -> None:
    if unknown := known.keys() - {one.name for one in fields(cls)}:
        raise ValueError(f"it has the unknown field {quote(min(unknown))}.")


def _parsed(known: dict[str, object]) -> dict[str, object]:
    thresholds: Any = mapping(known["thresholds"], "thresholds")
    _check_fields(thresholds, Thresholds)
    check_names(known["categories"])
    # Older files have no tiles.
    tile = check_tiles(known.get("tile"), known.get("tile_overlap", 0.25))
    return {"size": parse_size(known["size"]), "thresholds": Thresholds(**thresholds), "tile": tile}


def _checked(described: Description) -> Description:
    """Return a description whose values are checked; raise ValueError if one is not allowed."""
    for name, allowed in _CHOICES.items():
        # 1 equals True.
        if (value := getattr(described, name)) not in allowed or type(value) is not type(allowed[0]):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {quote(value)}.")
    mapping(described.state, "state")
    if whole(described.in_chans, "in_chans") < 1:
        raise ValueError(f"in_chans must be a whole number from 1, got {described.in_chans}.")
    if described.digest is not None and not is_digest(described.digest):
        raise ValueError(f"digest must be a file's digest or None, got {quote(described.digest)}.")
    return described


@torch.no_grad()
def _first_state(model: SSD) -> dict[str, Tensor]:
    """Return the state of one stream after its first frame; empty for a model of images."""
    if not hasattr(model.backbone, "step"):
        return {}
    frames = torch.zeros(1, model.in_chans, *model.size, device=model.default_boxes.device)
    return model.step_raw(model.prepare(frames), [1])[1]
