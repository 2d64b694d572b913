"""Weights entries: address, preprocessing, metadata and settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
import torchvision
from torch import Tensor

from ssd_zoo.weights.read import read_weights

__all__ = ["Weights", "WeightsEnum", "detection_transforms"]

_NONE = "This builder has no published weights"


def detection_transforms() -> Callable[[object], Tensor]:
    """Return the preprocessing: PIL image, array or tensor to float tensor.

    The tensor is `(C, H, W)`, with values from 0 to 1.
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])


@dataclass(eq=False)
class Weights(torchvision.models.Weights):
    """A weights entry: address, preprocessing, metadata and settings.

    Args:
        url: A web address; `hf-hub:owner/name@revision` for `model.safetensors` of a repository on the Hub;
            `package:FILE` for a file that ships with ssd_zoo; or the path of a safetensors file. Empty for an entry of
            settings alone.
        transforms: Called without arguments; returns the preprocessing.
        meta: `categories`, `num_params`, `macs`, `licence`, `origin`, `recipe`, and `metrics`: per data set its
            figures, each with `source`, either `"published"` or `"measured"`.
        layout: Name of the converter for the tensors' names; None for our own names.
        settings: Settings of the weights that differ from the builder's: keywords of `SSD`, with `size`, and under
            `"default_boxes"` keywords of `DefaultBoxGenerator`.
        sha256: The file's hash, or its beginning; None where it is unknown, or part of the file's name.
        digest: The digest of a saved model's tensors; see `save_pretrained`.
        prefixes: Beginnings of the needed tensors' names; from the Hub only these are downloaded.
        base: The weights that have all tensors which this file lacks; for a model for clips those of images.
    """

    layout: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    sha256: str | None = None
    digest: str | None = None
    prefixes: tuple[str, ...] = ()
    base: "WeightsEnum | None" = None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __str__(self) -> str:
        return self.url

    def get_state_dict(self, progress: bool = True) -> dict[str, Tensor]:
        """Return the tensors by our names, with those of `base` that the file lacks; download what is needed.

        Half precision becomes float32. Errors are those of `read_weights`.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        of_base = self.base.get_state_dict(progress) if self.base else {}
        return {**of_base, **read_weights(self, progress)}


Self = TypeVar("Self", bound="WeightsEnum")


class WeightsEnum(torchvision.models.WeightsEnum):
    """Enum of a builder's weights, with `Weights` as members.

    `WeightsEnum` itself is the empty enum of builders without weights.
    """

    @classmethod
    def verify(cls: type[Self], obj: object) -> Self | None:
        """Return a member, given itself, its name or its full name.

        None is returned unchanged. Another enum's member counts as this one's of the same value, as clip models have
        the weights of images. `Weights` of a saved model are returned unchanged; builders use them like a member.

        Raises:
            ValueError: If the name is unknown.
            TypeError: If `obj` is of another type.
        """
        if obj is None or type(obj) is cls or isinstance(obj, Weights):
            return cast("Self | None", obj)
        if isinstance(obj, WeightsEnum) and obj.value in cls._value2member_map_:
            return cls(obj.value)
        if isinstance(obj, str):
            name = obj.removeprefix(f"{cls.__name__}.")
            if name in cls.__members__:
                return cls.__members__[name]
            known = ", ".join(repr(member) for member in cls.__members__)
            has = f"{cls.__name__} has no weights {obj!r}; it has {known}" if known else f"{_NONE}, so not {obj!r}"
            raise ValueError(
                f"{has}. There is no folder of that name either; "
                "other sources are a .safetensors file and 'hf-hub:owner/name'."
            )
        if not cls.__members__:
            raise TypeError(f"{_NONE}, so not {obj!r}.")
        raise TypeError(f"Expected weights of {cls.__name__}, one of their names, or None, got {obj!r}.")

    @property
    def settings(self) -> Mapping[str, object]:
        """Settings that reproduce the detections of the weights' origin."""
        return self.value.settings

    def get_state_dict(self, progress: bool = True) -> dict[str, Tensor]:
        """Return the tensors by our names, downloaded if needed.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        return self.value.get_state_dict(progress)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        # By name: Python before 3.12 looks for an equal value, and a copy of `Weights` equals none.
        del protocol
        return getattr, (type(self), self.name)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"
