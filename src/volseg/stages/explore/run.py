"""Explore: what a volume looks like, how its slices are alike, and how large its objects are.

After C. Malec, "Segmenting Microscopy Images" (2019), exploratory analysis. Of any volume no more
is read than three planes of a coarse level, 27 boxes and one larger box of the finest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import NAME
from volseg.engine.progress import Job, Progress
from volseg.errors import ParameterError, VolumeError
from volseg.geometry.grid import describe, full_roi, intersect, roi_shape, roi_size
from volseg.measures.correlation import (
    ELASTIC,
    NOISE,
    Correlations,
    correlate_slices,
    decay_length,
    fisher_interval,
    independent_samples,
)
from volseg.measures.summary import summarise
from volseg.sources.labels import LabelSource, open_labels
from volseg.stages.explore.show import Exploration, draw_exploration
from volseg.stages.report.planes import frame_of, read_image
from volseg.storage.images import clear_padding, images_in, sizes_of
from volseg.storage.locations import check_writable, place_beside
from volseg.storage.plots import can_draw, check_picture
from volseg.storage.tables import read_measured
from volseg.storage.targets import check_file
from volseg.storage.volumes import Image, labels_path, open_image, volume_tone
from volseg.types import Roi, VoxelSize, Zyx, zyx
from volseg.voxels.apart import Apart
from volseg.voxels.intensity import Preprocessing, choose_preprocessing

AXES = "zyx"
SIDE = 640
"""Most pixels of a view."""
SAMPLE: Zyx = (64, 128, 128)
"""Of each of the boxes in which intensities are counted."""
WHOLE = 1 << 25
"""Voxels of a volume up to which all are counted."""
BOX = 384
"""Side of the box whose slices are correlated, at most."""
BINS = 256
ENDING = "-explore.png"


@dataclass(frozen=True)
class ExploreOptions:
    """Options of an exploration; see `volseg.api.looking.ExploreKeywords`."""

    name: str = NAME
    output: Path | None = None
    gamma: float | None = None
    equalise: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_picture(self.output, "the figure")


def explore(volume: Path, options: ExploreOptions, progress: Progress) -> dict[str, Any]:
    """Explore a volume, draw what is found, and return it, JSON-like; None is not known."""
    image, notes = open_image(volume), list[str]()
    figure = _figure_path(volume, options, notes)
    labels = None
    if labels_path(volume, options.name).exists():
        labels = open_labels(volume, options.name)
    else:
        notes.append(f"{volume} has no labels/{options.name}, so nothing is said of objects")
    region = full_roi(image.levels[0].shape) if labels is None else labels.region
    size = image.voxel_size
    with Job(progress, 4 if image.space.planar else 5, "steps", "exploring").shown():
        frame = frame_of(image, region, SIDE, (1, 1, 1))
        raw = read_image(image, frame)
        shown = None
        if labels is not None:
            found = open_image(labels_path(volume, options.name))
            shown = read_image(found, frame)
        progress.advance(1)
        counted = count_intensities(image, labels, region)
        progress.advance(1)
        box = _middle(_of_one_image(image, region))
        axes = AXES[1:] if image.space.planar else AXES  # images have no neighbours along z
        correlated = correlate_axes(image.levels[0][box], size, axes, progress)
    told = {
        "volume": str(volume),
        "name": options.name,
        "voxel_size": None if size is None else list(size),
        "views": {a: int(p[0]) for a, p in zip(AXES, frame.picks, strict=True)},
        "intensities": counted,
        "correlation": {"box": describe(box), "level": 0, **correlated},
        "objects": _describe_objects(image, options.name, labels, notes),
        "figure": None if figure is None else str(figure),
        "notes": notes,
    }
    if figure is not None:
        extent = [n * s for n, s in zip(roi_shape(region), size or (1, 1, 1), strict=True)]
        planes = [_seen(image, options, p[0]) for p in raw]
        seen = None if shown is None else [p[0] for p in shown]
        draw_exploration(figure, Exploration(planes, seen, extent, size is not None, told))
    return told


def _seen(image: Image, options: ExploreOptions, plane: NDArray[Any]) -> NDArray[Any]:
    """Show a view as a network sees it, if one is asked for."""
    if options.gamma is None and options.equalise is None:
        return plane
    look = choose_preprocessing(Preprocessing(), options.gamma, options.equalise)
    tone, alone = volume_tone(image, look), np.asarray(plane, image.levels[0].dtype)[None]
    if not look.apart:
        return np.asarray(tone(alone)[0])
    return np.asarray(Apart(look, alone, alone, tone)(alone, full_roi(alone.shape))[0])


def _figure_path(volume: Path, options: ExploreOptions, notes: list[str]) -> Path | None:
    if not can_draw():
        if options.output is not None:
            raise ParameterError("the figure needs matplotlib: pip install 'volseg[measure]'")
        notes.append("no figure without matplotlib: pip install 'volseg[measure]'")
        return None
    figure = options.output or place_beside(volume, ENDING)
    check_file(figure, overwrite=options.overwrite)
    check_writable(figure.resolve().parent)
    return figure


def _middle(region: Roi) -> Roi:
    """Cut the middle of a region, no longer than `BOX`."""
    return zyx(
        slice(first, first + n)
        for s, n in ((s, min(s.stop - s.start, BOX)) for s in region)
        for first in ((s.start + s.stop - n) // 2,)
    )


def _of_one_image(image: Image, region: Roi) -> Roi:
    """Take, of a region of unrelated images, what the middle one has of it."""
    if (sizes := images_in(image)) is None:
        return region
    middle = (region[0].start + region[0].stop) // 2
    height, width = sizes[middle]
    held = slice(middle, middle + 1), slice(0, height), slice(0, width)
    return intersect(region, held) or region


def choose_samples(region: Roi) -> list[Roi]:
    """Choose boxes, evenly spread over a region; all of it, if that is small.

    Examples
    --------
    >>> len(choose_samples((slice(0, 900), slice(0, 900), slice(0, 900))))
    27
    """
    if roi_size(region) <= WHOLE:
        return [region]
    sides: list[list[slice]] = []
    for s, n in zip(region, SAMPLE, strict=True):
        length = min(n, s.stop - s.start)
        room = s.stop - s.start - length
        starts = sorted({s.start + round(room * share) for share in (1 / 6, 1 / 2, 5 / 6)})
        sides.append([slice(start, start + length) for start in starts])
    return [(z, y, x) for z in sides[0] for y in sides[1] for x in sides[2]]


def count_intensities(image: Image, labels: LabelSource | None, region: Roi) -> dict[str, Any]:
    """Count intensities inside and outside of objects, in boxes spread over a region.

    What images were padded with is none of either.
    """
    boxes, raw = choose_samples(region), image.levels[0]
    inside: list[NDArray[Any]] = []
    outside: list[NDArray[Any]] = []
    for box in boxes:
        values = raw[box]
        known = np.isfinite(values)
        clear_padding(known, box, sizes_of(image))
        objects = np.zeros(values.shape, bool) if labels is None else labels[box] > 0
        inside.append(values[known & objects])
        outside.append(values[known & ~objects])
    parts = {"inside": np.concatenate(inside), "outside": np.concatenate(outside)}
    both = np.concatenate([*parts.values()])
    whole = {"boxes": [describe(b) for b in boxes], "voxels": int(both.size)}
    if not both.size:
        return {**whole, "edges": [], "saturated": None, "overlap": None}
    low, high = float(both.min()), float(both.max())
    step = 1 if raw.dtype.kind in "ui" and high - low < BINS else (high - low) / BINS or 1
    edges = np.arange(low - (step / 2 if step == 1 else 0), high + step, step)
    saturated = None
    if raw.dtype.kind in "ui":
        limits = np.iinfo(raw.dtype)
        saturated = [float((both == end).mean()) for end in (limits.min, limits.max)]
    shares = {n: np.histogram(v, edges)[0] / max(v.size, 1) for n, v in parts.items()}
    known = all(v.size for v in parts.values())
    return {
        **whole,
        "edges": edges.tolist(),
        **{n: _describe_part(parts[n], share) for n, share in shares.items()},
        "saturated": saturated,
        "overlap": float(np.minimum(*shares.values()).sum()) if known else None,
    }


def _describe_part(values: NDArray[Any], shares: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "voxels": int(values.size),
        "mean": float(values.mean(dtype=np.float64)) if values.size else None,
        "sd": float(values.std(dtype=np.float64)) if values.size else None,
        "shares": shares.tolist(),
    }


def correlate_axes(
    box: NDArray[Any], voxel_size: VoxelSize | None, axes: str, progress: Progress
) -> dict[str, Any]:
    """Correlate slices along some axes, with intervals from the independent parts of a slice."""
    found: dict[int, Correlations] = {}
    for axis in map(AXES.index, axes):
        found[axis] = correlate_slices(box, axis)
        progress.advance(1)
    lengths = {axis: decay_length(c.distances, c.plain) for axis, c in found.items()}
    described = {}
    for axis, this in found.items():
        others = [k for k in range(3) if k != axis]
        samples = independent_samples(
            [box.shape[k] for k in others], [lengths.get(k) for k in others]
        )
        low, high = fisher_interval(this.plain, samples)
        length = lengths[axis]
        described[AXES[axis]] = {
            "distance": this.distances.tolist(),
            "correlation": _numbers(this.plain),
            "low": _numbers(low),
            "high": _numbers(high),
            "flipped": _numbers(this.flipped),
            **{f"noise_{n:g}": _numbers(v) for n, v in zip(NOISE, this.noisy, strict=True)},
            **{f"elastic_{n:g}": _numbers(v) for n, v in zip(ELASTIC, this.distorted, strict=True)},
            "pixels": int(np.prod([box.shape[k] for k in others])),
            "independent": samples,
            "decay": length,
            "decay_nm": None if length is None or not voxel_size else length * voxel_size[axis],
        }
    return described


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def _describe_objects(
    image: Image, name: str, labels: LabelSource | None, notes: list[str]
) -> dict[str, Any] | None:
    """Read mean areas and volumes from the table of objects."""
    if labels is None:
        return None
    try:
        columns, _, _ = read_measured(image.path, name, labels.identity)
    except VolumeError as error:
        notes.append(str(error))
        return None
    size = image.voxel_size or labels.voxel_size
    row = summarise(columns, labels.region, size, images_in(image))
    if not row.objects:
        return {"objects": 0}
    area, volume_ = row.mean_profile_voxels, row.mean_voxels
    areas = {
        "objects": row.objects,
        "mean_area_voxels": area,
        "mean_area_nm2": row.mean_profile_nm2,
        "square_side_voxels": math.sqrt(area),
    }
    if row.images is not None:  # which are as thick as somebody says
        return areas
    return areas | {
        "mean_voxels": volume_,
        "mean_nm3": row.mean_nm3,
        "mean_um3": None if row.mean_nm3 is None else row.mean_nm3 / 1e9,
        "cube_side_voxels": volume_ ** (1 / 3),
    }
