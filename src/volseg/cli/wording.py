"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from volseg.types import extent


def scaled(number: float) -> str:
    """Shorten a number with an SI prefix.

    Examples
    --------
    >>> scaled(999), scaled(645_300), scaled(129_761_280)
    ('999', '645 k', '130 M')
    """
    for prefix in ("", " k", " M", " G", " T"):
        if number < 999.5:
            return f"{number:.3g}{prefix}"
        number /= 1000
    return f"{number:.3g} P"


def duration(seconds: float) -> str:
    """Write a time span.

    Examples
    --------
    >>> duration(7.4), duration(75), duration(7300)
    ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, thing: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "object"), counted(0, "object")
    ('1 object', '0 objects')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def voxels_of(size: Sequence[float] | None) -> str:
    """Write a voxel size, in nm, or that it is unknown.

    Examples
    --------
    >>> voxels_of((5.0, 5.0, 5.0)), voxels_of(None)
    ('voxels of 5 x 5 x 5 nm', 'voxels of unknown size')
    """
    return "voxels of unknown size" if size is None else f"voxels of {extent(size)} nm"
