"""Facts about a model on which its results depend.

Results of different facts are not mixed.
"""

import json
from pathlib import Path

from ssd_zoo.deploy.formats import FORMATS, is_exported
from ssd_zoo.deploy.load import ExportedDetector
from ssd_zoo.detector.ssd import SSD
from ssd_zoo.version import __version__
from ssd_zoo.weights.files import digest_file
from ssd_zoo.weights.formats.safetensors_file import pack
from ssd_zoo.weights.saved_models import CONFIG, MODEL

__all__ = ["model_facts", "model_files"]

# An exported file holds these itself, so its digest stands for them.
_SETTINGS = ("size", "categories", "antialias", "score_function", "nms_thresh", "detections_per_img", "topk_candidates",
             "clip_before_nms")  # fmt: skip


def model_files(name: str) -> list[Path]:
    """List an exported or saved model's files that exist; none for other models."""
    path = Path(name)
    if is_exported(name):
        # OpenVINO keeps its weights beside.
        files = [path, path.with_suffix(".bin")] if name.endswith(FORMATS["openvino"].suffix) else [path]
    else:
        folder = path.parent if path.name == MODEL else path
        files = [folder / CONFIG, folder / MODEL]
    return [file for file in files if file.exists()]


def model_facts(model: SSD | ExportedDetector, name: str) -> dict[str, object]:
    """Return the facts about a model on which its results depend.

    Args:
        model: The model, with the settings it detects with.
        name: What `open_detector` opened.

    Returns:
        As JSON can hold it: version of ssd_zoo, name, digest of the tensors or files, and settings.
    """
    facts: dict[str, object] = {"ssd_zoo": __version__, "model": name, "score_thresh": model.score_thresh}
    if is_exported(name):
        facts["weights"] = " ".join(map(digest_file, model_files(name)))
    else:
        facts["weights"] = pack({**dict(model.named_buffers()), **model.state_dict()}).digest
        facts |= {key: getattr(model, key) for key in _SETTINGS}
    facts["tile"] = str(model.tile and (*model.tile, model.tile_overlap))
    # As JSON has them, without tuples.
    return dict(json.loads(json.dumps(facts)))
