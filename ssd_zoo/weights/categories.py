"""Class names of COCO and Pascal VOC, and matching of class names.

Data sets write one class in several ways: COCO says "airplane" and "dining table", Pascal VOC "aeroplane" and
"diningtable". Evaluation and fine-tuning compare names by `match_classes` alone.
"""

import re
import reprlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence

import torchvision

__all__ = [
    "COCO80_CATEGORIES",
    "COCO_CATEGORIES",
    "VOC_CATEGORIES",
    "check_names",
    "find_twice",
    "is_background",
    "is_one_line",
    "list_names",
    "match_classes",
    "object_classes",
    "plain_name",
]

COCO_CATEGORIES: list[str] = torchvision.models.detection.SSD300_VGG16_Weights.COCO_V1.meta["categories"]
"""Names of COCO's 91 category ids, background first; ten ids are unused ("N/A")."""

COCO80_CATEGORIES: list[str] = [name for name in COCO_CATEGORIES if name != "N/A"]
"""The background and the 80 names that COCO uses, in the order of their ids."""

VOC_CATEGORIES: list[str] = torchvision.models.segmentation.FCN_ResNet50_Weights.DEFAULT.meta["categories"]
"""The background and the 20 names of Pascal VOC, in VOC's own order."""

# Label maps of TensorFlow Lite begin with it.
_UNNAMED = "???"
# Names of Pascal VOC that differ from COCO's, and two common spellings.
_SYNONYMS = {
    "aeroplane": "airplane",
    "cellphone": "cell phone",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tv monitor": "tv",
    "tvmonitor": "tv",
}

# Characters of a name in a list; paths are names, too.
_LONGEST_SHOWN = 200


def match_classes(categories: Sequence[str], known: Sequence[str]) -> dict[int, int]:
    """Map labels to the labels of the same class in another list.

    Names are compared three times: as written; without case, spaces, hyphens and underscores; and with the synonyms of
    COCO and Pascal VOC. An earlier match holds. A name that fits several others stays unmatched, so two categories of
    one list are never merged. "N/A", COCO's name of unused ids, matches nothing.

    Args:
        categories: Names of classes, background first.
        known: The names in the other list, background first.

    Returns:
        Labels of `known` by labels of `categories`, without the background's.

    Example:
        >>> match_classes(["background", "Sofa", "robot", "dining_table"], ["background", "dining table", "couch"])
        {1: 2, 3: 1}
    """
    matched: dict[int, int] = {}
    for spelling in (str, _fold, _canonical):
        left, right = _by_name(categories, spelling, matched), _by_name(known, spelling, matched.values())
        for name in left.keys() & right.keys():
            if len(left[name]) == len(right[name]) == 1:
                matched[left[name][0]] = right[name][0]
    return dict(sorted(matched.items()))


def check_names(categories: object) -> list[str]:
    """Check the names of classes; return them as a list.

    "???" as the background's name becomes "background".

    The background is class 0, so its name comes first. That is required rather than assumed: without it the first class
    would be taken for the background.

    Args:
        categories: The user's names.

    Returns:
        The names; TensorFlow Lite's "???" in the first place becomes "background".

    Raises:
        TypeError: If it is not a list or tuple of texts.
        ValueError: If a name is empty, has line breaks, or occurs twice (see `find_twice`; "N/A" may), the first is not
            a background's, another is, or there is no other.
    """
    if not isinstance(categories, Sequence) or isinstance(categories, (str, bytes)):
        raise TypeError(f"categories must be a list of names, background first, got {reprlib.repr(categories)}.")
    names = list(categories)
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"categories must be names; number {i} is {reprlib.repr(name)}.")
        if not name.strip():
            raise ValueError(f"categories must be names; number {i} is empty.")
        if not is_one_line(name):
            raise ValueError(
                f"categories must be names without line breaks or control codes; number {i} is {name!r:.200}."
            )
    # COCO's unused ids share this name.
    twice = find_twice([name for name in names if name != "N/A"])
    if twice:
        raise ValueError(f"categories must be different names, background first; {list_names(twice)} occurs twice.")
    others = list(filter(is_background, names[1:]))
    if others and is_background(names[0]):
        raise ValueError(
            f"categories has two names of the background, {names[0]!r} and {others[0]!r}; remove or rename the second."
        )
    if names and not is_background(names[0]):
        mended = ["background", *(name for name in names if not is_background(name))]
        shown = ", ".join([*map(repr, mended[:5]), *(["…"] if len(mended) > 5 else [])])
        raise ValueError(
            f"The first of the categories is the background, got {names[0]!r}: write categories=[{shown}]."
        )
    if len(names) < 2:
        raise ValueError(f"categories must name the background and at least one class, got {names}.")
    return ["background" if names[0] == _UNNAMED else names[0], *names[1:]]


def find_twice(names: Sequence[str]) -> list[str]:
    """Return the names that occur twice.

    Names are compared by `plain_name`. Upper and lower case differ: "A" and "a" may be two signs of an alphabet.
    """
    counts = Counter(map(plain_name, names))
    return [name for name, count in counts.items() if count > 1]


def plain_name(name: str) -> str:
    """Return a name without outer spaces, with accents in one encoding (Unicode NFC)."""
    # macOS writes an accent as a character of its own.
    return unicodedata.normalize("NFC", name.strip())


def is_one_line(name: str) -> bool:
    """Return whether a name is free of line breaks and control codes.

    Pictures and terminals can't show these.
    """
    return not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name)


def is_background(name: str) -> bool:
    """Return whether a name means the background: "background", "__background__", "bg" or "???", in any letter case."""
    return name.strip(" _").casefold() in ("background", "bg", _UNNAMED)


def object_classes(categories: Sequence[str]) -> list[str]:
    """Return the classes of objects, without the first name (the background) and COCO's unused ids."""
    return [name for name in categories[1:] if name != "N/A"]


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Join the first `most` names with commas, and an ellipsis for others.

    Long names end in an ellipsis, too.
    """
    shown = [name if len(name) <= _LONGEST_SHOWN else f"{name[: _LONGEST_SHOWN - 1]}…" for name in names[:most]]
    return ", ".join([*shown, *(["…"] if len(names) > most else [])])


def _by_name(names: Sequence[str], spelling: Callable[[str], str], done: Collection[int]) -> dict[str, list[int]]:
    """Group labels whose names have the same spelling: labels by spelling.

    Args:
        names: Names of classes, background first. The background and "N/A" are left out.
        spelling: Maps a name to the spelling that is compared.
        done: Labels that are matched already, and left out.
    """
    labels = defaultdict(list)
    for label, name in enumerate(names):
        if label > 0 and label not in done and name.strip().casefold() != "n/a":
            labels[spelling(name)].append(label)
    return labels


def _fold(name: str) -> str:
    """Return a name in lower case, with a space for separators between words."""
    # Separators fold only between letters or digits: "-5" and "5" differ.
    return re.sub(r"(?<=[^\W_])(\s+|[-_]+)(?=[^\W_])", " ", plain_name(name.casefold()))


def _canonical(name: str) -> str:
    """Return a folded name, a synonym replaced by COCO's name."""
    folded = _fold(name)
    return _SYNONYMS.get(folded, folded)
