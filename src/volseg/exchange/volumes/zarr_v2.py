"""OME-Zarr 0.4, which is Zarr v2 with a file per chunk, for readers that know no later one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from numcodecs import Blosc

from volseg import __version__
from volseg.engine.progress import Progress
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.levels import Levels, write_levels
from volseg.exchange.volumes.plan import ExportPlan
from volseg.geometry.grid import Block, whole_multiples
from volseg.storage.ome import ome_metadata
from volseg.storage.stores import open_store
from volseg.types import VoxelSize, Zyx

OME_VERSION = "0.4"
CHUNK: Zyx = (64, 128, 128)
BLOCK: Zyx = (64, 512, 512)


@dataclass(frozen=True)
class CopyBlock:
    """Copy one block into an array of Zarr v2."""

    cut: Cut
    place: Path
    number: int

    def __call__(self, block: Block) -> None:
        """Write one block, whole chunks."""
        store = open_store(self.place / str(self.number), read_only=False)
        array = zarr.open_array(store, mode="r+", zarr_format=2)
        for box, piece in self.cut.pieces(block.core, CHUNK):
            array[box] = piece


def write_zarr(plan: ExportPlan, cut: Cut, progress: Progress) -> None:
    """Write all levels; a folder that is there stands until this one is complete.

    Raises
    ------
    BlockError
        If blocks failed.
    StorageError
        If it cannot be written.
    """

    def finish(place: Path) -> None:
        group = zarr.open_group(open_store(place, read_only=False), mode="a", zarr_format=2)
        group.attrs.put(_describe(plan, cut))

    def begun(place: Path, number: int) -> bool:
        return (place / str(number) / ".zarray").exists()

    form = Levels(_create, begun, CopyBlock, finish, whole_multiples(BLOCK, CHUNK))
    write_levels(plan, progress, form)


def _create(place: Path, number: int, cut: Cut) -> None:
    z, y, x = (min(c, n) for c, n in zip(CHUNK, cut.shape, strict=True))
    zarr.create_array(
        open_store(place / str(number), read_only=False),
        shape=cut.shape,
        dtype=cut.dtype,
        chunks=(z, y, x),
        compressors=Blosc("zstd", 5, Blosc.SHUFFLE),
        fill_value=0,
        zarr_format=2,
        overwrite=True,  # one that was begun and is not on record
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _describe(plan: ExportPlan, cut: Cut) -> dict[str, Any]:
    """Describe the levels as OME-Zarr 0.4 does; labels stand for themselves, without an image."""
    scales = [plan.cut_of(level).space.scale for level in plan.levels]
    factors = [_ratios(scale, cut.space.scale) for scale in scales]
    described = ome_metadata(plan.options.output.stem, factors, cut.space, label=cut.label)
    (multiscale,) = described["multiscales"]
    attributes: dict[str, Any] = {"multiscales": [{"version": OME_VERSION, **multiscale}]}
    if cut.label:
        attributes["image-label"] = {"version": OME_VERSION}
    return attributes | {"_creator": {"name": "volseg", "version": __version__}}


def _ratios(coarse: VoxelSize, fine: VoxelSize) -> tuple[float, float, float]:
    # others reduce by numbers that are not whole, too; digits beyond those of sizes are noise
    z, y, x = (round(a / b, 9) for a, b in zip(coarse, fine, strict=True))
    return z, y, x
