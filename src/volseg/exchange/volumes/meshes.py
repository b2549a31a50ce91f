"""Surfaces of objects, one at a time, of large ones from a coarser level."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np

from volseg.engine.progress import Progress
from volseg.errors import ConflictError, ParameterError, VolumeError, command, require
from volseg.exchange.volumes.cut import Cut, space_at
from volseg.exchange.volumes.mesh_files import LARGEST, WRITERS, Mesh
from volseg.exchange.volumes.plan import EACH, ExportPlan
from volseg.exchange.volumes.resumed import Pieces, beginning, keeping
from volseg.geometry.grid import coarsen, full_roi, intersect, roi_size
from volseg.measures.object_table import box_of_row
from volseg.measures.single_object import mesh
from volseg.sources.labels import COMPONENTS, open_label_path
from volseg.storage.ledger import read_header
from volseg.storage.tables import read_columns
from volseg.storage.targets import check_file, unfinished
from volseg.storage.volumes import Image
from volseg.types import Doubles, Roi, zyx

Tasks: TypeAlias = Mapping[int, Callable[[], Mesh | None]]
"""Makers of the mesh of each label, if it has a voxel."""
LARGEST_BOX = 1 << 25
"""Voxels of an object's box; of a larger one the mesh is made from a coarser level."""


@dataclass(frozen=True)
class Boxed:
    """An object, and its box in voxels of level 0."""

    label: int
    box: Roi


