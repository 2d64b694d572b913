"""Adds files to the site that are not in docs: an exported detector, its sample photo, notebooks, all examples."""

import functools
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import ssd_zoo
from ssd_zoo.deploy import export

EXAMPLES = Path(__file__).parents[1] / "examples"


def on_files(files: Files, config: MkDocsConfig, **kwargs: Any) -> Files:
    copied = {"browser/coffee.jpg": EXAMPLES / "coffee.jpg"}
    copied |= {f"notebooks/{file.name}": file for file in EXAMPLES.glob("notebooks/*.ipynb")}
    for place, file in copied.items():
        files.append(File.generated(config, place, abs_src_path=str(file)))
    files.append(File.generated(config, "browser/detector.onnx", content=detector()))
    files.append(File.generated(config, "examples.zip", content=zipped()))
    return files


def zipped() -> bytes:
    """Zips the examples, as they lie in a clone, for readers who have installed the package alone."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(EXAMPLES.rglob("*.*")):
            # fuzz.py needs the tests, which are not in the archive.
            if "__pycache__" not in file.parts and file.name != "fuzz.py":
                archive.write(file, file.relative_to(EXAMPLES.parent))
    return content.getvalue()


@functools.cache  # `mkdocs serve` builds again and again.
def detector() -> bytes:
    """Exports the detector; lower scores are not worth the time of NMS."""
    model = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.05).eval()
    with tempfile.TemporaryDirectory() as folder:
        return export(model, Path(folder) / "detector.onnx", format="onnx").read_bytes()
