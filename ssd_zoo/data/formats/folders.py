"""Words in names of folders that mean a split or a kind, as in `train_images`.

Splits are `train`, `val` and `test`. Kinds are words for images and for labels.
"""

import re
from collections.abc import Sequence

__all__ = ["IMAGE_FOLDERS", "LABEL_FOLDERS", "are_apart", "bare", "canonical_split", "find_split", "holds"]

IMAGE_FOLDERS = {"images", "image", "img", "imgs", "jpegimages", "photos", "pictures", "image_2", "data"}
LABEL_FOLDERS = {"labels", "label", "annotations", "annotation", "annots", "annot", "anns", "ann", "xml", "xmls",
                 "label_2", "wider_face_split"}  # fmt: skip
_KINDS = IMAGE_FOLDERS | LABEL_FOLDERS
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Words that may stand beside a split's, as in `instances_train2017` or `wider_face_val_bbx_gt`.
_NEUTRAL = _KINDS | {"instances", "coco", "set", "split", "obj", "wider", "face", "bbx", "bbox", "gt", "person",
                     "keypoints", "darknet", "jpeg", "png"}  # fmt: skip
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case.

    `trainImages` and `train_images` have the same words.
    """
    return [word.lower() for word in _WORD.findall(name)]


def canonical_split(name: str) -> str | None:
    """Return `train`, `val` or `test` for a split's or folder's name.

    For example `val` for `valid`, and `train` for `train2017`, `train_images` and `labels_train`. None for other names.
    """
    words = [word for word in _words(name) if word not in _NEUTRAL]
    return _SPLITS.get(words[0]) if len(words) == 1 else None


def find_split(names: Sequence[str], wanted: str) -> str | None:
    """Find a split by its name or a synonym; see `canonical_split`.

    Returns:
        The name among `names`; None if none fits, or several synonyms do.
    """
    if wanted in names:
        return wanted
    alike = [name for name in names if canonical_split(name) == (canonical_split(wanted) or wanted)]
    return alike[0] if len(alike) == 1 else None


def holds(name: str, kinds: set[str]) -> bool:
    """Return whether a folder's name, in any letter case, has one of the words in `kinds`."""
    return name.lower() in kinds or not kinds.isdisjoint(_words(name))


def bare(folder: tuple[str, ...]) -> tuple[str, ...]:
    """Return folders' names without words of kinds: `train_images` becomes `train`."""
    return tuple(_without_kind(part) if holds(part, _KINDS) else part for part in folder if part.lower() not in _KINDS)


def _without_kind(name: str) -> str:
    kept = (part for part in re.findall(rf"{_WORD.pattern}|[^A-Za-z\s_.-]+", name) if part.lower() not in _KINDS)
    return "_".join(kept).lower()


def are_apart(folder: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether two paths lie in folders of different splits; False if one has no such folder."""
    one, two = ({canonical_split(part) for part in parts} - {None} for parts in (folder, other))
    return bool(one and two) and one.isdisjoint(two)