def write_meshes(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[int, tuple[str, ...]]:
    """Write the meshes of all objects, or of those that are asked for.

    Returns
    -------
    the number of meshes, and what the user should know
    """
    require("skimage", "measure", "meshes need scikit-image")
    image, options = plan.image, plan.options
    if image is None:
        raise ParameterError("meshes are of labels")
    chosen = [
        (found, choose_level(image, found.box, options.level))
        for found in find_objects(plan, image, cut)
    ]
    if options.output.suffix.lower() == ".ply" and any(o.label > LARGEST for o, _ in chosen):
        raise ParameterError(f"PLY holds labels up to {LARGEST}, and some are higher; write GLB")
    tasks: Tasks = {found.label: partial(make_mesh, image, found, n) for found, n in chosen}
    progress.start(len(chosen), "objects", "meshing")
    try:
        written = (_write_each if EACH in options.output.name else _write_one)(
            plan, tasks, progress
        )
    finally:
        progress.finish()
    return written, tuple(_notes_on(chosen, written, options.level))


def _write_each(plan: ExportPlan, tasks: Tasks, progress: Progress) -> int:
    """Write a file for each object; those that are on record are not made again."""
    output, places = plan.options.output, {n: _place(plan.options.output, n) for n in tasks}
    if read_header(unfinished(output)) is None:  # else it may have written what stands there
        for place in places.values():
            check_file(place, overwrite=plan.options.overwrite)
    with beginning(plan) as (ledger, _):
        done = {n for n, place in places.items() if str(n) in ledger.records and place.is_file()}
        left = {n: task for n, task in tasks.items() if n not in done}
        progress.advance(len(done))
        written = len(done)
        for mesh in _in_order(iter(left.values()), plan.options.engine.threads):
            progress.advance(1)
            if mesh is not None:
                WRITERS[output.suffix.lower()](places[mesh.label], iter([mesh]), _unit(plan))
                ledger.record(str(mesh.label))
                written += 1
    return written


def _write_one(plan: ExportPlan, tasks: Tasks, progress: Progress) -> int:
    """Write a file of all objects; meshes are kept beside it until it is written."""
    written = 0

    def meshes(pieces: Pieces) -> Iterator[Mesh]:
        nonlocal written
        for part in pieces:
            written += 1
            yield Mesh.from_bytes(part)

    with keeping(plan) as pieces:
        progress.advance(pieces.count)
        left = islice(tasks.values(), pieces.count, None)
        for mesh in _in_order(left, plan.options.engine.threads):
            pieces.add([] if mesh is None else [mesh.to_bytes()])
            progress.advance(1)
        output = plan.options.output
        WRITERS[output.suffix.lower()](output, meshes(pieces), _unit(plan))
    return written


def _unit(plan: ExportPlan) -> str:
    return "voxels" if plan.image is None or plan.image.voxel_size is None else "nm"


def _in_order(tasks: Iterator[Callable[[], Mesh | None]], workers: int) -> Iterator[Mesh | None]:
    """Run tasks side by side, and yield their results in order, no more of them than are of use."""
    with ThreadPoolExecutor(workers) as threads:
        waiting = deque(threads.submit(task) for task in islice(tasks, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(threads.submit(task) for task in islice(tasks, 1))


def _notes_on(chosen: list[tuple[Boxed, int]], written: int, finest: int) -> Iterator[str]:
    if large := sum(level > finest for _, level in chosen):
        yield f"{large} object(s) are very large, so their surface is that of a coarser level"
    if lost := len(chosen) - written:
        yield f"{lost} object(s) have no voxel at this level or in this region"


def _place(output: Path, label: int) -> Path:
    return output.with_name(output.name.replace(EACH, str(label)))


def find_objects(plan: ExportPlan, image: Image, cut: Cut) -> list[Boxed]:
    """List objects with their boxes, as `stats` found them."""
    again = command("stats", plan.volume, name=plan.options.name)
    if plan.table is None:
        raise VolumeError(f"meshes need the boxes of objects; run `{again}` first")
    columns, _, notes = read_columns(plan.table)
    if notes.get("labels") != open_label_path(image.path).identity:
        raise ConflictError(f"{plan.table} is of other labels than are there now; run `{again}`")
    if notes.get("objects") == COMPONENTS:
        make = command("label", plan.volume, "--probabilities", image.path, name="NAME")
        raise ParameterError(
            f"{image.path} is a mask, whose objects have no labels of their own; make some with "
            f"`{make}`"
        )
    wanted, region = set(plan.options.objects), _at_level_0(image, plan.options.level, cut.roi)
    unknown = wanted - set(columns["label"].tolist())
    if unknown:
        raise ParameterError(f"there is no object {min(unknown)} in {plan.table}")
    found = []
    for k, label in enumerate(columns["label"].tolist()):
        if wanted and label not in wanted:
            continue
        box = intersect(box_of_row(columns, k), region)
        if box is not None:
            found.append(Boxed(label, box))
    return found


def _at_level_0(image: Image, level: int, roi: Roi) -> Roi:
    shape, factors = image.levels[0].shape, image.factors[level]
    return zyx(
        slice(int(s.start * f), min(int(np.ceil(s.stop * f)), n))
        for s, f, n in zip(roi, factors, shape, strict=True)
    )


def choose_level(image: Image, box: Roi, finest: int) -> int:
    """Choose the finest level at which a box can be meshed in little memory."""
    last = len(image.levels) - 1
    levels = range(finest, last + 1)
    fitting = (k for k in levels if roi_size(coarsen(box, image.factors[k])) <= LARGEST_BOX)
    return next(fitting, last)


def make_mesh(image: Image, found: Boxed, level: int) -> Mesh | None:
    """Lay triangles around an object; None if it has no voxel at this level.

    Vertices are (x, y, z) in nm, or in voxels of level 0 where their size is unknown.
    """
    array = image.levels[level]
    box = intersect(coarsen(found.box, image.factors[level]), full_roi(array.shape))
    inside = None if box is None else array[box] == found.label
    if box is None or inside is None or not inside.any():
        return None
    vertices, faces = mesh(inside)
    size, origin = _nanometers(image, level)
    corner = origin + np.array([s.start for s in box]) * size
    return Mesh(found.label, (vertices * size)[:, ::-1], faces, corner[::-1])


def _nanometers(image: Image, level: int) -> tuple[Doubles, Doubles]:
    """Find the size of a level's voxels and the middle of the first, in nm or voxels of level 0."""
    space = space_at(image, level, full_roi(image.levels[level].shape))
    unit = np.divide(image.voxel_size or (1.0, 1.0, 1.0), image.space.scale)
    return np.multiply(space.scale, unit), np.multiply(space.origin, unit)
