"""Zarr arrays and OME-Zarr images of any layout as sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import Selection, Stack, choose_channel
from volseg.sources.voxel_size import StatedSize
from volseg.storage.volumes import open_image


def open_zarr(path: Path, selection: Selection, types: tuple[str, ...]) -> Stack:
    """Open the finest level of an image, or an array.

    Raises
    ------
    VolumeError
        If there is none that can be opened.
    SourceError
        If it is of a type that a volume cannot hold.
    """
    image = open_image(path)
    array = image.levels[0]
    if array.dtype.name not in types:
        raise SourceError(
            f"{path} holds {array.dtype}; expected {', '.join(types)}: write it again as one of "
            f"them"
        )
    choose_channel(1, selection.channel, str(path))

    def read_page(z: int, out: NDArray[Any]) -> None:
        out[...] = array[z : z + 1][0]

    stated = StatedSize(image.voxel_size or (None, None, None), "OME-Zarr metadata")
    return Stack(
        files=(path,),
        shape=array.shape,
        dtype=array.dtype,
        read_page=read_page,
        close=_nothing,
        stated=(stated,) if image.voxel_size else (),
        metadata={"format": "Zarr", "chunk": list(array.chunk)},
        array=array,
        space=image.space,
    )


def _nothing() -> None:
    """Close nothing: arrays hold no open file."""
