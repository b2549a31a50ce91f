"""Which images and labels ``volseg train`` is given, in its various ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from volseg.stages.train.regions import Pair

Value = TypeVar("Value")


def split_pair(text: str) -> tuple[str, str]:
    """Split ``VOLUME=LABELS`` at its last equals sign.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> split_pair("vol.zarr=mitochondria")
    ('vol.zarr', 'mitochondria')
    """
    volume, _, labels = text.rpartition("=")
    if not volume or not labels:
        raise click.BadParameter(f"expected VOLUME=LABELS, found {text!r}")
    return volume, labels


def parse_slices(text: str) -> tuple[int, ...]:
    """Read slices written as 3,17,40 or 5-9, counted from 0.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> parse_slices("3,17,20-22")
    (3, 17, 20, 21, 22)
    """
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            found += range(int(first), int(last or first) + 1)
        except ValueError:
            raise click.BadParameter(
                f"expected slices, such as 3,17,20-22, found {text!r}"
            ) from None
    return tuple(found)


def one_each(values: Sequence[Value], count: int, flag: str) -> list[Value | None]:
    """Give each of several pairs its value: one for all, or one each, in the same order.

    Raises
    ------
    BadParameter
        If there are neither.

    Examples
    --------
    >>> one_each(["a"], 2, "--roi"), one_each([], 2, "--roi")
    (['a', 'a'], [None, None])
    """
    if len(values) not in {0, 1, count} or (values and not count):
        raise click.BadParameter(
            f"{flag} is given once for all {count} pairs of images and labels, or once for each, "
            f"found {len(values)}"
        )
    if len(values) == count:
        return list(values)
    return [values[0] if values else None for _ in range(count)]


def pair_up(
    named: Sequence[tuple[str, str]],
    held_out: Sequence[tuple[str, str]],
    regions: tuple[Sequence[str], Sequence[str]],
    slices: Sequence[tuple[int, ...]],
    *,
    images: bool,
) -> list[Pair]:
    """Pair images and labels, and give each pair its regions.

    Parameters
    ----------
    named : of images and labels to train on.
    held_out : of images and labels that only serve for validation.
    regions : to train on and to hold out.
    slices : that are annotated.
    images : whether the slices are unrelated images.
    """
    from volseg.stages.train.regions import Pair

    rois, validations = (
        one_each(values, len(named), flag)
        for values, flag in zip(regions, ("--roi", "--validation"), strict=True)
    )
    listed = one_each(slices, len(named), "--slices")
    pairs = [
        Pair(Path(raw), labels, roi, validation, chosen, images)
        for (raw, labels), roi, validation, chosen in zip(
            named, rois, validations, listed, strict=True
        )
    ]
    held = [Pair(Path(raw), labels, images=images, held_out=True) for raw, labels in held_out]
    return [*pairs, *held]
