"""Precomputed volumes of neuroglancer, by tensorstore, with the table as properties of segments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.engine.progress import Progress
from volseg.errors import StorageError, require
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.exchange.volumes.resumed import Levels, write_levels
from volseg.geometry.grid import Block
from volseg.sources.labels import COMPONENTS
from volseg.storage.files import discard, write_file
from volseg.storage.remote import as_remote
from volseg.storage.stores import read_json
from volseg.storage.tables import read_columns, shown_type
from volseg.storage.targets import unfinished
from volseg.types import VoxelSize, Zyx

CHUNK = 64
BLOCK: Zyx = (64, 512, 512)
PROPERTIES = "segment_properties"


@dataclass(frozen=True)
class CopyBlock:
    """Copy one block into a scale of a precomputed volume.

    Attributes
    ----------
    place : folder of the volume.
    scale : number of the scale.
    """

    cut: Cut
    place: Path
    scale: int

    def __call__(self, block: Block) -> None:
        """Write one block, whole chunks."""
        remote = as_remote(self.place)
        kept, target = _open_scale(_described_in(self.place), self.scale, remote is not None)
        x, y, z, _ = target.domain.origin
        for box, piece in self.cut.pieces(block.core, (CHUNK,) * 3):
            at = [slice(s.start + o, s.stop + o) for s, o in zip(box, (z, y, x), strict=True)]
            try:
                target[at[2], at[1], at[0], 0].write(piece.transpose(2, 1, 0)).result()
            except ValueError as error:
                raise StorageError(
                    f"a chunk of {self.place} could not be written: is the disk full, or "
                    f"may nobody write there?"
                ) from error
            if remote is not None:
                for name in set(kept.list().result()) - {b"info"}:
                    (remote / name.decode()).write_bytes(kept[name])
                    del kept[name]


def _described_in(place: Path) -> Path:
    """Say where the file ``info`` lies while a volume is written: on this machine."""
    return place if as_remote(place) is None else unfinished(place).with_suffix("")


def _open_scale(folder: Path, scale: int, in_memory: bool) -> tuple[Any, Any]:
    """Open a scale to write, and for object storage in memory, from which chunks are sent."""
    import tensorstore

    context, kept = tensorstore.Context(), None
    store: dict[str, Any] = {"driver": "file", "path": f"{folder}/"}
    if in_memory:
        store = {"driver": "memory"}
        kept = tensorstore.KvStore.open(store, context=context).result()
        kept["info"] = (folder / "info").read_bytes()
    spec = {"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": scale}
    return kept, tensorstore.open(spec, context=context).result()


def write_precomputed(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[str, ...]:
    """Write all levels; a folder that is there stands until this one is complete."""
    require("tensorstore", "formats", "precomputed volumes need tensorstore")
    finest = (plan.image and plan.image.voxel_size) or cut.space.scale

    def create(place: Path, _: int, copied: Cut) -> None:
        _create_scale(_described_in(place), copied, _find_corner(copied, finest)[0])

    def begun(place: Path, number: int) -> bool:
        found = read_json(_described_in(place) / "info")
        return found is not None and len(found[0].get("scales", ())) > number

    def finish(place: Path) -> None:
        folder = _described_in(place)
        info = json.loads((folder / "info").read_text(encoding="utf-8"))
        if (described := _describe_segments(plan)) is not None:
            write_file(place / PROPERTIES / "info", json.dumps(described).encode())
            info[PROPERTIES] = PROPERTIES
        write_file(place / "info", json.dumps(info).encode())  # last: it makes this a volume
        if folder != place:
            discard(folder)

    write_levels(plan, progress, Levels(create, begun, CopyBlock, finish, BLOCK))
    exact = all(_find_corner(plan.cut_of(level), finest)[1] for level in plan.levels)
    off = "the volume's origin is no whole number of voxels, so scales lie up to half a voxel off"
    return () if exact else (off,)


def _find_corner(cut: Cut, finest: VoxelSize) -> tuple[Zyx, bool]:
    """Find the offset of a scale, and tell whether it lies where the voxels do.

    Offsets are whole voxels, and count from corners. volseg's origin is the middle of the first
    voxel of the finest level, which gets its corner at that place: a volume at 0 has the offset 0.
    """
    places = zip(cut.origin_nm, cut.space.voxel_size or (1.0, 1.0, 1.0), finest, strict=True)
    corners = [(o - s / 2 + f / 2) / s for o, s, f in places]
    z, y, x = (round(c) for c in corners)
    return (z, y, x), all(abs(o - c) < 1e-6 for o, c in zip((z, y, x), corners, strict=True))


def _create_scale(place: Path, cut: Cut, offset: Zyx) -> None:
    """Begin a scale."""
    import tensorstore

    place.mkdir(parents=True, exist_ok=True)
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{place}/"},
        "multiscale_metadata": {
            "type": "segmentation" if cut.label else "image",
            "data_type": cut.dtype.name,
            "num_channels": 1,
        },
        "scale_metadata": {
            "size": cut.shape[::-1],
            "resolution": (cut.space.voxel_size or (1.0, 1.0, 1.0))[::-1],
            "voxel_offset": offset[::-1],
            "chunk_size": [CHUNK] * 3,
            "encoding": "compressed_segmentation" if cut.label else "raw",
            **({"compressed_segmentation_block_size": [8, 8, 8]} if cut.label else {}),
        },
    }
    tensorstore.open(spec, create=True, open=True).result()


def _describe_segments(plan: ExportPlan) -> dict[str, Any] | None:
    """Describe the objects by their table, if `stats` made one."""
    if plan.table is None or plan.options.what != "labels":
        return None
    columns, units, notes = read_columns(plan.table)
    if notes.get("objects") == COMPONENTS:  # of a mask, which is one segment
        return None
    labels = columns.pop("label")
    inline = {
        "ids": [str(label) for label in labels.tolist()],
        "properties": [_property(name, column, units) for name, column in columns.items()],
    }
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def _property(name: str, column: Any, units: Mapping[str, str]) -> dict[str, Any]:
    """Describe a column as a number of each segment; JSON knows no NaN, which becomes -1."""
    kind = shown_type(given := np.asarray(column))
    values = given.astype(kind) if kind == "uint32" else np.nan_to_num(given.astype(kind), nan=-1.0)
    unit = units.get(name, "1")
    described = {"id": name, "type": "number", "data_type": kind, "values": values.tolist()}
    return described | ({} if unit == "1" else {"description": unit})
