"""Greedy non-maximum suppression within classes."""

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.ops import nms

from ssd_zoo.layers.plain import is_watched

__all__ = ["suppress_batch", "suppress_by_kernel", "suppress_in_rounds"]

# Coordinates are clamped to this number of pixels, so that groups can be shifted apart.
_FAR = 1e6
# Most boxes that the kernel compares at once; it needs one bit of memory per pair.
_MOST_BOXES = 2**15
# Candidates that are compared at once, so that their pairs fit into the caches of a CPU.
_BLOCK = 128
# The same in a graph, where each block adds two hundred operators.
_BLOCK_OF_GRAPH = 608
# Candidates whose zeros and ones are the bits of one integer in a graph. It divides the size of a block.
_BITS = 16


def _finite(boxes: Tensor) -> Tensor:
    """Replace boxes that are not finite by points, which overlap no other box."""
    return boxes.where(boxes.isfinite().all(-1, keepdim=True), 0).clamp(-_FAR, _FAR)


def suppress_by_kernel(boxes: Tensor, groups: Tensor, nms_thresh: float) -> Tensor:
    """Apply greedy NMS within groups by torchvision's kernel.

    Args:
        boxes: `(n, 4)`, xyxy, in descending order of score within each group.
        groups: `(n,)`, such as classes.
        nms_thresh: Largest IoU of two kept boxes of a group.

    Returns:
        Indices of the kept boxes, int64, ascending. Boxes that are not finite suppress nothing.
    """
    if len(boxes) == 0:
        return groups
    # Not every device has float64, which is used below.
    given = boxes.device
    where = given if boxes.is_cuda else torch.device("cpu")
    boxes = _finite(boxes.detach().to(where)).double()
    groups = groups.to(where)
    order = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=where)
    if len(boxes) > _MOST_BOXES:
        indices = [(groups == group).nonzero().squeeze(1) for group in groups.unique().tolist()]
        kept = [index[nms(boxes[index], order[index], nms_thresh)] for index in indices]
        return torch.cat(kept).sort().values.to(given)
    # One call serves all groups, shifted apart so that they do not overlap. float64 keeps the shift from rounding.
    apart = boxes.max() - boxes.min() + 1
    return nms(boxes + (groups * apart).unsqueeze(1), order, nms_thresh).to(given)


@torch.library.custom_op("ssd_zoo::suppress_batch", mutates_args=())
def suppress_batch(boxes: Tensor, labels: Tensor, eligible: Tensor, num_classes: int, nms_thresh: float) -> Tensor:  # noqa: ARG001
    """Apply greedy NMS within classes, as one operator for exporters.

    Args:
        boxes: `(N, K, 4)`, xyxy, in descending order of score.
        labels: `(N, K)`.
        eligible: `(N, K)`, False for candidates that do not take part.
        num_classes: Number of classes, background included; a runtime's own operator needs it.
        nms_thresh: Largest IoU of two kept boxes of a class.

    Returns:
        `(N, K)`, True for kept candidates.
    """
    images = torch.arange(len(boxes), device=boxes.device).unsqueeze(1)
    # Ineligible boxes lose their area, so that they suppress nothing.
    boxes = boxes.masked_fill(~eligible.unsqueeze(-1), 0)
    index = suppress_by_kernel(boxes.flatten(0, 1), (labels * len(boxes) + images).flatten(), nms_thresh)
    return torch.zeros_like(eligible).flatten().index_fill(0, index, True).view_as(eligible) & eligible


