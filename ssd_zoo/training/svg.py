"""Charts of lines as SVG, for pages without scripts."""

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["line_chart", "ticks"]

_COLOURS = (
    "#2563af",
    "#d1495b",
    "#2a9d6f",
    "#e08e1b",
    "#7b5cb8",
    "#149aa8",
    "#b5578c",
    "#7a8a22",
    "#5c6b7a",
    "#333",
)
_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 470, 10, 244


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], *, top: float | None = None) -> str:
    """Draw lines over a common axis, and their names below; return SVG and HTML.

    Args:
        lines: Points (x, y) by name, in the order of x; those that are not finite are left out.
        top: Upper end of the axis of y; by default that of the points. The axis begins at 0.
    """
    points = [point for line in lines.values() for point in line if all(map(math.isfinite, point))]
    whole = all(x == int(x) for x, _ in points)
    low, high = min((x for x, _ in points), default=0.0), max((x for x, _ in points), default=1.0)
    xs = ticks(low, high, least=1.0 if whole else 0.0)
    ys = ticks(0.0, top or max((y for _, y in points), default=1.0))
    x_scale, y_scale = (_RIGHT - _LEFT) / (xs[-1] - xs[0]), (_BOTTOM - _TOP) / (ys[-1] - ys[0])

    def place(x: float, y: float) -> str:
        return f"{_LEFT + (x - xs[0]) * x_scale:.1f},{_BOTTOM - (min(y, ys[-1]) - ys[0]) * y_scale:.1f}"

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12" fill="#5a6372" role="img">']
    for y in ys:
        height = place(xs[0], y).partition(",")[2]
        parts.append(f'<path d="M{_LEFT} {height}H{_RIGHT}" stroke="#e1e4ea"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height}" dy="4" text-anchor="end">{y:g}</text>')
    for x in xs:
        parts.append(f'<text x="{place(x, 0).partition(",")[0]}" y="{_BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    legend = []
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(*point) for point in line if all(map(math.isfinite, point)))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(line) < 30:
            parts += [f'<circle cx="{p.partition(",")[0]}" cy="{p.partition(",")[2]}" r="2.5" fill="{colour}"/>'
                      for p in path.split()]  # fmt: skip
        legend.append(f'<li><i style="background: {colour}"></i>{escape(name)}</li>')
    return f'{"".join(parts)}</svg><ul class="legend">{"".join(legend)}</ul>'


def ticks(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """Return two or more round numbers that span `low` to `high`.

    Their steps are equal: 1, 2 or 5 times a power of ten.

    Args:
        low: The least number to cover.
        high: The greatest number to cover.
        least: The smallest step.

    Example:
        >>> from ssd_zoo.training.svg import ticks
        >>> ticks(0, 1), ticks(1, 25), ticks(0, 7.3)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 5.0, 10.0, 15.0, 20.0, 25.0], [0.0, 2.0, 4.0, 6.0, 8.0])
    """
    span = high - low if high > low else 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = max(least, next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 5.0001))
    first, last = math.floor(low / step + 1e-9), math.ceil(max(high, low) / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
