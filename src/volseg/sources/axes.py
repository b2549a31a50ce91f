"""Arrays whose axes have names: read as boxes of (z, y, x), of one channel and one time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import (
    GREY,
    NO_AXES,
    NO_COLOURS,
    Selection,
    Stack,
    choose_channel,
    choose_time,
    close_nothing,
)
from volseg.sources.voxel_size import AxisSizes, StatedSize, said
from volseg.storage.arrays import LONGEST_AXIS
from volseg.types import Roi, Zyx, zyx

FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError)
"""Errors of libraries where a file is damaged."""
ROWS = 64
"""Rows of voxels that are read at a time, or more."""
NAME_EACH = "name each by one of Z, Y, X, C and T with --axes, slowest first"
"""Remedy where axes are not known."""


@dataclass(frozen=True)
class NamedArray:
    """An array as boxes of (z, y, x).

    Attributes
    ----------
    where : file and name, for messages.
    read : reads a box, a slice or a number for each axis.
    axes : their letters, slowest first; all but Z, Y, X, C and T are of length one.
    sizes : voxels along each.
    fixed : numbers along C and T.
    chunk : a shape that is cheap to read, (z, y, x).
    """

    where: str
    read: Callable[[tuple[slice | int, ...]], NDArray[Any]]
    axes: str
    sizes: Mapping[str, int]
    fixed: Mapping[str, int]
    chunk: Zyx

    @property
    def shape(self) -> Zyx:
        """(z, y, x)."""
        return zyx(self.sizes.get(axis, 1) for axis in "ZYX")

    def __getitem__(self, roi: Roi) -> NDArray[Any]:
        """Read a box."""
        at: dict[str, slice | int] = {**dict(zip("ZYX", roi, strict=True)), **self.fixed}
        try:
            found = self.read(tuple(at.get(axis, 0) for axis in self.axes))
        except FAULTS as error:
            raise SourceError(
                f"{self.where} is damaged or truncated at z {roi[0].start}; fetch or export it "
                f"again, completely"
            ) from error
        kept = [axis for axis in self.axes if axis in "ZYX"]
        order = [kept.index(axis) for axis in "ZYX" if axis in kept]
        boxes = np.transpose(found, order).reshape([s.stop - s.start for s in roi])
        return boxes.astype(boxes.dtype.newbyteorder("="), copy=False)

    def read_page(self, z: int, out: NDArray[Any]) -> None:
        """Read a page."""
        _, y, x = self.shape
        out[...] = self[slice(z, z + 1), slice(0, y), slice(0, x)][0]

    def stack(
        self, path: Path, dtype: np.dtype[Any], stated: StatedSize, axes: str | None, **known: Any
    ) -> Stack:
        """Make a stack of it, with the size that is stated along the file's own axes."""
        sizes = sizes_as_named(stated.axes, axes, self.axes)
        return Stack(
            files=(path,),
            shape=self.shape,
            dtype=dtype.newbyteorder("="),
            read_page=self.read_page,
            stated=said(replace(stated, axes=sizes)),
            **{"close": close_nothing, "array": self, **known},
        )


def choose_axes(
    where: str,
    read: Callable[[tuple[slice | int, ...]], NDArray[Any]],
    shape: Sequence[int],
    axes: str | None,
    selection: Selection,
    chunks: Sequence[int] | None = None,
) -> NamedArray:
    """Choose a channel and a time of an array.

    Parameters
    ----------
    where : file and name, for messages
    read : see `NamedArray`
    shape, chunks : along all axes
    axes : as the file names them, if it does
    selection : axes that are named there count
    """
    if min(shape, default=0) < 1 or max(shape) > LONGEST_AXIS:
        raise SourceError(f"{where} has the shape {tuple(shape)}, which no volume has")
    remedy = NO_AXES if selection.numbers else ""
    named = name_axes(where, shape, selection.axes or axes, remedy)
    sizes = dict(zip(named, map(int, shape), strict=True))
    hint = NO_COLOURS if selection.numbers else GREY
    fixed = {
        "C": choose_channel(sizes.get("C", 1), selection.channel, where, hint),
        "T": choose_time(sizes.get("T", 1), selection.time, where),
    }
    array = NamedArray(where, read, named, sizes, fixed, (1, 1, 1))
    return replace(array, chunk=_choose_boxes(named, chunks, array.shape))


def name_axes(where: str, shape: Sequence[int], named: str | None, remedy: str = "") -> str:
    """Name the axes as given, else z, y, x beside axes of length one.

    Parameters
    ----------
    where, shape : see `choose_axes`
    named : letters, slowest first; None if there are none
    remedy : what to do where they are not known; empty for --axes

    Examples
    --------
    >>> name_axes("a.h5", (1, 20, 30, 40), None), name_axes("a.h5", (2, 20, 30, 40), "czyx")
    ('1ZYX', 'CZYX')
    """
    if named is None:
        before = next((k for k, n in enumerate(shape[:-3]) if n > 1), len(shape) - 3)
        after = len(shape) - 3 - before
        if before < 0 or any(n > 1 for n in shape[len(shape) - after :]):
            raise SourceError(
                f"{where} has the shape {tuple(shape)}, and does not say which axes are z, y and "
                f"x: {remedy or 'say so with --axes, such as CZYX'}"
            )
        return f"{'1' * before}ZYX{'1' * after}"
    # what has one voxel only needs no name
    pairs = zip(named.upper(), shape, strict=False)
    letters = "".join("1" if n == 1 and axis not in "ZYX" else axis for axis, n in pairs)
    known = len(named) == len(shape) and all(letters.count(a) == 1 for a in set(letters) - {"1"})
    if not known or not set("YX") <= set(letters) <= set("ZYXCT1"):
        raise SourceError(
            f"{where} has the shape {tuple(shape)}, and axes {named}: {remedy or NAME_EACH}"
        )
    return letters


def sizes_as_named(sizes: AxisSizes, axes: str | None, named: str) -> AxisSizes:
    """Give each axis the size that the file states for it, also if the user names it otherwise.

    Parameters
    ----------
    sizes : nm along (z, y, x) as the file names its axes
    axes, named : letters of the axes, as the file and as the user names them

    Examples
    --------
    >>> sizes_as_named((30, 4, 5), "ZYX", "XYZ"), sizes_as_named((30, 4, 5), "CZYX", "CZYX")
    ((5, 4, 30), (30, 4, 5))
    """
    if axes is None:
        return sizes
    stated = dict(zip("ZYX", sizes, strict=True))
    found = {b: stated.get(a) for a, b in zip(axes.upper(), named, strict=True)}
    return found.get("Z"), found.get("Y"), found.get("X")


def _choose_boxes(axes: str, chunks: Sequence[int] | None, shape: Zyx) -> Zyx:
    """Choose boxes to read: whole chunks, not too narrow, or pages of what has no chunks."""
    _, y, x = shape
    if chunks is None:
        # slices along a fast axis would be gathered voxel by voxel
        fast = axes.find("Z") > min(axes.index("Y"), axes.index("X"))
        return shape if fast else (1, y, x)
    sizes = dict(zip(axes, chunks, strict=True))
    return sizes.get("Z", 1), sizes["Y"] * -(-ROWS // sizes["Y"]), sizes["X"]
