"""Limits of files of `torch.save`, checked before they are unpickled.

PyTorch runs no code of such a file, but a few of its bytes can ask for much memory.
"""

import io
import os
import pickletools
import zipfile
from typing import IO

__all__ = ["PickleError", "check_pickle"]

# A detector's file with the state of its optimiser has about 30 000 steps of 500 kB.
_LARGEST_PICKLE = 2**23
_MOST_STEPS = 2**20
# An early file is five pickles, then the tensors' values.
_MOST_PICKLES = 5


class PickleError(ValueError):
    """Error of a file that asks for too much memory."""


def check_pickle(stream: IO[bytes], file: object) -> None:
    """Check that a file of `torch.save` asks for little memory.

    Args:
        stream: The file.
        file: Its name in messages.

    Raises:
        PickleError: If it is compressed, lists bytes several times, or has a pickle that is too large.
        Exception: Of any type, from zipfile, if the archive is damaged.
    """
    # PyTorch recognises archives by their first bytes; zipfile also finds one at the end of a pickle.
    if stream.read(4) != b"PK\x03\x04":
        stream.seek(0)
        _scan(stream.read(_LARGEST_PICKLE), _MOST_PICKLES, file)
        return
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        total, size = sum(entry.file_size for entry in entries), stream.seek(0, os.SEEK_END)
        if total > size:
            raise PickleError(
                f"{file} would unpack to {total} bytes: it is compressed, or lists bytes several times. torch.save "
                "does neither; unpack the archive, or save its tensors again."
            )
        for entry in entries:
            # PyTorch's reader takes capitals too.
            if entry.filename.rpartition("/")[2].lower() == "data.pkl":
                if entry.file_size > _LARGEST_PICKLE:
                    raise PickleError(f"{file} has a pickle of {entry.file_size} bytes. Save its state dict alone.")
                # PyTorch writes 0 where it was told to compute none; without it, none is expected.
                if not entry.CRC:
                    del entry.CRC
                _scan(archive.read(entry), 1, file)


def _scan(content: bytes, pickles: int, file: object) -> None:
    """Check the instructions of pickles that lie one after another.

    What is not a pickle, or is cut off, passes: `torch.load` reports it.

    Args:
        content: The bytes.
        pickles: Number of pickles to check.
        file: Name of the file in messages.

    Raises:
        PickleError: If it asks for much memory, or holds a bytearray.
    """
    stream, steps = io.BytesIO(content), 0
    try:
        for _ in range(pickles):
            for _, argument, _ in pickletools.genops(stream):
                steps += 1
                if steps > _MOST_STEPS:
                    raise PickleError(f"{file} holds more than {_MOST_STEPS} values. Save its state dict alone.")
                # Called with a number, it takes as many bytes.
                if isinstance(argument, str) and argument.endswith("bytearray"):
                    raise PickleError(f"{file} holds a bytearray, which is not read. Save its state dict alone.")
    except PickleError:
        raise
    except ValueError:
        if len(content) == _LARGEST_PICKLE and not stream.read(1):
            raise PickleError(
                f"{file} has pickles of over {_LARGEST_PICKLE} bytes. Save its state dict alone."
            ) from None
        # No pickle, or cut off: torch.load says so.
