"""Draw distributions and curves as SVG, which prints sharp and needs no library to be shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles

WIDTH, ROW, LEFT, RIGHT, FOOT = 460, 46, 120, 14, 40
BINS = 32
BLUE, DARK = "#0072b2", "#222"
DECADE = 8.0
"""Ratio of the highest to the lowest value from which a scale is logarithmic."""


def draw_distributions(groups: Mapping[str, NDArray[Any]], title: str) -> str:
    """Draw a histogram per volume above a common axis, with median and quartiles.

    Parameters
    ----------
    groups : by volume, the values of its objects; those that are not finite are left out
    """
    known = {name: values[np.isfinite(values)] for name, values in groups.items()}
    every = np.concatenate(list(known.values()))
    if not every.size:
        return ""
    logarithmic = bool(every.min() > 0 and every.max() / every.min() > DECADE)
    low, high = _range(every, logarithmic)
    height = ROW * len(known) + FOOT
    words = "; ".join(f"{name}: {describe_values(values)}" for name, values in known.items())
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" class="chart">',
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc>",
    ]
    edges = np.linspace(low, high, BINS + 1)
    for row, (name, values) in enumerate(known.items()):
        parts += _draw_row(name, np.log10(values) if logarithmic else values, edges, row)
    parts += _axis(low, high, logarithmic, height - FOOT, title)
    return "".join([*parts, "</svg>"])


def describe_values(values: NDArray[Any]) -> str:
    """Put a distribution in words.

    Examples
    --------
    >>> describe_values(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    'median 3, quartiles 2 to 4, 5 objects'
    """
    if not len(values):
        return "no objects"
    first, middle, last = np.percentile(values, (25, 50, 75))
    return f"median {middle:.3g}, quartiles {first:.3g} to {last:.3g}, {len(values)} objects"


def draw_curve(
    x: Doubles, y: Doubles, mark: tuple[float, float], names: tuple[str, str], words: str
) -> str:
    """Draw one score over another in a square from 0 to 1, with one point marked."""
    side, left, foot = 220, 46, 40
    known = np.isfinite(x) & np.isfinite(y)
    points = " ".join(
        f"{left + a * side:.1f},{8 + (1 - b) * side:.1f}"
        for a, b in zip(x[known], y[known], strict=True)
    )
    lines = [
        f'<line x1="{left + t * side}" x2="{left + t * side}" y1="8" y2="{8 + side}"/>'
        f'<line y1="{8 + t * side}" y2="{8 + t * side}" x1="{left}" x2="{left + side}"/>'
        for t in (0, 0.5, 1)
    ]
    texts = [
        f'<text x="{left + t * side}" y="{8 + side + 14}" text-anchor="middle">{t:g}</text>'
        f'<text x="{left - 4}" y="{12 + (1 - t) * side}" text-anchor="end">{t:g}</text>'
        for t in (0, 0.5, 1)
    ]
    a, b = mark
    return (
        f'<svg viewBox="0 0 {left + side + 14} {8 + side + foot}" role="img" class="chart square">'
        f"<title>{names[1]} over {names[0]} of voxels</title><desc>{escape(words)}</desc>"
        f'<g stroke="#ccc">{"".join(lines)}</g>{"".join(texts)}'
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/>'
        f'<circle cx="{left + a * side:.1f}" cy="{8 + (1 - b) * side:.1f}" r="5" fill="{DARK}"/>'
        f'<text x="{left + side / 2}" y="{side + foot + 2}" text-anchor="middle">{names[0]}</text>'
        f'<text transform="translate(14 {8 + side / 2}) rotate(-90)" text-anchor="middle">'
        f"{names[1]}</text></svg>"
    )


def _range(values: NDArray[Any], logarithmic: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        low, high = math.log10(low), math.log10(high)
    margin = (high - low) * 0.03 or max(abs(low) * 0.1, 0.1)
    return low - margin, high + margin


def _place(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _draw_row(name: str, values: NDArray[Any], edges: Doubles, row: int) -> list[str]:
    low, high, floor = edges[0], edges[-1], ROW * (row + 1) - 4
    counts, _ = np.histogram(values, edges)
    scale = (ROW - 12) / max(counts.max(), 1)
    label = name if len(name) <= 18 else f"{name[:7]}…{name[-10:]}"  # names often differ last
    parts = [
        f'<text x="{LEFT - 8}" y="{floor - 14}" text-anchor="end">{escape(label)}</text>',
        f'<text x="{LEFT - 8}" y="{floor - 1}" text-anchor="end" class="faint">',
        f"{len(values)}</text>",
    ]
    width = (WIDTH - LEFT - RIGHT) / BINS
    parts += [
        f'<rect x="{LEFT + k * width:.1f}" y="{floor - n * scale:.1f}" width="{width - 1:.1f}" '
        f'height="{n * scale:.1f}" fill="{BLUE}" opacity="0.75"/>'
        for k, n in enumerate(counts.tolist())
        if n
    ]
    if len(values):
        first, middle, last = (_place(q, low, high) for q in np.percentile(values, (25, 50, 75)))
        parts.append(
            f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{floor + 2}" y2="{floor + 2}" '
            f'stroke="{DARK}" stroke-width="3"/>'
            f'<circle cx="{middle:.1f}" cy="{floor + 2}" r="4" fill="#fff" stroke="{DARK}" '
            f'stroke-width="2"/>'
        )
    return parts


def _axis(low: float, high: float, logarithmic: bool, top: float, title: str) -> list[str]:
    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top + 4}" y2="{top + 4}" stroke="{DARK}"/>'
    ]
    for value in find_ticks(low, high, logarithmic):
        x = _place(math.log10(value) if logarithmic else value, low, high)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + 4}" y2="{top + 8}" stroke="{DARK}"/>'
            f'<text x="{x:.1f}" y="{top + 19}" text-anchor="middle">{value:.4g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        *parts,
        f'<text x="{middle}" y="{top + 35}" text-anchor="middle">{escape(title)}</text>',
    ]


def find_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Choose round numbers along an axis, of which the ends are logarithms if it is logarithmic.

    Examples
    --------
    >>> find_ticks(0.0, 1.0, False), find_ticks(-2.0, 0.5, True)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.01, 0.1, 1.0])
    """
    if logarithmic:
        leads: Sequence[int] = (1,) if high - low > 1.5 else (1, 2, 5)
        decades = range(math.floor(low), math.ceil(high) + 1)
        found = [lead * 10.0**k for k in decades for lead in leads]
        return [value for value in found if low <= math.log10(value) <= high]
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next((s for s in (1, 2, 5) if (high - low) / (s * step) <= 6), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]
