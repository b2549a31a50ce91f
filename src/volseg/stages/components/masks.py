"""Find the objects of a mask, which are its connected components, whatever command takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from volseg.defaults import CONNECTIVITY
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid, cut_blocks, full_roi
from volseg.objects.components import PLANAR, render
from volseg.objects.joining import label_type
from volseg.sources.labels import LabelSource
from volseg.stages.components.blocks import (
    Evidence,
    JoinBlock,
    LabelBlock,
    begin_at,
    number_components,
)
from volseg.storage.arrays import StoredArray, create_array, fit_spec
from volseg.storage.chunks import LZ4
from volseg.storage.scratch import ComponentStore
from volseg.types import Roi, Zyx

SLAB = 1 << 23
"""Voxels of a mask's pages that are read together."""


@dataclass(frozen=True)
class MaskObjects:
    """The numbered components of a mask; rendered anew for each block.

    Attributes
    ----------
    offsets : where the numbers of each block's components begin.
    """

    store: ComponentStore
    objects: int
    offsets: dict[Zyx, int]

    def __call__(self, block: Block) -> NDArray[Any]:
        """Write the labels of one block out."""
        components, start = self.store.load(block.index), self.offsets[block.index]
        numbers = self.store.load_numbers(start, start + len(components.sizes))
        return render(components, numbers, block.core)


def number_mask(
    mask: LabelSource,
    grid: Grid,
    region: Roi,
    store: ComponentStore,
    engine: EngineOptions,
    progress: Progress,
) -> MaskObjects:
    """Find the 26-connected components of a mask within a region; in images the 8-connected."""
    blocks, connectivity = cut_blocks(grid, region), _connectivity(mask)
    counts = {block.index: 0 for block in blocks}

    def on_found(block: Block, count: int) -> None:
        counts[block.index] = count

    job = Job(progress, len(blocks), "blocks", "finding the mask's objects")
    find = LabelBlock(mask, 1, connectivity, store)
    run_blocks(find, blocks, engine, on_result=on_found, progress=job)
    offsets, components = begin_at(counts)
    join = JoinBlock(grid, store, connectivity, Evidence(), region)
    numbering = number_components(join, offsets, components, engine)
    store.save_numbers(numbering.numbers)
    return MaskObjects(store, numbering.objects, offsets)


def _connectivity(mask: LabelSource) -> int:
    return PLANAR[CONNECTIVITY] if mask.apart else CONNECTIVITY


def _write_objects(objects: MaskObjects, array: StoredArray, block: Block) -> None:
    array.write(block.core, objects(block).astype(array.dtype, copy=False))


def store_objects(
    mask: LabelSource, folder: Path, engine: EngineOptions, progress: Progress
) -> tuple[LabelSource, int]:
    """Write the connected components of a mask as labels, into an empty folder for scratch.

    Those of unrelated images reach through none. Return the labels, and how many objects there are.
    """
    spec = fit_spec(mask.shape, "uint8")
    if mask.array is None:  # whole pages, as they are read
        _, y, x = mask.shape
        depth = min(max(SLAB // (y * x), 1), spec.chunk[0])
        spec = fit_spec(mask.shape, "uint8", (depth, *spec.chunk[1:]), (depth, y, x))
    grid = Grid(mask.shape, spec.shard)
    store = ComponentStore(folder / "components")
    found = number_mask(mask, grid, full_roi(mask.shape), store, engine, progress)
    dtype = label_type(found.objects).name
    array = create_array(folder / "objects", replace(spec, dtype=dtype, compression=LZ4))
    blocks = list(grid.blocks())
    job = Job(progress, len(blocks), "blocks", "writing the mask's objects")
    run_blocks(partial(_write_objects, found, array), blocks, engine, progress=job)
    return replace(mask, array=array, block=array.shard, apart=False), found.objects


def taken_as_mask(mask: LabelSource, objects: int) -> str:
    """Say that labels of one value were taken as a mask."""
    joined = _connectivity(mask)
    return (
        f"{mask.path} has one value only, so it is taken as a mask and its {objects} connected "
        f"components ({joined} neighbours) as objects; --instances takes them as one object"
    )
