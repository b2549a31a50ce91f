"""Numbers as people read them."""

from __future__ import annotations


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
