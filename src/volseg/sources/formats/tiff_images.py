"""The images in a TIFF file: axes and planes, as tifffile finds them in what the file says."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import tifffile

from volseg.errors import SourceError
from volseg.sources.formats.tiff_pages import Plane, select_sample, truncated
from volseg.types import extent

DESCRIPTION = 1 << 17
"""Bytes that metadata of any kind may take beside the pages."""
BLACK_IS_ZERO = 1
UNDESCRIBED = ("generic", "uniform")
"""Kinds of images that tifffile makes of pages that nothing is said about."""


@dataclass(frozen=True)
class TiffImage:
    """An image of several planes.

    Attributes
    ----------
    kind, name : the form of its description, and what it is called there; may be empty.
    axes, shape : of the planes, slowest first, without axes of length 1.
    planes : in that order.
    numbers : of their pages in the file, from 0.
    page : the first, with its tags.
    """

    kind: str
    name: str
    axes: str
    shape: tuple[int, ...]
    planes: tuple[Plane, ...]
    numbers: tuple[int, ...]
    page: tifffile.TiffPage

    @property
    def form(self) -> tifffile.TiffPage:
        """A page that says how large pixels and planes are."""
        return self.planes[0].form

    def __str__(self) -> str:
        form = self.form
        sizes = extent((*self.shape, form.imagelength, form.imagewidth))
        named = f" {self.name!r}" if self.name else ""
        return f"{sizes} {form.dtype}{named}"


def list_images(path: Path, tif: tifffile.TiffFile, pages: list[Plane]) -> list[TiffImage]:
    """List the images that a file describes; all pages are one where it describes none."""
    tif.is_uniform = False  # tifffile looks at some pages only to call all of them equal
    found, used = [], set[int]()
    for series in tif.series:
        if isinstance(series.keyframe.index, int):  # else a copy of another kind, below a page
            found.append(_read_image(path, series, pages))
            used.update(found[-1].numbers)
            for level in series.levels[1:]:
                used.update(p.index for p in level if p and isinstance(p.index, int))
    if tif.is_imagej and all(image.kind in UNDESCRIBED for image in found):
        count = int((tif.imagej_metadata or {}).get("images", 1))
        raise truncated(path, f"ImageJ announces {count} images, {len(pages)} are there")
    if len(used) < len(pages):
        raise miscounted(path, len(used), len(pages))
    return found


def miscounted(path: Path, described: int, held: int) -> SourceError:
    """Make the error of a file whose description does not fit its pages."""
    why = (
        "it was changed by a program that kept its description"
        if described < held
        else "it is truncated, or part of a set of files"
    )
    return SourceError(
        f"{path} describes {described} planes but holds {held}: {why}; export it as one stack"
    )


def left_over(path: Path, pages: list[Plane]) -> tuple[str, ...]:
    """Notice what may be planes that the only page of a file does not tell of."""
    page, left = pages[0], path.stat().st_size - sum(pages[0].lengths)
    if len(pages) > 1 or page.form.compression != 1 or page.form.subifds:
        return ()
    if left < page.nbytes + DESCRIPTION:
        return ()
    more = f"{left} bytes more, as large as {left // page.nbytes} planes"
    return (f"{path} has one page, and {more}: it does not say what they are",)


def _read_image(path: Path, series: tifffile.TiffPageSeries, pages: list[Plane]) -> TiffImage:
    first = pages[series.keyframe.index]
    if first.form.dtype is None or math.prod(first.form.shaped) == 0:
        raise truncated(path, "the tags of a page say neither its size nor its type")
    if first.form.shaped[1] > 1:
        raise SourceError(f"{path} stores volumes in its pages; save it as a stack of slices")
    if series.kind in UNDESCRIBED:
        numbers = [p.index for p in series if p is not None and isinstance(p.index, int)]
        axes, shape = "I"[: len(numbers) - 1], (len(numbers),)[: len(numbers) - 1]
    else:
        axes, shape = _axes_of_planes(path, series, first.form)
        numbers = [series.keyframe.index]
    count = math.prod(shape)
    if len(series) == 1 and count > 1:
        planes = _cut_contiguous(path, series, first, count)
    else:
        numbers = _numbers_of(path, series, count, len(pages))
        planes = [pages[n] for n in numbers]
    for number, plane in zip(numbers, planes, strict=False):
        if (found := content(plane.form)) != (expected := content(first.form)):
            raise SourceError(unequal(path, number, found, numbers[0], expected))
    return TiffImage(
        series.kind, series.name, axes, shape, tuple(planes), tuple(numbers), series.keyframe
    )


def _axes_of_planes(
    path: Path, series: tifffile.TiffPageSeries, form: tifffile.TiffPage
) -> tuple[str, tuple[int, ...]]:
    """Separate the axes of the planes from those within a page, which must be y, x and samples."""
    named = zip(series.get_axes(False), series.get_shape(False), strict=True)
    left = [(a, n) for a, n in named if n != 1 or a in "YX"]
    inner = [("Y", form.imagelength), ("X", form.imagewidth)]
    samples = form.samplesperpixel
    if samples > 1:
        inner.insert(0 if form.shaped[0] > 1 else 2, ("S", samples))
    outer, within = left[: -len(inner)], left[-len(inner) :]
    if [("S" if a == "C" and n == samples > 1 else a, n) for a, n in within] != inner:
        found = ", ".join(f"{a} {n}" for a, n in left)
        raise SourceError(
            f"the axes of {path} are {found}, slowest first; the last two must be Y and X, as its "
            f"pages are: save it again as ZYX or CZYX"
        )
    return "".join(a for a, _ in outer), tuple(n for _, n in outer)


def _numbers_of(path: Path, series: tifffile.TiffPageSeries, count: int, held: int) -> list[int]:
    """List the pages of an image in the order of its planes, counted from 0."""
    if len(series) != count:
        raise miscounted(path, count, len(series))
    try:
        found = [None if page is None else page.index for page in series]
    except IndexError:
        found = []
    numbers = [n for n in found if isinstance(n, int) and n < held]
    if len(numbers) < count or series.is_multifile:
        raise miscounted(path, count, held)
    return numbers


def _cut_contiguous(
    path: Path, series: tifffile.TiffPageSeries, page: Plane, count: int
) -> list[Plane]:
    """List the planes that lie one after the other, of which only the first has a page."""
    plane, size = select_sample(page, 0), page.form.parent.filehandle.size
    if series.dataoffset is None or not plane.plain:
        raise truncated(path, f"it describes {count} planes, and has 1")
    first, nbytes = plane.offsets[0], plane.nbytes
    if first + count * nbytes > size:
        complete = max(size - first, 0) // nbytes
        raise truncated(path, f"it announces {count} images, {complete} are complete")
    at = (first + k * nbytes for k in range(count))
    if plane.separate:
        part = nbytes // plane.form.samplesperpixel
        samples = range(plane.form.samplesperpixel)
        return [
            replace(
                page, offsets=tuple(a + s * part for s in samples), lengths=(part,) * len(samples)
            )
            for a in at
        ]
    return [replace(page, offsets=(a,), lengths=(nbytes,)) for a in at]


def content(form: tifffile.TiffPage) -> str:
    """Describe what all pages of a stack have in common."""
    kind = f"{form.shape} {form.dtype}"
    return kind if form.photometric == BLACK_IS_ZERO else f"{kind} {form.photometric!r}"


def unequal(path: Path, number: int, found: str, first: int, expected: str) -> str:
    """Describe two pages that are not of one stack, by their numbers from 0."""
    return (
        f"page {number + 1} of {path} is {found}, page {first + 1} is {expected}: all pages of a "
        f"stack must be equal; remove or split off what does not belong to it"
    )