@suppress_batch.register_fake
def _(boxes: Tensor, labels: Tensor, eligible: Tensor, num_classes: int, nms_thresh: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(eligible)


def suppress_in_rounds(
    boxes: Tensor, labels: Tensor, eligible: Tensor, nms_thresh: float, *, most: int, rounds: int
) -> tuple[Tensor, Tensor]:
    """Apply greedy NMS to one block of candidates after another, in rounds.

    In each round a candidate of the block stays unless one that stayed in the previous round suppresses it. The first
    candidate is correct from the start, and each round corrects at least one more, usually nearly all. If a round
    changes nothing, the result is that of greedy NMS.

    Args:
        boxes: `(N, K, 4)`, xyxy, in descending order of score.
        labels: `(N, K)`, int64.
        eligible: `(N, K)`, False for candidates that do not take part.
        nms_thresh: Largest IoU of two kept boxes of a class.
        most: Number of kept candidates that are looked for. Later ones may be kept without need.
        rounds: Number of rounds for each block.

    Returns:
        `(N, K)`, True for kept candidates, and `(N,)`, whether the last round of each block changed nothing.
    """
    # A positive sum of zeros and ones never rounds to zero, even in float16.
    dtype = torch.float16 if boxes.is_cuda else boxes.dtype
    # A graph has no branches, and a GPU would have to wait. Elsewhere, steps that can change nothing are left out.
    branches = not (boxes.is_cuda or torch.compiler.is_compiling() or is_watched())
    size = _BLOCK if branches else labels.shape[1] if boxes.is_cuda else _BLOCK_OF_GRAPH
    # Compiled for a CPU, products of matrices of zeros and ones take many times as long as their bits. Other runtimes,
    # which an exported graph is for, may lack operators on bits.
    packed = torch.compiler.is_compiling() and not (is_watched() or boxes.is_cuda)
    facts, count = _facts(boxes, labels), labels.shape[1]
    if packed:
        facts, eligible = (pad(values, (0, -count % _BITS)) for values in (facts, eligible))
        # Powers once for all words: where they are computed anew, torch's compiler makes slow loops.
        bits = (2 ** torch.arange(_BITS, device=boxes.device)).to(boxes.dtype).unsqueeze(1)
    weights = torch.arange(facts.shape[2], 0, -1, device=boxes.device)
    kept, settled = eligible[:, :0].to(dtype), torch.ones_like(eligible[:, 0])
    for start in range(0, facts.shape[2], size):
        block, stay = facts[..., start : start + size], eligible[:, start : start + size, None].to(dtype)
        if start:
            # Only the first of all kept candidates matter; those that are not kept have no weight.
            weight, index = (kept * weights[:start]).topk(min(most, start), sorted=False)
            first = facts.gather(2, index.unsqueeze(1).expand(-1, facts.shape[1], -1))
            stay = (stay - _overlaps(block, first, nms_thresh).to(dtype) @ weight.unsqueeze(-1)).relu()
        # Of each candidate, the later ones that it suppresses.
        overlaps = _overlaps(block, block, nms_thresh).triu(1).to(dtype)
        words = _words(overlaps, bits) if packed else None
        after = before = stay
        for _ in range(rounds):
            before = after
            if words is None:
                suppressed = overlaps.mT @ before
            else:
                suppressed = (words & _words(before, bits)).sum(1, dtype=torch.int32).unsqueeze(-1)
            after = (stay - suppressed).relu()
            if branches and torch.equal(after, before):
                break
        kept = torch.cat([kept, after.squeeze(-1)], dim=1)
        settled = settled & (after == before).flatten(1).all(1)
        if branches and (kept.sum(1) >= most).all():
            break
    rest = torch.zeros_like(labels[:, kept.shape[1] :], dtype=dtype)
    return torch.cat([kept[:, :count], rest], dim=1) > 0, settled


def _words(rows: Tensor, bits: Tensor) -> Tensor:
    """Pack zeros and ones `(N, R, C)` as bits of integers, `(N, R / _BITS, C)`."""
    return (rows.unflatten(1, (-1, _BITS)) * bits).sum(2).to(torch.int32)


def _facts(boxes: Tensor, labels: Tensor) -> Tensor:
    """Stack what `_overlaps` compares: xyxy, areas and labels, `(N, 6, K)`."""
    x1, y1, x2, y2 = _finite(boxes.detach()).unbind(-1)
    # Labels are doubled: subtracted from an IoU, the difference of two classes makes it less than any threshold.
    return torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1), 2 * labels.to(x1)], dim=1)


def _overlaps(rows: Tensor, columns: Tensor, nms_thresh: float) -> Tensor:
    """Return which candidates have the same class and overlap by more than the threshold.

    On a CPU, comparisons take five times as long as sums and products, so there are none.

    Args:
        rows: `(N, 6, R)`, from `_facts`.
        columns: `(N, 6, C)`, from `_facts`.
        nms_thresh: Largest IoU of two kept boxes of a class.

    Returns:
        `(N, R, C)`, zeros and ones.
    """
    rows, columns = rows.unsqueeze(3), columns.unsqueeze(2)
    sides = (torch.min(rows[:, 2:4], columns[:, 2:4]) - torch.max(rows[:, :2], columns[:, :2])).clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    union = rows[:, 4] + columns[:, 4] - intersection
    iou = intersection / union.clamp(min=torch.finfo(torch.float32).tiny)
    return (iou - (rows[:, 5] - columns[:, 5]).abs() - nms_thresh).sign().relu()
