"""Make results: a volume of a stack, probabilities and objects of a volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

from volseg.api.running import Place, engine_of, place_of, shown
from volseg.defaults import (
    BLOCK_TIMEOUT,
    CONNECTIVITY,
    DEVICE,
    NAME,
    PRECISION,
    SPLIT,
    SPLIT_DEPTH,
)

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.convert.plan import ConvertReport
    from volseg.stages.estimate import SegmentEstimate
    from volseg.stages.label.report import LabelReport
    from volseg.stages.segment import SegmentPlan, SegmentReport
    from volseg.types import VoxelSize, Zyx

Split = Literal["none", "distance", "centerline", "kmeans"]
RULES = (
    "threshold",
    "seed_threshold",
    "connectivity",
    "min_size",
    "min_size_nm3",
    "min_probability",
    "fill_holes",
    "split",
    "split_depth",
)
ENGINE = ("workers", "scheduler", "cluster", "cluster_config", "block_timeout")


def convert(
    source: Place,
    volume: Place,
    *,
    voxel_size: VoxelSize | None = None,
    channel: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Convert a stack of images to an OME-Zarr volume.

    Parameters
    ----------
    source : path
        TIFF file, folder or glob of slices, or Zarr array or image, also by its URL.
    volume : path
        Folder to create.
    voxel_size : three floats, optional
        nm (z, y, x); overrides what the source says.
    channel : int, optional
        Channel of a colour source.
    workers : int, optional
        Threads that decode; one per core unless given.
    overwrite : bool
        Replace a volume that exists, once the new one is complete.
    dry_run : bool
        Read the source, write nothing.
    progress : Progress, optional
        Display of the progress; see `volseg.engine.progress.Progress`.

    Raises
    ------
    InputError
        If the source cannot be read as one stack, or the volume exists.
    StorageError
        If the volume cannot be written.
    """
    from volseg.stages.convert import plan, run

    options = plan.ConvertOptions(voxel_size, channel, workers, overwrite)
    with plan.plan_conversion(str(source), place_of(volume), options) as planned:
        return planned.report if dry_run else run.convert(planned, shown(progress))


