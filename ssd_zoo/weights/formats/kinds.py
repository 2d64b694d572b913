"""Messages about files that are not readable checkpoints.

PyTorch's messages are replaced: they advise to unpickle such files anyway, or to report an issue to PyTorch.
"""

import re
import zipfile
from pathlib import Path

__all__ = ["explain_refusal", "name_other_kind"]

_HEAD = 512
_OTHER_KINDS = [
    (rb"\Z", "is empty"),
    (rb"version https://git-lfs", "is a Git LFS pointer, not the file that it stands for: git lfs pull fetches that"),
    (rb"(?s)\xff\xd8\xff|\x89PNG|GIF8|RIFF.{4}WEBP", "is an image, not a checkpoint"),
    # Version 1 of SavedModel; ONNX has begun at version 3.
    (rb"\x08\x01\x12", "is TensorFlow's SavedModel: export that as a frozen graph, .tflite or TensorFlow.js"),
    (rb"\x08[\x02-\x1f]\x12", "is an ONNX model, which can't be read back: convert the checkpoint that it was made of"),
    (rb"\x89HDF", "is an HDF5 file of Keras, which is not read: export it as a frozen graph, .tflite or TensorFlow.js"),
    (rb"(?i)\s*<(!doctype|html|head|body|\?xml)", "is a web page, not a checkpoint: its download went wrong"),
    (rb"\x1f\x8b", "is compressed by gzip: unpack it first"),
    (
        rb"(?s).{257}ustar",
        "is a tar archive: unpack it first; if an early PyTorch wrote it, save its state dict by torch.save again",
    ),
    (rb"[\t\n\r -~]{16,}\Z", "is a text file, not a checkpoint"),
]
_DAMAGED = (
    "is damaged, or not what torch.save writes; .safetensors, .pb, .tflite and TensorFlow.js's model.json can be "
    "read, too"
)


def name_other_kind(file: Path) -> str | None:
    """Name the kind of a file that is not a checkpoint.

    Returns:
        The rest of a sentence that begins with the file's name; None if the file may be a checkpoint.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    return next((told for pattern, told in _OTHER_KINDS if re.match(pattern, head)), None)


def explain_refusal(file: Path, error: Exception) -> str:
    """Explain why `torch.load` refused a file.

    Args:
        file: The file.
        error: The error of `torch.load`.

    Returns:
        The rest of a sentence that begins with the file's name.
    """
    needed = re.search(r"GLOBAL (\S{1,200})", str(error))
    if needed is not None:
        return (
            f"holds more than tensors and plain values, {needed[1]!r} among it. To unpickle that could run any "
            "code, so the file is not read. If you trust it, save its tensors alone: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE), with 'model' where they lie "
            "there; of a whole model .state_dict()"
        )
    with file.open("rb") as stream:
        head = stream.read(4)
    if head == b"PK\x03\x04":
        return _explain_zip(file)
    # torch.save uses pickle protocol 2; higher ones come from the pickle module.
    if re.match(rb"\x80[\x03-\x05]", head):
        return "is a pickle, but not one of torch.save: save its tensors by that or by safetensors"
    return _DAMAGED


def _explain_zip(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    # The type of the error depends on the place of the damage.
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return "is cut off or damaged: a zip archive without a readable directory at its end"
    if "constants.pkl" in names:
        return (
            "is a TorchScript archive, a program with its weights, which is not run. If you trust it, save its "
            "tensors alone: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    if "data.pkl" not in names:
        return "is a zip archive, but not one of torch.save: if a checkpoint lies in it, unpack it first"
    return _DAMAGED
