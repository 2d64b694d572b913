"""Reading of weights entries.

A checkpoint of another origin is downloaded, checked and converted once. The cache keeps the result, a safetensors file
with our names.
"""

import hashlib
import logging
import re
import tempfile
from collections.abc import Callable, Mapping
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
from torch import Tensor

from ssd_zoo.weights.converters import LAYOUTS
from ssd_zoo.weights.files import digest_file, home, read_safetensors, write_safetensors
from ssd_zoo.weights.formats.checkpoint import check_finite, read_checkpoint
from ssd_zoo.weights.formats.safetensors_file import pack
from ssd_zoo.weights.hub import fetch_model, fetch_tensors

if TYPE_CHECKING:
    from ssd_zoo.weights.entries import Weights

__all__ = ["read_weights"]

# Raise it with every change of a converter: cached conversions are then made again.
_CONVERSION = "1"
_log = logging.getLogger("ssd_zoo")


def read_weights(weights: "Weights", progress: bool = True) -> dict[str, Tensor]:
    """Read a weights entry's tensors from package, file, Hub or web.

    Args:
        weights: The entry.
        progress: Whether to show a progress bar on stderr.

    Returns:
        Tensors by our names, in float32 where they are stored in half precision.

    Raises:
        ConnectionError: If the file can't be downloaded; the message names the path for a copy by hand.
        FileNotFoundError: If there is no such file, repository or revision.
        OSError: If `SSD_ZOO_HOME` can't be written.
        PermissionError: If the Hub asks for a token.
        ValueError: If the file is damaged, has another hash than the entry's, does not fit the entry's layout, or holds
            a number that is not finite.
    """
    scheme, _, rest = weights.url.partition(":")
    if scheme in ("http", "https", "file"):
        return _read_kept(lambda: _converted(weights, progress))
    if scheme == "package":
        with resources.as_file(resources.files("ssd_zoo.weights") / "packaged" / rest) as path:
            _check_hash(path, weights)
            state = read_safetensors(path)
    elif scheme == "hf-hub" and weights.prefixes:
        state = _read_kept(lambda: fetch_tensors(rest, weights.prefixes, progress=progress))
    elif scheme == "hf-hub":
        path = fetch_model(rest, ("model.safetensors",)) / "model.safetensors"
        try:
            _check_hash(path, weights)
        except ValueError:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise
        state = read_safetensors(path)
    else:
        state = read_safetensors(Path(weights.url), digest=weights.digest)
    return _convert(state, weights)


def _read_kept(fetch: Callable[[], Path]) -> dict[str, Tensor]:
    """Read a file of `SSD_ZOO_HOME`; if it is damaged, fetch it once more."""
    path = fetch()
    try:
        return read_safetensors(path)
    except ValueError as error:
        _log.warning("%s It is made again.", error)
        path.unlink(missing_ok=True)
        return read_safetensors(fetch())


def _convert(state: Mapping[str, Tensor], weights: "Weights") -> dict[str, Tensor]:
    return dict(state) if weights.layout is None else LAYOUTS[weights.layout].convert(state)


def _converted(weights: "Weights", progress: bool) -> Path:
    """Return the file of another project's weights, converted to our names.

    It is downloaded and converted if `SSD_ZOO_HOME` does not have it yet.
    """
    stem = weights.url.rpartition("/")[2].rpartition(".")[0]
    key = hashlib.sha256(f"{_CONVERSION} {weights.layout} {weights.url}".encode()).hexdigest()[:8]
    kept = home() / f"{stem}-{key}.safetensors"
    if not kept.exists():
        by_hand = _checkpoints() / weights.url.rpartition("/")[2]
        with tempfile.TemporaryDirectory(dir=_made(home())) as temporary:
            path = by_hand if by_hand.is_file() else _download(weights.url, Path(temporary), progress)
            _check_hash(path, weights)
            state = _convert(read_checkpoint(path), weights)
        check_finite(state)
        write_safetensors(kept, pack(state), {"origin": weights.url, "licence": str(weights.meta.get("licence"))})
    return kept


def _checkpoints() -> Path:
    """Return torch.hub's download folder, also used for copies by hand."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(url: str, folder: Path, progress: bool) -> Path:
    path = folder / url.rpartition("/")[2]
    try:
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = getattr(error, "reason", None) or repr(error)
        raise ConnectionError(
            f"{url} can't be downloaded: {reason}. Without a network put the file at "
            f"{_checkpoints() / path.name}, or build the model with weights=None, weights_backbone=None."
        ) from error
    return path


def _check_hash(path: Path, weights: "Weights") -> None:
    """Raise ValueError if a download has another hash than its entry or its name says.

    Without either it passes.
    """
    in_name = re.search(r"-([0-9a-f]{8,64})\.\w+$", weights.url)
    expected = weights.sha256 or (in_name.group(1) if in_name else "")
    if not expected:
        return
    found = digest_file(path)
    if not found.startswith(expected):
        raise ValueError(
            f"{weights.url} is not the file that it should be: the SHA-256 of {path} begins with "
            f"{found[: len(expected)]}, not {expected}. What was downloaded is not kept: try again. If you put the "
            "file there, take the right one."
        )
