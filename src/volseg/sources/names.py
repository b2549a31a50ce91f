"""Names of slices: their order, what they leave out, and whether they are of one sequence."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"((?<![^_=\s(,;/])-\d+(?:\.\d+)?|\d+)")
"""A number in a name; a hyphen is a sign only after what separates words, as in z_-6."""
SIGNED = re.compile(r"([+-]?\d+(?:\.\d+)?)")


DOTTED = re.compile(r"((?<![^_=\s(,;/])-\d+(?:\.\d+)*|\d+(?:\.\d+)*)")
"""Numbers in a name that dots join."""


def sort_names(paths: Iterable[Path]) -> list[Path]:
    """Sort names as people number them, with signs and decimals that their marks find.

    Examples
    --------
    >>> [p.name for p in sort_names(map(Path, ["z+1", "z+10", "z-2", "z-10", "z+0"]))]
    ['z-10', 'z-2', 'z+0', 'z+1', 'z+10']
    >>> [p.name for p in sort_names(map(Path, ["z1.5", "z2", "z1.05", "z1"]))]
    ['z1', 'z1.05', 'z1.5', 'z2']
    """
    found = list(paths)
    marked = mark_decimals(mark_signs([str(path) for path in found]))
    return [p for _, p in sorted(zip(marked, found, strict=True), key=lambda m: natural_key(m[0]))]


def mark_decimals(names: Sequence[str], *, decimals: bool | None = None) -> list[str]:
    """Fill up decimals of one place, so that they have as many digits, and whole numbers with them.

    Where a dot joins numbers of unlike length of which one ends in 0, as in 1.9 and 1.10, they are
    two numbers: whoever writes decimals of unlike length leaves the last zeros out.

    Parameters
    ----------
    decimals : what they are all the same; None decides as above

    Examples
    --------
    >>> mark_decimals(["z1.5", "z1.05", "z2"]), mark_decimals(["s1.9", "s1.10", "s2"])
    (['z1.50', 'z1.05', 'z2.00'], ['s1.9', 's1.10', 's2.0'])
    """
    split = [DOTTED.split(name) for name in names]
    places: dict[tuple[Any, ...], set[str]] = {}
    for parts in split:
        for k in range(1, len(parts), 2):
            places.setdefault((k, *parts[::2]), set()).add(parts[k])
    digits = {place: _count_digits(found, decimals) for place, found in places.items()}
    for parts in split:
        words = tuple(parts[::2])
        for k in range(1, len(parts), 2):
            whole, _, fraction = parts[k].partition(".")
            if (count := digits[k, *words]) and not (fraction and count == 1):
                parts[k] = f"{whole}.{fraction.ljust(count, '0')}"
    return ["".join(parts) for parts in split]


def _count_digits(numbers: set[str], decimals: bool | None) -> int:
    """Count the digits behind the dot of numbers of one place; 1 where these are whole numbers."""
    fractions = {n.partition(".")[2] for n in numbers} - {""}
    if any("." in fraction for fraction in fractions):
        return 0  # as in dates
    widths = {len(fraction) for fraction in fractions}
    if decimals is None:
        decimals = not any(f.endswith("0") and len(f) > 1 for f in fractions)
    return max(widths, default=0) if decimals or len(widths) == 1 else min(1, len(widths))


def tell_decimals(names: Sequence[str]) -> str:
    """Say of names in their order as what numbers with dots are taken, where that decides it.

    Examples
    --------
    >>> tell_decimals(["z1.05", "z1.1"]), tell_decimals(["s1.9", "s1.10"])
    ('decimals, so that z1.05 comes before z1.1', 'two numbers each, so that s1.9 comes before s1.10')
    >>> tell_decimals(["z0.5", "z1.0", "z1.5"]), tell_decimals(["s1.05", "s1.5", "s2"])
    ('', '')
    """  # noqa: E501
    signed = mark_signs(names)
    for decimals, words in ((False, "decimals"), (True, "two numbers each")):
        marked = mark_decimals(signed, decimals=decimals)
        others = [name for _, name in sorted(zip(marked, names, strict=True), key=_by_mark)]
        for name, other in zip(names, others, strict=True):
            if name != other:
                return f"{words}, so that {name} comes before {other}"
    return ""


def _by_mark(marked: tuple[str, str]) -> list[Any]:
    return natural_key(marked[0])


def mark_signs(names: Sequence[str]) -> list[str]:
    """Part signs from what precedes them: numbers of one place that have unlike signs, or none.

    A hyphen separates words where it stands before all of them, or where others are none of zero,
    with a plus, or the opposite of one with a hyphen.

    Examples
    --------
    >>> mark_signs(["z+3", "z-3"]), mark_signs(["z-1", "z0"]), mark_signs(["Au+3-1", "Au+3-2"])
    (['z 3', 'z -3'], ['z -1', 'z 0'], ['Au+3-1', 'Au+3-2'])
    >>> mark_signs(["a-1", "a2", "a-3"]), mark_signs(["z-1", "z1"])
    (['a 1', 'a 2', 'a 3'], ['z -1', 'z 1'])
    """
    split = [SIGNED.split(name) for name in names]
    numbers: dict[tuple[Any, ...], set[str]] = {}
    for parts in split:
        for k in range(1, len(parts), 2):
            numbers.setdefault((k, *parts[::2]), set()).add(parts[k])
    signed = {place: _are_signed(found) for place, found in numbers.items()}
    for parts in split:
        words = tuple(parts[::2])
        for k in range(1, len(parts), 2):
            if (known := signed[k, *words]) is not None:
                parts[k] = f" {parts[k].removeprefix('+') if known else parts[k].lstrip('-')}"
    return ["".join(parts) for parts in split]


def _are_signed(numbers: set[str]) -> bool | None:
    """Tell whether hyphens before numbers of one place are signs; None if all or none have one."""
    plain = {n for n in numbers if n[0] not in "+-"}
    if len({n[0] for n in numbers - plain}) + bool(plain) < 2:
        return None
    plus = any(n[0] == "+" for n in numbers)
    return plus or any(float(n) == 0 or f"-{n}" in numbers for n in plain)


def natural_key(path: Path | str) -> list[Any]:
    """Sort names as people number them.

    Examples
    --------
    >>> names = ["s10.tif", "s2.tif", "s-3.tif"]
    >>> [p.name for p in sorted(map(Path, names), key=natural_key)]
    ['s2.tif', 's10.tif', 's-3.tif']
    >>> [p.name for p in sorted(map(Path, ["z_1", "z_0", "z_-1.2", "z_-1.5"]), key=natural_key)]
    ['z_-1.5', 'z_-1.2', 'z_0', 'z_1']
    """
    key: list[Any] = []
    for k, part in enumerate(NUMBER.split(str(path))):
        if k % 2 == 0:
            key.append(part.lower())
        elif part.startswith("-"):
            whole, *fraction = part[1:].split(".")
            key += [-int(whole), *(x for digits in fraction for x in (".", -int(digits)))]
        else:
            key.append(int(part))
    return key


def find_gaps(names: Sequence[str]) -> list[str]:
    """Find the numbers that a numbered sequence skips.

    Parameters
    ----------
    names : in natural order

    Examples
    --------
    >>> find_gaps(["s1", "s2", "s5", "s7"]), find_gaps(["a00", "a10", "a20"])
    (['3-4', '6'], [])
    """
    signed = mark_signs(names)
    split = [NUMBER.split(n) for n in signed]
    if len(names) < 3 or len({tuple(s[::2]) for s in split}) > 1 or mark_decimals(signed) != signed:
        return []
    columns = list(zip(*(s[1::2] for s in split), strict=True))
    varying = [c for c in columns if len(set(c)) > 1]
    if len(varying) != 1 or any("." in v for v in varying[0]):
        return []
    numbers = [int(v) for v in varying[0]]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    step = max(min(steps), 1)
    return [
        f"{a + step}" if b - a == 2 * step else f"{a + step}-{b - step}"
        for a, b in itertools.pairwise(numbers)
        if b - a > step
    ]


def find_sequences(names: Sequence[str]) -> list[str]:
    """Find the sequences that names are of, as globs; none or one if they are of one.

    Names without any number in common are taken as one sequence in the order of the alphabet.

    Examples
    --------
    >>> find_sequences(["ETD_0.tif", "ETD_1.tif", "InLens_0.tif", "InLens_1.tif"])
    ['ETD_?.tif', 'InLens_?.tif']
    >>> find_sequences(["c0_z8.tif", "c0_z10.tif", "c1_z8.tif", "c1_z10.tif"])
    ['c0_z*.tif', 'c1_z*.tif']
    >>> find_sequences(["s1_10h05.tif", "s2_10h05.tif"]), find_sequences(["a.tif", "b.tif"])
    (['s?_10h05.tif'], [])
    """
    words: dict[str, list[list[str]]] = {}
    for name in names:
        parts = re.split(r"([+-]?\d+(?:\.\d+)*)", name)
        words.setdefault("*".join(parts[::2]).lower(), []).append(parts)
    if max(map(len, words.values()), default=0) < 2:
        return []
    found: list[str] = []
    for split in words.values():
        columns = list(zip(*(parts[1::2] for parts in split), strict=True))
        varying = [k for k, column in enumerate(columns) if len(set(column)) > 1]
        if not any(len(set(column)) == len(column) for column in columns):
            # each number is in several names: the last that varies counts the slices of the others
            varying = varying[-1:]
        for k in varying:
            widths = {len(value) for value in columns[k]}
            wildcard = "?" * widths.pop() if len(widths) == 1 else "*"
            for parts in split:
                parts[2 * k + 1] = wildcard
        found += dict.fromkeys("".join(parts) for parts in split)
    return found
