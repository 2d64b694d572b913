"""Weights entries: where they lie and what is known of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
import torchvision
from torch import Tensor

from ssd_zoo.weights.read import read_weights

__all__ = ["Weights", "WeightsEnum", "detection_transforms"]


def detection_transforms() -> Callable[[Any], Tensor]:
    """Gives what turns an image (PIL, array or tensor) into the tensor `(C, H, W)`, 0 to 1, that a model takes."""
    from torchvision.transforms import v2

    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])


@dataclass(eq=False)
class Weights(torchvision.models.Weights):
    """One set of weights: where it lies, how to feed it, and what is known of it.

    Args:
        url: An address; `hf-hub:owner/name@revision` for `model.safetensors` of a repository on the Hugging Face Hub;
            `package:FILE` for a file that ships with ssd_zoo; or the path of a safetensors file. Empty for settings
            without tensors.
        transforms: Makes the preprocessing.
        meta: `categories`, `num_params`, `macs`, `licence`, `origin`, `recipe`, and `metrics`: per data set its
            figures, each with `source`, either `"published"` or `"measured"`.
        layout: Whose names the file's tensors have: a converter's name, or None for our own.
        settings: What the weights were trained and are used with where that is not the builder's own: keywords of
            `SSD`, `size` among them, and under `"default_boxes"` keywords of `DefaultBoxGenerator`.
        sha256: The file's hash, or its beginning; None where it is not known, or stands in the file's name.
        prefixes: What the names of the needed tensors begin with; of a file on the Hub only these are downloaded.
    """

    layout: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    prefixes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __str__(self) -> str:
        return self.url

    def get_state_dict(self, progress: bool = True) -> dict[str, Tensor]:
        """Reads the tensors under the names that the builder's model has; downloads them first where needed.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        return read_weights(self, progress)


Self = TypeVar("Self", bound="WeightsEnum")


class WeightsEnum(torchvision.models.WeightsEnum):
    """The weights that a builder offers; members are `Weights`. The enum itself stands for builders that have none."""

    @classmethod
    def verify(cls: type[Self], obj: Any) -> Self | None:
        """Finds a member by itself, its name, or its full name.

        `Weights` of a saved model pass for a member: they have what a builder needs of one.

        Raises:
            ValueError: If a name is unknown.
            TypeError: If it is something else.
        """
        if obj is None or type(obj) is cls or isinstance(obj, Weights):
            return cast("Self | None", obj)
        if isinstance(obj, str):
            name = obj.removeprefix(f"{cls.__name__}.")
            if name in cls.__members__:
                return cls.__members__[name]
            known = ", ".join(repr(member) for member in cls.__members__) or "none"
            raise ValueError(
                f"{cls.__name__} has no weights {obj!r}; it has {known}. There is no folder of that name either; "
                "other sources are a .safetensors file and 'hf-hub:owner/name'."
            )
        raise TypeError(f"Expected weights of {cls.__name__}, one of their names, or None, got {obj!r}.")

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a builder sets otherwise for these weights, so that they detect what they detect at their origin."""
        return self.value.settings

    def get_state_dict(self, progress: bool = True) -> dict[str, Tensor]:
        """Reads the tensors under the names that the builder's model has; downloads them first where needed.

        Args:
            progress: Whether to show a progress bar on stderr.
        """
        return self.value.get_state_dict(progress)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"
