"""Zarr arrays and OME-Zarr images of any layout as sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.sources.axes import choose_axes
from volseg.sources.stack import (
    Selection,
    Stack,
    check_series,
    choose_channel,
    choose_series,
    choose_time,
    close_nothing,
)
from volseg.sources.voxel_size import AxisSizes, StatedSize, said, tell_unitless
from volseg.storage.images import NamedImage, names_of, open_named, sizes_of
from volseg.storage.ome import Space
from volseg.storage.volumes import inner_images, open_image

METADATA = "OME-Zarr metadata"
UNKNOWN: AxisSizes = (None, None, None)


def open_zarr(path: Path, selection: Selection) -> Stack:
    """Open the finest level of an image, or an array; of bioformats2raw's images the chosen one."""
    given, path, noted = path, *_choose_inner(path, selection.series)
    if not noted:
        check_series(selection, str(path))
    named = open_named(path)
    if named is not None and (not named.plain or selection.axes is not None):
        return _open_named(given, path, named, noted, selection)
    image = open_image(path)
    array = image.levels[0]
    choose_channel(1, selection.channel, str(path))
    choose_time(1, selection.time, str(path))

    def read_page(z: int, out: NDArray[Any]) -> None:
        out[...] = array[z : z + 1][0]

    return Stack(
        files=(given,),
        shape=array.shape,
        dtype=array.dtype,
        read_page=read_page,
        close=close_nothing,
        stated=said(StatedSize(UNKNOWN if named is None else named.sizes, METADATA)),
        metadata={"format": "Zarr", "chunk": list(array.chunk), **noted},
        warnings=() if named is None else _tell_scale(path, named),
        array=array,
        space=image.space,
        sizes=sizes_of(image),
        names=names_of(image),
    )


def _open_named(
    given: Path, path: Path, image: NamedImage, noted: dict[str, str], selection: Selection
) -> Stack:
    """Open an image of channels, of times, or of axes in another order."""
    stored = image.array

    def read(at: tuple[slice | int, ...]) -> NDArray[Any]:
        return np.asarray(stored[at])

    array = choose_axes(str(path), read, stored.shape, image.axes, selection, stored.chunks)
    apart = selection.axes is None and image.space.planar
    return array.stack(
        given,
        np.dtype(stored.dtype),
        StatedSize(image.sizes, METADATA),
        image.axes,
        metadata={"format": "Zarr", "chunk": list(array.chunk), **noted},
        warnings=_tell_scale(path, image) if selection.axes is None else (),
        space=image.space if selection.axes is None else Space(),
        sizes=sizes_of(image) if apart else (),
        names=names_of(image) if apart else (),
    )


def _tell_scale(path: Path, image: NamedImage) -> tuple[str, ...]:
    """Say so where voxels have a scale that is in no unit of length."""
    if any(image.sizes) or image.space.scale == (1, 1, 1):
        return ()
    return (tell_unitless(path, image.space.scale, "a scale"),)


def _choose_inner(path: Path, series: int | None) -> tuple[Path, dict[str, str]]:
    """Choose one of the images in a group, if they lie in it; and note which."""
    inner = inner_images(path)
    if not inner:
        return path, {}
    named = f" ({path / inner[0]} to {inner[-1]})"
    chosen = inner[choose_series(len(inner), series, str(path), named)]
    return path / chosen, {"image": chosen}
