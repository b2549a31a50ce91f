"""Selections in a TIFF file: one of its images, and the planes of one channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from volseg.errors import SourceError, list_some
from volseg.sources.formats.tiff_images import UNDESCRIBED, TiffImage, content, unequal
from volseg.sources.formats.tiff_pages import Plane, select_sample
from volseg.sources.stack import (
    GREY,
    NO_COLOURS,
    Selection,
    choose_channel,
    choose_series,
    choose_time,
)

SHOWN = 6
"""Images of a file that a message lists."""
SLICES = "ZTIQ"
"""Axes that may be z: some programs call it time, an index, or nothing at all."""


def choose_image(
    path: Path, images: Sequence[TiffImage], chosen: int | None
) -> tuple[TiffImage, tuple[str, ...]]:
    """Choose one of a file's images, and warn; equal pages that are images of their own are one."""
    last = len(images) - 1
    if chosen is not None:
        return images[choose_series(len(images), chosen, str(path))], ()
    if last == 0:
        return images[0], ()
    flat = [image for image in images if not image.shape]
    in_a_loop = len(flat) == len(images) and images[0].kind == "shaped"
    if in_a_loop or all(image.kind in UNDESCRIBED for image in images):
        return _join(path, images), ()
    if len(flat) == last:
        (image,) = (image for image in images if image.shape)
        number = images.index(image)
        left = f"left out {last} image(s) of one plane; --series chooses another"
        return image, (f"{path}: took image {number}, {image}, and {left}",)
    raise SourceError(f"{path} {_listed(images)}")


def _join(path: Path, images: Sequence[TiffImage]) -> TiffImage:
    """Make one stack of pages of which nothing else is said, however each is stored."""
    first = images[0]
    for image in images[1:]:
        if (found := content(image.form)) != (expected := content(first.form)):
            what = unequal(path, image.numbers[0], found, first.numbers[0], expected)
            raise SourceError(f"{what}; the file {_listed(images)}")
    pages = dict(sorted(p for i in images for p in zip(i.numbers, i.planes, strict=True)))
    return replace(
        first, axes="I", shape=(len(pages),), planes=tuple(pages.values()), numbers=tuple(pages)
    )


def _listed(images: Sequence[TiffImage]) -> str:
    each = [f"{k}: {image}" for k, image in enumerate(images)]
    return f"holds {len(images)} images ({list_some(each, SHOWN, '; ')}); choose with --series"


def select_planes(
    path: Path, image: TiffImage, selection: Selection
) -> tuple[tuple[Plane, ...], str | None]:
    """Choose the planes of the volume by channel and time, and by axes that the user knows better.

    Returns
    -------
    planes, and what to do if their colours are not greys; None where they need not be
    """
    samples = image.form.samplesperpixel
    axes, shape = image.axes, image.shape
    if samples > 1:
        axes, shape = f"{axes}S", (*shape, samples)
    if selection.axes is not None:
        axes = _renamed(path, image, axes, shape, selection.axes)
    elif _are_slices(image, selection):
        axes = axes.replace("S", "Z")
    index = np.arange(math.prod(shape)).reshape(shape)
    sizes = dict(zip(axes, shape, strict=True))
    if "Z" in sizes and "T" in sizes:
        time = choose_time(sizes["T"], selection.time, str(path))
        index = np.take(index, [time], axes.index("T"))
    elif selection.time is not None:
        choose_time(1, selection.time, str(path))
    channels = [k for k, axis in enumerate(axes) if axis in "CS"]
    others = [k for k in range(len(axes)) if k not in channels]
    odd = [k for k in others if index.shape[k] > 1]
    if len(odd) > 1 or any(axes[k] not in SLICES for k in odd):
        raise SourceError(_why_no_slices(path, image, axes, shape, selection))
    count = math.prod(shape[k] for k in channels)
    hint = "say --axes ZYX if they are slices" if not others else GREY
    hint = _tell_labels(image, alone=not others) if selection.numbers else hint
    colours = selection.channel is None and 1 < samples == count
    chosen = 0 if colours else choose_channel(count, selection.channel, str(path), hint)
    flat = index.transpose([*others, *channels]).reshape(-1, count)[:, chosen].tolist()
    if colours:
        return tuple(image.planes[p // samples] for p in flat), hint
    return tuple(select_sample(image.planes[p // samples], p % samples) for p in flat), None


def _are_slices(image: TiffImage, selection: Selection) -> bool:
    """Tell labels, which have no colours, whose slices tifffile wrote as the planes of colours."""
    asked = selection.numbers and selection.channel is None
    return asked and image.kind == "shaped" and image.planes[0].separate and not image.shape


def _tell_labels(image: TiffImage, *, alone: bool) -> str:
    """Say what helps where labels have several samples of a pixel."""
    if not alone:
        return NO_COLOURS
    axes = "ZYX" if image.planes[0].separate else "YXZ"
    return f"if they are slices, say --axes {axes}, here or of volseg convert; else {NO_COLOURS}"


def _renamed(path: Path, image: TiffImage, axes: str, shape: tuple[int, ...], named: str) -> str:
    """Take the user's names for axes, which are those of the planes and, last, Y and X."""
    last = axes[len(image.axes) :] if image.form.shaped[0] == 1 else ""
    known = f"{axes[: len(axes) - len(last)]}YX{last}"
    letters = named.upper()
    at = known.index("YX")
    fits = len(letters) == len(known) and letters[at : at + 2] == "YX"
    if not fits or set(letters) - set("ZCTYX") or len(set(letters)) < len(letters):
        raise SourceError(
            f"--axes is {named}, but {path} holds {_described(image, axes, shape)}, slowest "
            f"first: name each by one of Z, C, T, Y and X, and Y and X where they are"
        )
    return letters[:at] + letters[at + 2 :]


def _described(image: TiffImage, axes: str, shape: tuple[int, ...]) -> str:
    parts = [f"{a} {n}" for a, n in zip(axes, shape, strict=True)]
    inside = [f"Y {image.form.imagelength}", f"X {image.form.imagewidth}"]
    at = len(image.axes) if image.form.shaped[0] == 1 else len(parts)
    return ", ".join([*parts[:at], *inside, *parts[at:]])


def _why_no_slices(
    path: Path, image: TiffImage, axes: str, shape: tuple[int, ...], selection: Selection
) -> str:
    if selection.numbers:
        return (
            f"{path} holds {_described(image, axes, shape)}; labels have the axes Z, Y and X: "
            f"name theirs with --axes, here or of volseg convert"
        )
    return (
        f"{path} holds {_described(image, axes, shape)}, slowest first, and does not say which "
        f"are slices: say so with --axes, such as CZYX for channels of slices"
    )
