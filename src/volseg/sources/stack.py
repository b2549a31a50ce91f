"""Source stacks, as pages that any thread can read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.geometry.grid import roi_shape
from volseg.sources.voxel_size import AxisSizes, StatedSize
from volseg.storage.ome import Space
from volseg.types import Roi, Zyx, zyx

ACCEPTED_TYPES = ("uint8", "uint16", "int16", "float32")
GREY = "make greys of colours with --grey"
"""Remedy where a source has colours."""
NO_COLOURS = "save them as whole numbers without colours, such as a TIFF of uint16"
"""Remedy where labels have colours."""
NO_AXES = f"labels are an array of (z, y, x): name theirs with --axes, or {NO_COLOURS}"
"""Remedy where labels have axes that nobody names, as of colours."""
CHOICES = re.compile(r"--(channel|time|series|grey|fill-value)\b")
"""Remedies that not every command has which reads a source."""
COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}
"""Colours by the number of samples; the last of two or four is how opaque a pixel is."""


LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey: ITU-R BT.601, section 2.5.1."""


@dataclass(frozen=True)
class Selection:
    """Choices among what a source holds.

    Attributes
    ----------
    channel : of colour or multi-channel pages, from 0.
    time : which of the volumes of a time series, from 0.
    series : which of the images in a file, from 0.
    axes : names of the axes, slowest first, where the source names them wrongly or not at all.
    fit : slices of other sizes than the first to the largest or smallest, at their corner.
    grey : whether colours become greys.
    images : whether slices are unrelated images, so that their names may be any.
    numbers : whether the numbers of a palette count, as those of labels do, not what they show.
    """

    channel: int | None = None
    time: int | None = None
    series: int | None = None
    axes: str | None = None
    fit: Literal["pad", "crop"] | None = None
    grey: bool | None = None
    images: bool | None = None
    numbers: bool = False


WHOLE = Selection()
"""Selection of a source that holds nothing else."""


class Boxes(Protocol):
    """An array of (z, y, x) that is read box by box, from any thread."""

    @property
    def chunk(self) -> Zyx:
        """A shape that is cheap to read."""

    def __getitem__(self, roi: Roi, /) -> NDArray[Any]:
        """Read a box."""


