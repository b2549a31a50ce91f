"""Precomputed volumes of neuroglancer, by tensorstore, with the table as properties of segments."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, StorageError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.geometry.grid import Block, Grid
from volseg.sources.labels import COMPONENTS
from volseg.storage.tables import read_columns
from volseg.storage.targets import replacing
from volseg.types import VoxelSize, Zyx

CHUNK = 64
BLOCK: Zyx = (64, 512, 512)
PROPERTIES = "segment_properties"


@dataclass(frozen=True)
class CopyBlock:
    """Copy one block into a scale of a precomputed volume.

    Attributes
    ----------
    cut : voxels.
    place : folder of the volume.
    scale : number of the scale.
    """

    cut: Cut
    place: Path
    scale: int

    def __call__(self, block: Block) -> None:
        """Write one block, whole chunks."""
        target = _open_scale(str(self.place), self.scale)
        x, y, z, _ = target.domain.origin
        for box, piece in self.cut.pieces(block.core, (CHUNK,) * 3):
            at = [slice(s.start + o, s.stop + o) for s, o in zip(box, (z, y, x), strict=True)]
            try:
                target[at[2], at[1], at[0], 0].write(piece.transpose(2, 1, 0)).result()
            except ValueError as error:
                kind = str(error).partition(":")[0].replace("_", " ").lower()
                raise StorageError(f"tensorstore could not write a chunk: {kind}") from error


@lru_cache(maxsize=16)
def _open_scale(place: str, scale: int) -> Any:
    import tensorstore

    return tensorstore.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": place},
            "scale_index": scale,
        }
    ).result()


def write_precomputed(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[str, ...]:
    """Write all levels; a folder that is there stands until this one is complete.

    Returns
    -------
    what the user should know

    Raises
    ------
    ParameterError
        If tensorstore is not installed.
    BlockError
        If blocks failed.
    StorageError
        If it cannot be written.
    """
    try:
        import tensorstore  # noqa: F401 - only to see that it is there
    except ImportError as error:
        raise ParameterError(
            "precomputed volumes need tensorstore: pip install 'volseg[formats]'"
        ) from error
    options, exact = plan.options, True
    finest = (plan.image and plan.image.voxel_size) or cut.space.scale
    with replacing(options.output, overwrite=options.overwrite) as place:
        for number, level in enumerate(plan.levels):
            copied = plan.cut_of(level)
            exact &= _create_scale(place, copied, finest)
            title = f"writing scale {number}"
            job = Job(progress, math.prod(copied.shape), "voxels", title, size=core_voxels)
            task = CopyBlock(copied, place, number)
            grid = Grid(copied.shape, BLOCK)
            run_blocks(task, grid.blocks(), options.engine, progress=job)
        _describe_segments(plan, place)
        _open_scale.cache_clear()
        if hasattr(os, "sync"):  # before it takes the place of another
            os.sync()
    off = "the volume's origin is no whole number of voxels, so scales lie up to half a voxel off"
    return () if exact else (off,)


def _create_scale(place: Path, cut: Cut, finest: VoxelSize) -> bool:
    """Begin a scale, and tell whether it lies where the voxels do.

    Offsets are whole voxels, and count from corners. volseg's origin is the middle of the first
    voxel of the finest level, which gets its corner at that place: a volume at 0 has the offset 0.
    """
    import tensorstore

    size, shape = cut.space.voxel_size or (1.0, 1.0, 1.0), cut.shape
    places = zip(cut.origin_nm, size, finest, strict=True)
    corners = [(o - s / 2 + f / 2) / s for o, s, f in places]
    offsets = [round(c) for c in corners]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(place)},
        "multiscale_metadata": {
            "type": "segmentation" if cut.label else "image",
            "data_type": cut.dtype.name,
            "num_channels": 1,
        },
        "scale_metadata": {
            "size": shape[::-1],
            "resolution": size[::-1],
            "voxel_offset": offsets[::-1],
            "chunk_size": [CHUNK] * 3,
            "encoding": "compressed_segmentation" if cut.label else "raw",
            **({"compressed_segmentation_block_size": [8, 8, 8]} if cut.label else {}),
        },
    }
    tensorstore.open(spec, create=True, open=False).result()
    return all(abs(o - c) < 1e-6 for o, c in zip(offsets, corners, strict=True))


def _describe_segments(plan: ExportPlan, place: Path) -> None:
    """Write the table of objects beside their labels, if `stats` made one."""
    if plan.table is None or plan.options.what != "labels":
        return
    columns, units, notes = read_columns(plan.table)
    if notes.get("objects") == COMPONENTS:  # of a mask, which is one segment
        return
    labels = columns.pop("label")
    inline = {
        "ids": [str(label) for label in labels.tolist()],
        "properties": [_property(name, column, units) for name, column in columns.items()],
    }
    folder = place / PROPERTIES
    folder.mkdir()
    content = {"@type": "neuroglancer_segment_properties", "inline": inline}
    (folder / "info").write_text(json.dumps(content), encoding="utf-8")
    info = json.loads((place / "info").read_text(encoding="utf-8"))
    (place / "info").write_text(json.dumps({**info, PROPERTIES: PROPERTIES}), encoding="utf-8")


def _property(name: str, column: Any, units: Mapping[str, str]) -> dict[str, Any]:
    """Describe a column as a number of each segment; JSON knows no NaN, which becomes -1."""
    values = np.nan_to_num(np.asarray(column, np.float32), nan=-1.0)
    unit = units.get(name, "1")
    described = {"id": name, "type": "number", "data_type": "float32", "values": values.tolist()}
    return described | ({} if unit == "1" else {"description": unit})
