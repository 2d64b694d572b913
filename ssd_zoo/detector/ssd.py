"""The SSD model, from images to losses and detections."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssd_zoo.detector.box_losses import BoxLoss, BoxLossName
from ssd_zoo.detector.boxes import DefaultBoxGenerator
from ssd_zoo.detector.caller import warn_caller
from ssd_zoo.detector.checks import DeferredChecks
from ssd_zoo.detector.choices import check_normalization, checked_setting
from ssd_zoo.detector.compiled import not_compiled, only_callees_compiled
from ssd_zoo.detector.constants import WithConstants
from ssd_zoo.detector.feature_maps import feature_map_shapes
from ssd_zoo.detector.frames import check_clips, check_time, forward_clips, holds_clips, step_streams, step_streams_raw
from ssd_zoo.detector.heads import SSDHead
from ssd_zoo.detector.inputs import batch_images, check_images, check_output, check_pixel_range
from ssd_zoo.detector.loss import ClassificationLoss, ClassificationLossName, detector_losses
from ssd_zoo.detector.postprocess.dispatch import postprocess_detections, score_boxes
from ssd_zoo.detector.postprocess.fixed import postprocess_fixed, try_few_candidates
from ssd_zoo.detector.postprocess.thresholds import Thresholds
from ssd_zoo.detector.sizes import sizes_of
from ssd_zoo.detector.targets import box_scales, prepare_targets
from ssd_zoo.detector.tiles import check_tiles, forward_tiles
from ssd_zoo.detector.torchvision_names import WithWaysOut
from ssd_zoo.layers.folded import folded_norms, remember_folded_norms

__all__ = ["SSD"]

Head = Callable[[Sequence[int], Sequence[int], int], nn.Module]
Targets = Sequence[dict[str, Tensor]]
Detections = list[dict[str, Tensor]]
Losses = dict[str, Tensor]
Raw = dict[str, Tensor]
State = dict[str, Tensor]
Size = tuple[int, int]


class SSD(WithWaysOut, WithConstants):
    """A single-shot detector with the API of torchvision's detectors.

    In training mode `model(images, targets)` returns the losses `bbox_regression` and `classification`. In evaluation
    mode `model(images)` returns one dict per image: `boxes (n, 4)`, xyxy in the image's pixels, `labels (n,)` and
    `scores (n,)`, in descending order of score.

    Clips are accepted in the same way. A backbone with a method `step` relates the frames of a clip, never images of a
    list or batch. Any other backbone treats each frame as an image. The method `step` detects in streams, in pieces.

    Args:
        backbone: Maps a batch `(N, in_chans, H, W)` to a list of feature maps `(N, channels, height, width)`.
        default_boxes: Generator of the feature maps' default boxes.
        size: (height, width) that images are resized to.
        categories: Names of the classes; the first is the background.
        head: Called with the feature maps' channels, their boxes per location and the number of classes.
        in_chans: Channels of an image.
        image_mean: Subtracted from pixels between 0 and 1, one number per channel.
        image_std: Divides the result, one number per channel.
        antialias: Whether downscaling averages over pixels. In torchvision's detectors it does not.
        score_function: `"softmax"` over all classes, or `"sigmoid"` of each; the loss follows it.
        score_thresh: Scores of detections must be greater.
        nms_thresh: Largest IoU of two detections of a class.
        detections_per_img: Most detections per image.
        topk_candidates: Most candidates per class that enter NMS; None for all.
        clip_before_nms: Whether boxes are clipped to the image before NMS or after it.
        iou_thresh: Least IoU of an object and the default boxes that are matched to it in training.
        classification_loss: `"cross_entropy"`, `"focal"`, or a function; see `multibox_loss`.
        box_loss: `"smooth_l1"`, `"giou"`, `"ciou"`, or a function; see `multibox_loss`.
        positive_fraction: Share of positive default boxes among those in the classification loss.
        min_negatives: Least number of negatives per image, so that images without objects contribute to the loss.
        on_invalid_boxes: In training, whether boxes that are not finite or have no area `"raise"` an error or are left
            out (`"drop"`).
        tile: Side, or (height, width), of the tiles that larger images are cut into for detecting, in the images'
            pixels; None takes images whole. With tiles, `detections_per_img` counts per tile.
        tile_overlap: Least overlap of neighbouring tiles, as a share of their side.

    Attributes:
        default_boxes: `(D, 4)`, xyxy in input pixels, always float32.
        default_box_generator: Generator of `default_boxes`.
        categories: Names of the classes, background first.
        size: (height, width) of the input.
        recipe: Name and arguments of the builder; None if no registered builder made the model.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If arguments contradict each other or are out of range, or the size is too small for the backbone.
            Settings that are assigned later are checked, too.
    """

    default_boxes: Tensor
    image_mean: Tensor
    image_std: Tensor
    recipe: tuple[str, dict[str, object]] | None = None

    def __init__(
        self,
        backbone: nn.Module,
        default_boxes: DefaultBoxGenerator,
        size: tuple[int, int],
        categories: Sequence[str],
        *,
        head: Head = SSDHead,
        in_chans: int = 3,
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        antialias: bool = False,
        score_function: Literal["softmax", "sigmoid"] = "softmax",
        score_thresh: float = 0.01,
        nms_thresh: float = 0.45,
        detections_per_img: int = 200,
        topk_candidates: int | None = 400,
        clip_before_nms: bool = True,
        iou_thresh: float = 0.5,
        classification_loss: ClassificationLossName | ClassificationLoss = "cross_entropy",
        box_loss: BoxLossName | BoxLoss = "smooth_l1",
        positive_fraction: float = 0.25,
        min_negatives: int = 3,
        on_invalid_boxes: Literal["raise", "drop"] = "raise",
        tile: int | tuple[int, int] | None = None,
        tile_overlap: float = 0.25,
    ) -> None:
        super().__init__()
        self.backbone, self.default_box_generator = backbone, default_boxes
        self.size = size
        self.categories = list(categories)
        self.in_chans, self.antialias = in_chans, antialias
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img, self.topk_candidates = detections_per_img, topk_candidates
        self.score_function, self.clip_before_nms = score_function, clip_before_nms
        self.classification_loss, self.box_loss = classification_loss, box_loss
        self.positive_fraction, self.min_negatives = positive_fraction, min_negatives
        self.iou_thresh, self.on_invalid_boxes = iou_thresh, on_invalid_boxes
        self.tile, self.tile_overlap = check_tiles(tile, tile_overlap), tile_overlap
        self._checks = DeferredChecks()
        self._told: set[str] = set()
        check_normalization(image_mean, image_std, in_chans)
        remember_folded_norms(self)

        shapes = feature_map_shapes(backbone, size, in_chans)
        boxes = default_boxes([shape[1:] for shape in shapes], size)
        self.head = head([shape[0] for shape in shapes], default_boxes.boxes_per_location, len(categories))
        self.register_constant("default_boxes", boxes)
        for name, values in (("image_mean", image_mean), ("image_std", image_std)):
            self.register_constant(name, torch.tensor(values, dtype=torch.float32, device="cpu").view(-1, 1, 1))

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, checked_setting(self, name, value))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SSD":
        # Other types may round what folded norms are recognised by.
        self.norms_folded_before = folded_norms(self)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "SSD":
        """Set training or evaluation mode; warn before training folded norms."""
        if mode and (folded := folded_norms(self)):
            warn_caller(
                f"{len(folded)} norms of this model were folded away, {folded[0]!r} among them: in training mode they "
                "change its output. ssd_zoo.restore_norms(model, images) restores them."
            )
        return super().train(mode)

    # Its callees are still compiled. They see batches of one size, so image sizes cause no recompilation.
    @only_callees_compiled
    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Targets | None = None, *, return_losses: bool = False
    ) -> Losses | Detections | tuple[Detections, Losses]:
        """Return losses in training mode and detections in evaluation mode.

        Args:
            images: A list of `(in_chans, H, W)` tensors of any sizes, or a batch `(N, in_chans, H, W)`. They are uint8,
                or floating point between 0 and 1. Clips are `(T, in_chans, H, W)` each, of any lengths and sizes, in a
                list, or a batch `(N, T, in_chans, H, W)`.
            targets: In training, one dict per image: `boxes (G, 4)`, xyxy in the image's pixels, and `labels (G,)`.
                A clip's dict also has `frame_index (G,)`. If only some frames are annotated, it also has
                `labeled_frames (K,)`, and the loss leaves out the other frames.
            return_losses: In evaluation mode, whether to return the losses of `targets` too.

        Returns:
            In training mode, a dict of the losses `bbox_regression` and `classification`. In evaluation mode, a list of
            detections, one dict per image; with `return_losses`, the pair of detections and losses. Detections of a
            clip are in the order of its frames, with `frame_index (n,)`; `split_frames` splits them by frame.

        Raises:
            TypeError: If an argument has the wrong type, or targets are missing in training mode.
            ValueError: If images or targets are invalid. The message names which. Values on a GPU are checked later.
                In evaluation mode, invalid pixels raise the error after detection. In training mode, invalid pixels,
                labels or boxes raise it in one of the next calls, and the loss leaves out invalid objects. In
                evaluation mode also if the network's output is NaN.

        Warns:
            UserWarning: Once, if the backbone relates the frames of clips and the input is images.
        """
        self._checks.run()
        clips = holds_clips(images)
        check_time(self, clips)
        if self.tile is not None and not self.training:
            return forward_tiles(self, images, return_losses)
        if clips:
            return forward_clips(self, list(images), targets, return_losses)
        batch, image_sizes = self.prepare(images), sizes_of(images)
        if not self.training and not return_losses:
            return self._detections(self._forward_scores(batch), image_sizes)
        objects = self.prepare_targets(targets, image_sizes)
        if self.training:
            return self.forward_losses(batch, *objects)
        raw = self.forward_raw(batch)
        return self._detections(self._scored(raw), image_sizes), detector_losses(self, raw, *objects)

    @not_compiled
    def prepare(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """Check, resize and normalise images.

        Args:
            images: As for calling the model; errors are the same.

        Returns:
            The batch `(N, in_chans, height, width)` for `forward_raw`, in the backbone's precision. Its memory format
            is `torch.channels_last`, in which convolutions are fastest. Frames of clips lie one after another.
        """
        if holds_clips(images):
            images = check_clips(images, self.in_chans, self.default_boxes.device)
        check_images(images, self.in_chans, self.default_boxes.device)
        dtype = next(filter(Tensor.is_floating_point, self.backbone.parameters()), self.image_mean).dtype
        batch, low_high = batch_images(
            images, self.size, self.image_mean, self.image_std, antialias=self.antialias, dtype=dtype
        )
        if low_high is not None:
            self._checks.add(low_high, check_pixel_range)
        return batch

    def _forward_scores(self, batch: Tensor) -> dict[str, Tensor]:
        """Run the network and convert its logits to scores; compiled as one graph."""
        return self._scored(self.forward_raw(batch))

    def _scored(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        scored = score_boxes(raw, self.score_function)
        # On a GPU this takes many calls, which a compiled graph replays at almost no cost.
        if torch.compiler.is_compiling() and scored["best"].is_cuda:
            return try_few_candidates(scored, self.default_boxes, self.size, self._thresholds())
        return scored

    def forward_raw(self, batch: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Run backbone and head.

        Args:
            batch: `(N, in_chans, height, width)` from `prepare`.
            lengths: Frames of each clip; None for images.

        Returns:
            `cls_logits (N, D, C)` and `bbox_regression (N, D, 4)`, at least in float32.
        """
        in_time = lengths is not None and hasattr(self.backbone, "step")
        return self.head(self.backbone(batch, lengths) if in_time else self.backbone(batch))

    def step(self, images: Sequence[Tensor] | Tensor, state: State | None = None) -> tuple[Detections, State]:
        """Detect objects in the next frames of streams, as in whole clips.

        Args:
            images: A list of one frame `(in_chans, H, W)` per stream, or of several `(T, in_chans, H, W)`.
            state: The state that the previous step returned; None at the start. It is not changed.

        Returns:
            Detections, one dict per stream, with `frame_index (n,)` counted from its start. Then the state. Each of its
            tensors has one row per stream, so streams can be selected by indexing and joined by `torch.cat`.

        Raises:
            ValueError: If the model is in training mode, the frames are in no list, or the state has other streams.
        """
        return step_streams(self, images, state)

    def step_raw(self, batch: Tensor, lengths: Sequence[int] | None, state: State | None = None) -> tuple[Raw, State]:
        """Run backbone and head on the next frames of streams.

        Args:
            batch: `(N, in_chans, height, width)` from `prepare`: the frames of all streams, one after another.
            lengths: Frames of each stream, at least one. None for one frame of each; the state is needed then.
            state: The state that the previous step returned; None at the start.

        Returns:
            The output of `forward_raw`, and the state.

        Raises:
            ValueError: If both `lengths` and `state` are None.
        """
        return step_streams_raw(self, batch, lengths, state)

    def forward_losses(self, batch: Tensor, boxes: Tensor, labels: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Run backbone and head, match default boxes and compute the losses.

        Args:
            batch: `(N, in_chans, height, width)` from `prepare`.
            boxes: Objects `(N, G, 4)`, xyxy in input pixels, padded.
            labels: Their classes `(N, G)`, int64.
            valid: `(N, G)`, False for the padding and invalid objects.

        Returns:
            `bbox_regression` and `classification`, scalars.
        """
        return detector_losses(self, self.forward_raw(batch), boxes, labels, valid)

    def forward_fixed(self, batch: Tensor, *, candidates: int = 1000) -> dict[str, Tensor]:
        """Return detections in tensors of fixed shapes, for compilers and exporters.

        Args:
            batch: `(N, in_chans, height, width)` from `prepare`.
            candidates: Number of best (box, class) pairs per image that enter NMS.

        Returns:
            `boxes (N, K, 4)`, xyxy in input pixels, `scores (N, K)` and `labels (N, K)`, padded with zeros. K is
            `detections_per_img`, or the number of all pairs if that is less. `count (N,)` is the number of detections.
            `exact (N,)` is False if more candidates or rounds of NMS could change them.
        """
        scored = score_boxes(self.forward_raw(batch), self.score_function)
        return postprocess_fixed(scored, self.default_boxes, self.size, self._thresholds(), candidates=candidates)

    def _thresholds(self) -> Thresholds:
        return Thresholds(**{name: getattr(self, name) for name in Thresholds.__annotations__})

    @not_compiled
    def prepare_targets(self, targets: Targets | None, image_sizes: Sequence[Size]) -> tuple[Tensor, Tensor, Tensor]:
        """Check targets, scale their boxes to the input, and pad them.

        Args:
            targets: As for calling the model.
            image_sizes: (height, width) of each image.

        Returns:
            Arguments of `forward_losses`: boxes `(N, G, 4)`, labels `(N, G)`, and `(N, G)`, False for padding and for
            invalid objects.

        Raises:
            TypeError: If targets are missing, or have the wrong type.
            ValueError: If they are invalid.
        """
        return prepare_targets(self, targets, image_sizes)

    @not_compiled
    def _detections(self, scored: dict[str, Tensor], image_sizes: Sequence[Size]) -> Detections:
        # NaN anywhere makes a sum NaN; post-processing alone would take it for the lowest score.
        sums = scored["best"].detach().sum(1) + scored["bbox_regression"].detach().sum((1, 2))
        self._checks.add(sums, check_output)
        scales = box_scales([self.size] * len(image_sizes), image_sizes, self.default_boxes.device)
        detections = postprocess_detections(scored, self.default_boxes, self.size, self._thresholds(), scales)
        self._checks.run(wait=True)
        return detections

    def extra_repr(self) -> str:
        return f"size={self.size}, categories={len(self.categories)}, default_boxes={len(self.default_boxes)}"