@dataclass(frozen=True)
class Stack:
    """A source: equal pages, one above the other.

    Attributes
    ----------
    files : in the order of z; one for a multi-page file.
    dtype : one of the accepted types, in this machine's byte order.
    read_page : fills a page (z index, array of shape (y, x)); from any thread.
    close : releases the files.
    stated : what the source says about its voxel size, wherever it says something.
    metadata : what the first page says about itself, for provenance.
    warnings : what the user should know.
    array : a source that is quicker to read by chunks than by pages.
    space : of a Zarr image, which the volume takes over.
    colours : whether pages have colours that reading shows to be greys, or refuses.
    sizes : (y, x) of each page, where smaller ones are padded; else empty.
    names : of unrelated images that a volume holds; else empty.
    """

    files: tuple[Path, ...]
    shape: Zyx
    dtype: np.dtype[Any]
    read_page: Callable[[int, NDArray[Any]], None]
    close: Callable[[], None]
    stated: tuple[StatedSize, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    array: Boxes | None = None
    space: Space = field(default_factory=Space)
    colours: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()

    def name_page(self, z: int) -> str:
        """Name a page for messages, by its file or by its number from 1."""
        if len(self.files) == self.shape[0] > 1:
            return str(self.files[z])
        single = len(self.files) == 1
        return f"{self.files[0] if single else self.files[0].parent}: page {z + 1}"

    @property
    def axis_sizes(self) -> AxisSizes:
        """Sizes of voxels in nm (z, y, x), each as it is first stated."""
        axes = [s.axes for s in self.stated]
        return zyx(next((s[k] for s in axes if s[k] is not None), None) for k in range(3))


def read_box(stack: Stack, roi: Roi) -> NDArray[Any]:
    """Read a box of a stack, from any thread."""
    if stack.array is not None:
        return stack.array[roi]
    z, y, x = roi
    out = np.empty(roi_shape(roi), stack.dtype)
    page = np.empty(stack.shape[1:], stack.dtype)
    for k in range(z.start, z.stop):
        stack.read_page(k, page)
        out[k - z.start] = page[y, x]
    return out


def check_finite(stack: Stack, z: int, page: NDArray[Any]) -> None:
    """Check that the values of a page that was read, or of several from it on, are finite."""
    if page.dtype.kind == "f" and not (finite := np.isfinite(page)).all():
        z += 0 if page.ndim == 2 else int(np.argmin(finite.all(axis=(1, 2))))
        raise SourceError(
            f"{stack.name_page(z)} holds values that are not finite (NaN); replace them by some "
            f"value with --fill-value, such as 0"
        )


@contextmanager
def choosing_elsewhere() -> Iterator[None]:
    """Tell of choices, of which the command that reads a source has none, where they are had."""
    try:
        yield
    except SourceError as error:
        if CHOICES.search(str(error)) is None:
            raise
        raise SourceError(
            f"{error}. That is an option of convert: give the volume that it makes"
        ) from error


def check_single(selection: Selection, where: str) -> None:
    """Refuse choices that a source of one image, with the axes z, y and x, does not offer."""
    check_series(selection, where)
    if selection.axes is not None and selection.axes.upper() != "ZYX":
        raise SourceError(f"--axes is {selection.axes}, but {where} has the axes ZYX")
    choose_time(1, selection.time, where)


def check_series(selection: Selection, where: str) -> None:
    """Refuse the choice of another image of a source that holds one."""
    if selection.series:
        raise SourceError(f"--series is {selection.series}, but {where} has only image 0")


def close_nothing() -> None:
    """Close nothing: no file is held open."""


def choose_channel(count: int, channel: int | None, where: str, hint: str = GREY) -> int:
    """Choose one of several channels."""
    if hint.endswith(NO_COLOURS) and channel is None and count > 1:
        raise SourceError(f"{where} has {count} channels, and labels have one: {hint}")
    several = f"{where} has {count} channels, a volume has one"
    return _choose(count, channel, "channel", where, several, f", or {hint}")


def choose_time(count: int, time: int | None, where: str) -> int:
    """Choose one of the volumes of a time series."""
    return _choose(count, time, "time", where, f"{where} is a time series of {count} volumes")


def choose_series(count: int, series: int | None, where: str, named: str = "") -> int:
    """Choose one of the images of a source, whose names a message may tell."""
    several = f"{where} holds {count} images{named}"
    return _choose(count, series, "series", where, several)


def _choose(
    count: int, chosen: int | None, what: str, where: str, several: str, hint: str = ""
) -> int:
    if chosen is None and count > 1:
        raise SourceError(f"{several}: choose with --{what} 0 to {count - 1}{hint}")
    if not 0 <= (chosen or 0) < count:
        things = " image(s)" if what == "series" else ""
        raise SourceError(f"--{what} is {chosen}, but {where} has {count}{things}, counted from 0")
    return chosen or 0


def pick_grey(
    samples: NDArray[Any], channel: int | None, where: str, hint: str = GREY, *, grey: bool = False
) -> NDArray[Any]:
    """Pick a channel of pixels or, where none is chosen, their grey.

    Parameters
    ----------
    samples : shape (y, x, samples)
    channel : from 0, or None
    grey : whether colours that are no greys become some; how opaque a pixel is does not count

    Raises
    ------
    SourceError
        If none is chosen and the colours of a pixel differ, or some pixels are more opaque than
        others.
    """
    count = samples.shape[2]
    colours = COLOURS.get(count, 0)
    first = samples[..., :1]
    if grey and channel is None and colours > 0:
        shares = LUMA if colours == len(LUMA) else (1.0,)
        mixed = samples[..., :colours] @ np.array(shares)
        return np.asarray(np.rint(mixed) if samples.dtype.kind in "ui" else mixed, samples.dtype)
    equal = colours > 0 and bool((samples[..., 1:colours] == first).all())
    if (
        channel is None
        and equal
        and bool((samples[..., colours:] == samples[0, 0, colours:]).all())
    ):
        return np.asarray(samples[..., 0])
    return np.asarray(samples[..., choose_channel(count, channel, where, hint)])
