"""OME-Zarr 0.4, which is Zarr v2 with a file per chunk, for readers that know no later one."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from numcodecs import Blosc

from volseg import __version__
from volseg.engine.progress import Progress
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.in_place import tell_unlisted
from volseg.exchange.volumes.plan import ExportPlan
from volseg.exchange.volumes.resumed import Levels, write_levels
from volseg.geometry.grid import Block, whole_multiples
from volseg.storage.copies import ARRAY, ATTRIBUTES, GROUP, IS_GROUP, copying
from volseg.storage.files import write_file
from volseg.storage.ledger import Ledger
from volseg.storage.ome import ome_metadata
from volseg.storage.stores import describe_array, open_store
from volseg.storage.volumes import Image
from volseg.types import Zyx, zyx

OME_VERSION = "0.4"
CHUNK: Zyx = (64, 128, 128)
BLOCK: Zyx = (64, 512, 512)


@dataclass(frozen=True)
class CopyBlock:
    """Copy one block into an array of Zarr v2, whose metadata may be written later."""

    cut: Cut
    path: Path

    def __call__(self, block: Block) -> None:
        """Write one block, whole chunks."""
        store = open_store(self.path, read_only=False)
        metadata = json.loads(_describe_level(self.cut))
        array = zarr.Array(zarr.AsyncArray.from_dict(store, metadata))
        for box, piece in self.cut.pieces(block.core, CHUNK):
            array[box] = piece


def write_zarr(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[str, ...]:
    """Write all levels; a folder that is there stands until this one is complete.

    In a volume's own folder, what describes them is written when all are complete. Returns what
    the user should know.
    """
    described = json.dumps(_describe(plan, cut), indent=1).encode()

    def create(place: Path, number: int, copied: Cut) -> None:
        write_file(place / str(number) / ARRAY, _describe_level(copied))

    def begun(place: Path, number: int) -> bool:
        return (place / str(number) / ARRAY).exists()

    def finish(place: Path) -> None:
        write_file(place / ATTRIBUTES, described)
        write_file(place / GROUP, json.dumps(IS_GROUP).encode())

    def copy(copied: Cut, place: Path, number: int) -> CopyBlock:
        return CopyBlock(copied, place / str(number))

    block = whole_multiples(BLOCK, CHUNK)
    form = Levels(create, begun, copy, finish, block)
    if plan.options.in_place and plan.image is not None:
        form = _in_place(plan, plan.image, described, block)
    write_levels(plan, progress, form)
    return tell_unlisted(plan.volume, plan.options.what) if plan.options.in_place else ()


def _in_place(plan: ExportPlan, image: Image, described: bytes, block: Zyx) -> Levels:
    """Write into the folders of the arrays that are copied; `copying` writes metadata, last."""
    cuts = [plan.cut_of(level) for level in plan.levels]
    last = {cut.array.path / ARRAY: _describe_level(cut) for cut in cuts}
    last[image.path / ATTRIBUTES] = described

    def opened(header: dict[str, Any]) -> AbstractContextManager[tuple[Path, Ledger]]:
        return copying(plan.volume, image, header, last)

    return Levels(
        create=lambda *_: None,
        begun=lambda *_: True,  # a mark tells whether it is
        copy=lambda copied, *_: CopyBlock(copied, copied.array.path),
        finish=lambda _: None,
        block=block,
        opened=opened,
    )


def _describe_level(cut: Cut) -> bytes:
    """Describe an array of Zarr v2."""
    z, y, x = (min(c, n) for c, n in zip(CHUNK, cut.shape, strict=True))
    return describe_array(
        shape=cut.shape,
        dtype=cut.dtype,
        chunks=(z, y, x),
        compressors=Blosc("zstd", 5, Blosc.SHUFFLE),
        fill_value=0,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _describe(plan: ExportPlan, cut: Cut) -> dict[str, Any]:
    """Describe the levels as OME-Zarr 0.4 does; labels stand without an image, unless in place."""
    scales = [plan.cut_of(level).space.scale for level in plan.levels]
    # others reduce by numbers that are not whole, too; digits beyond those of sizes are noise
    factors = [
        zyx(round(a / b, 9) for a, b in zip(scale, cut.space.scale, strict=True))
        for scale in scales
    ]
    described = ome_metadata(plan.options.output.stem, factors, cut.space, label=cut.label)
    (multiscale,) = described["multiscales"]
    attributes: dict[str, Any] = {"multiscales": [{"version": OME_VERSION, **multiscale}]}
    source = {"source": {"image": "../../"}} if plan.options.in_place else {}
    if plan.options.in_place:
        above = len(plan.options.output.resolve().parts)
        for dataset, level in zip(multiscale["datasets"], plan.levels, strict=True):
            dataset["path"] = "/".join(plan.cut_of(level).array.path.parts[above:])
    if cut.label:
        attributes["image-label"] = {"version": OME_VERSION, **source}
    return attributes | {"_creator": {"name": "volseg", "version": __version__}}
