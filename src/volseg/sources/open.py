"""Open a source of any form as one stack; tell a folder of slices from a folder of stacks."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import PREVIEW
from volseg.errors import SourceError, VolsegError, command, list_some
from volseg.sources.conversion import as_volume_type
from volseg.sources.formats.hdf5 import split_dataset
from volseg.sources.formats.zarr_source import open_zarr
from volseg.sources.names import sort_names
from volseg.sources.readers import find_folder, open_file
from volseg.sources.slices import list_images, list_sequence, list_within, open_sequence
from volseg.sources.stack import ACCEPTED_TYPES, WHOLE, Selection, Stack, read_box
from volseg.storage.attributes import read_notes, section
from volseg.storage.locations import parse_location
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr
from volseg.voxels.greys import count_meetings

LOOKED_AT, SIDE = 5, 1024
"""Slices, and pixels along each of their axes, by which labels are told from images."""


def open_stack(
    source: str | Path, selection: Selection = WHOLE, types: tuple[str, ...] = ACCEPTED_TYPES
) -> Stack:
    """Open a file of any kind, a folder or glob of files that are one stack, or Zarr.

    Parameters
    ----------
    types : names of types that are taken as they are; others are converted
    """
    stack = _open(parse_location(str(source)), selection)
    try:
        if stack.colours:
            stack.read_page(0, _room_for_page(stack))
        return as_volume_type(stack, types)
    except BaseException:
        stack.close()
        raise


def _room_for_page(stack: Stack) -> NDArray[Any]:
    """Allocate a page; its size stands in the file, which may be damaged."""
    _, y, x = stack.shape
    try:
        return np.empty((y, x), stack.dtype)
    except MemoryError as error:
        raise SourceError(
            f"{stack.files[0]}: a page of {x} x {y} {stack.dtype} does not fit in memory; use a "
            f"larger machine, or fetch the file again if it is smaller"
        ) from error


def _open(path: Path, selection: Selection) -> Stack:
    if as_remote(path) is not None or is_zarr(path):
        return open_zarr(path, selection)
    path, dataset = split_dataset(path)
    if path.is_file():
        return open_file(path, selection, dataset)
    if not path.exists() and not glob.has_magic(str(path)):
        raise SourceError(
            f"there is nothing at {path}; expected a stack, a folder or glob of slices (TIFF, PNG, "
            f"JPEG), or a Zarr image"
        )
    if path.is_dir() and not list_images(list(path.iterdir())):
        reader = find_folder(path)
        if reader is not None:
            return reader.open(path, selection)
    return open_sequence(list_sequence(path), selection, chosen=not path.is_dir())


@lru_cache(maxsize=4)
def reopen(path: Path, selection: Selection, types: tuple[str, ...], _stamp: str) -> Stack:
    """Open a stack once per process, and again when its stamp (`find_stamp`) is another."""
    return open_stack(path, selection, types)


@dataclass(frozen=True)
class Stacks:
    """Stacks of one source.

    Attributes
    ----------
    places : what `open_stack` takes, in natural order.
    folder : whether the source is a folder or glob of stacks, even if there is only one.
    left_out : what lies beside them, and holds labels or a mask.
    """

    places: tuple[str, ...]
    folder: bool
    left_out: tuple[str, ...] = ()


def list_stacks(source: str, selection: Selection = WHOLE) -> Stacks:
    """List the stacks of a source.

    A folder or glob of images is one stack if its first image has one page, else each image is a
    stack. A folder without images is a folder of stacks: of Zarr images, and of folders of slices.
    A volume that one of them was converted to is none, nor is what holds labels or a mask.

    Parameters
    ----------
    source : file, folder, glob, or Zarr image
    selection : of what each source holds
    """
    place = parse_location(source)
    if as_remote(place) is not None or is_zarr(place) or split_dataset(place)[0].is_file():
        return Stacks((source,), folder=False)
    found = list_within(place)
    images = list_images(found)
    if any(is_zarr(p) for p in found if p.is_dir()):  # what a preview drew beside it is no slice
        images = [p for p in images if not p.name.endswith(PREVIEW)]
    if images:
        pages, files = _look_into(images[0], selection)
        if pages == 1 or files > 1:
            return Stacks((source,), folder=False)
    if not images and place.is_dir() and find_folder(place) is not None:
        return Stacks((source,), folder=False)
    folders = [p for p in found if p.is_dir()]
    stacks = images + [p for p in folders if is_zarr(p) or list_images(list_within(p))]
    stacks = [p for p in stacks if not _is_volume_of(p, stacks)]
    if not stacks:
        list_sequence(place)  # raises, and names what was found
        raise SourceError(f"{source} holds no stack")
    places = list(map(str, sort_names(stacks)))
    labelled = [place for place in places if _holds_labels(place, selection)]
    if len(labelled) == len(places):
        raise SourceError(
            f"{source} holds no image, it seems, but labels or masks: {list_some(labelled, 5)}; to "
            f"segment one all the same, name it alone: `{command('run', labelled[0])}`"
        )
    kept = tuple(place for place in places if place not in labelled)
    return Stacks(kept, folder=True, left_out=tuple(labelled))


def _holds_labels(place: str, selection: Selection) -> bool:
    """Tell whether a stack holds labels or a mask for sure, by the middle of a few slices."""
    try:
        stack = open_stack(place, replace(selection, numbers=True))
    except VolsegError:  # whoever converts it says what is wrong
        return False
    depth, *sides = stack.shape
    count = min(LOOKED_AT, depth)
    y, x = (slice(max(n - SIDE, 0) // 2, min((n + SIDE) // 2, n)) for n in sides)
    try:
        firsts = [int((k + 0.5) * depth / count) for k in range(count)]
        planes = [read_box(stack, (slice(z, z + 1), y, x)) for z in firsts]
    except VolsegError:
        return False
    finally:
        stack.close()
    return count_meetings(np.concatenate(planes)).labelled


def name_volumes(places: Sequence[str]) -> list[str]:
    """Name a volume after each stack: its name without endings.

    Examples
    --------
    >>> name_volumes(["data/a.ome.tif", "data/b"])
    ['a.zarr', 'b.zarr']
    """
    names = [f"{_stem(parse_location(place).name)}.zarr" for place in places]
    for k, name in enumerate(names):
        if name in names[:k]:
            other = places[names.index(name)]
            raise SourceError(f"{other} and {places[k]} would both become {name}; rename one")
    return names


def anchor_of(source: str) -> Path:
    """Find the place beside which results lie: the source, a glob's folder, or this folder."""
    place = parse_location(source)
    if as_remote(place) is not None:
        return Path(place.name)
    place, _ = split_dataset(place)
    while glob.has_magic(str(place)) and not place.exists():
        place = place.parent
    return place if place.name else place.resolve()


def _stem(name: str) -> str:
    return Path(name).stem.removesuffix(".ome") if Path(name).suffix else name


def _is_volume_of(place: Path, stacks: Sequence[Path]) -> bool:
    """Tell whether one of several stacks was converted to this volume, beside it."""
    beside = [p for p in stacks if p != place and f"{_stem(p.name)}.zarr" == place.name]
    if not beside or not is_zarr(place):
        return False
    first = section(read_notes(place), "source").get("first", "")
    return any(p.name == first or (first and (p / first).exists()) for p in beside)


def _look_into(path: Path, selection: Selection) -> tuple[int, int]:
    """Count the pages of a stack, and its files."""
    stack = open_stack(path, selection)
    try:
        return stack.shape[0], len(stack.files)
    finally:
        stack.close()