def segment(
    volume: Place,
    *,
    model: str | None = None,
    tta: bool = False,
    rotations: bool = False,
    views: Literal["xy", "ortho"] | None = None,
    store_centerline: bool = False,
    threshold: float | None = None,
    seed_threshold: float | None = None,
    connectivity: int = CONNECTIVITY,
    min_size: int | None = None,
    min_size_nm3: float = 0,
    min_probability: float | None = None,
    fill_holes: bool = False,
    split: Split = SPLIT,
    split_depth: float = SPLIT_DEPTH,
    name: str = NAME,
    roi: str | None = None,
    device: str = DEVICE,
    precision: str = PRECISION,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_config: Place | Mapping[str, Any] | None = None,
    block_timeout: float = BLOCK_TIMEOUT,
    block: Zyx | None = None,
    tile: Zyx | None = None,
    overwrite: bool = False,
    repair: bool = False,
    on_note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> SegmentReport:
    """Predict the probabilities of a volume and find its objects.

    Writes ``probabilities/<name>`` and ``labels/<name>`` into the volume. The same call resumes an
    interrupted run.

    Parameters
    ----------
    volume : path
    model : str, optional
        Shipped model or path of a .safetensors file; chosen for the volume unless given.
    tta, rotations : bool
        Average over flips, and over quarter turns in (y, x).
    views : str, optional
        ``xy``, or ``ortho`` to average a 2D network over the slices along all three axes.
    store_centerline : bool
        Write ``probabilities/<name>-centerline`` as well.
    threshold, seed_threshold, connectivity, min_size, min_size_nm3, min_probability, fill_holes,
    split, split_depth
        Rules of objects, as `label` takes them.
    name : str
        Name of the result.
    roi : str, optional
        Region in voxels, ``z0:z1,y0:y1,x0:x1``.
    device, precision : str
        ``auto``, ``cpu`` or ``cuda``; ``auto``, ``float32`` or ``bfloat16``. Both are chosen once
        for all workers and recorded; see ``docs/command-line.md``.
    workers, scheduler, cluster, cluster_config, block_timeout
        Where blocks run; see ``docs/clusters.md``.
    block, tile : three integers, optional
        Voxels of a task; voxels that the network evaluates at once.
    overwrite : bool
        Replace a different result.
    repair : bool
        Find and replace what is damaged in a complete result.
    on_note : callable, optional
        Receives what should be known before the work begins, such as the choice of a model.
    progress : Progress, optional

    Raises
    ------
    InputError
        If something cannot be used, or a different result exists.
    BlockError
        If blocks failed.
    """
    given = locals()  # every option, by its name
    from volseg.stages import segment as stage

    plan = _plan(given)
    if on_note is not None:
        for note in plan.notes:
            on_note(note)
    return stage.segment(plan, shown(progress))


def estimate(volume: Place, **options: Any) -> SegmentEstimate:
    """Estimate the time, memory and disk that `segment` takes with these options; write nothing."""
    from volseg.stages import estimate as stage

    defaults = {n: p.default for n, p in signature(segment).parameters.items()}
    given = {**defaults, **options, "volume": volume}
    return stage.estimate(_plan(given))


def _plan(arguments: Mapping[str, Any]) -> SegmentPlan:
    """Plan what the arguments of `segment` ask for."""
    from volseg.stages.predict.network import PredictOptions
    from volseg.stages.segment import SegmentOptions, plan_segmentation

    given = {
        name: value for name, value in arguments.items() if name not in {"progress", "on_note"}
    }
    volume, repair = given.pop("volume"), given.pop("repair")
    rules = {name: given.pop(name) for name in RULES}
    engine = engine_of(**{name: given.pop(name) for name in ENGINE})
    options = SegmentOptions(PredictOptions(**given, engine=engine), repair=repair, **rules)
    return plan_segmentation(place_of(volume), options)


def label(
    volume: Place,
    *,
    threshold: float | None = None,
    seed_threshold: float | None = None,
    connectivity: int = CONNECTIVITY,
    min_size: int | None = None,
    min_size_nm3: float = 0,
    min_probability: float | None = None,
    fill_holes: bool = False,
    split: Split = SPLIT,
    split_depth: float = SPLIT_DEPTH,
    name: str = NAME,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_config: Place | Mapping[str, Any] | None = None,
    block_timeout: float = BLOCK_TIMEOUT,
    block: Zyx | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> LabelReport:
    """Find the objects in probabilities that `segment` wrote, by other rules.

    Writes ``labels/<name>`` into the volume.

    Parameters
    ----------
    volume : path
    threshold : float, optional
        Probability from which a voxel is foreground; the model's unless given.
    seed_threshold : float, optional
        Keep objects with a voxel of at least this probability.
    connectivity : 6, 18 or 26
        Neighbours that belong to one object: over faces, also edges, also corners.
    min_size, min_size_nm3 : number
        Drop smaller objects, in voxels or nm³; the larger of both counts. The model's unless given.
    min_probability : float, optional
        Drop objects whose mean probability is lower; the model's unless given.
    fill_holes : bool
        Add enclosed background to the object around it.
    split : str
        Separate touching objects: ``none``, ``distance``, ``centerline`` or ``kmeans``.
    split_depth : float
        With ``distance``: voxels by which a neck is thinner than what it joins.
    name : str
        Name of the probabilities and of the result.
    workers, scheduler, cluster, cluster_config, block_timeout
        Where blocks run; see ``docs/clusters.md``.
    block : three integers, optional
        Voxels of a task.
    overwrite : bool
        Replace a different result.
    progress : Progress, optional

    Raises
    ------
    InputError
        If the probabilities are missing or incomplete, or a different result exists.
    BlockError
        If blocks failed.
    """
    from volseg.stages.label import plan, run

    options = plan.LabelOptions(
        threshold=threshold,
        seed_threshold=seed_threshold,
        connectivity=connectivity,
        min_size=min_size,
        min_size_nm3=min_size_nm3,
        min_probability=min_probability,
        fill_holes=fill_holes,
        split=split,
        split_depth=split_depth,
        block=block,
        engine=engine_of(workers, scheduler, cluster, cluster_config, block_timeout),
        overwrite=overwrite,
    )
    return run.label(plan.plan_labels(place_of(volume), name, options), shown(progress))
