"""Build models from command-line arguments."""

from ssd_zoo.deploy.formats import is_exported
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.models.registry import get_model, get_model_weights
from ssd_zoo.prediction.opening import check_model, is_saved
from ssd_zoo.saved.pretrained import from_pretrained

__all__ = ["DEFAULT_MODEL", "build_model"]

DEFAULT_MODEL = "ssdlite300_mobilenet_v2"


def build_model(name: str, weights: str | None, **config: object) -> SSD:
    """Build a model by name, or load a saved one.

    Args:
        name: Name of a registered model, or path of a saved model.
        weights: Name of weights, path of a saved model, or `"scratch"`. None selects the model's `DEFAULT`, or the
            backbone's if the model has no weights.
        **config: Arguments of the builder.

    Raises:
        ValueError: As for `check_model`, or if the name is that of an exported file.
    """
    if is_exported(name):
        raise ValueError(f"{name} is an exported file, which only detects; give the model that it was exported from.")
    check_model(name, weights)
    if is_saved(name):
        config.pop("progress", None)
        return from_pretrained(name, **config)  # type: ignore[arg-type]
    if weights == "scratch":
        return get_model(name, weights=None, weights_backbone=None, **config)
    published = get_model_weights(name).__members__
    return get_model(name, weights=weights or published.get("DEFAULT"), **config)
