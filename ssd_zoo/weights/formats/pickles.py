"""Limits of files of `torch.save`, checked before they are unpickled.

PyTorch runs no code of such a file, but a few of its bytes can ask for much memory.
"""

import io
import pickletools
import zipfile
from pathlib import Path

__all__ = ["check_pickle"]

# A detector's file with the state of its optimiser has about 30 000 steps of 500 kB.
_LARGEST_PICKLE = 2**23
_MOST_STEPS = 2**20
# An early file is five pickles, then the tensors' values.
_MOST_PICKLES = 5


def check_pickle(file: Path) -> None:
    """Check what a file of `torch.save` asks for.

    Files that are not read at all pass; `torch.load` refuses them.

    Raises:
        ValueError: If it is compressed, lists bytes several times, or has a pickle that is too large.
    """
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            _scan(stream.read(_LARGEST_PICKLE), _MOST_PICKLES, file)
        return
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if total <= file.stat().st_size and all(entry.file_size <= _LARGEST_PICKLE for entry in pickles):
                contents = [archive.read(entry) for entry in pickles]
    # zipfile raises errors of many types, depending on the place of the damage.
    except Exception:
        return
    if total > file.stat().st_size:
        raise ValueError(
            f"{file} would unpack to {total} bytes: it is compressed, or lists bytes several times. torch.save does "
            "neither; unpack the archive, or save its tensors again."
        )
    if any(entry.file_size > _LARGEST_PICKLE for entry in pickles):
        raise ValueError(f"{file} holds a pickle of more than {_LARGEST_PICKLE} bytes. Save its state dict alone.")
    for content in contents:
        _scan(content, 1, file)


def _scan(content: bytes, pickles: int, file: Path) -> None:
    """Check the steps of pickles that lie one after another."""
    stream, steps = io.BytesIO(content), 0
    try:
        for _ in range(pickles):
            for _, argument, _ in pickletools.genops(stream):
                steps += 1
                if steps > _MOST_STEPS:
                    raise _LimitError(f"{file} holds more than {_MOST_STEPS} values. Save its state dict alone.")
                # Called with a number, it takes as many bytes.
                if isinstance(argument, str) and argument.endswith("bytearray"):
                    raise _LimitError(f"{file} holds a bytearray, which is not read. Save its state dict alone.")
    except _LimitError:
        raise
    # No pickle, or cut off: torch.load says so.
    except Exception:
        return


class _LimitError(ValueError):
    """Error of a file that asks for too much."""
