"""Measure, compare and check what a volume holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from volseg.api.running import Place, engine_of, file_of, optional_place, place_of, shown
from volseg.defaults import BLOCK_TIMEOUT, IOU, MEASURE, NAME, SAMPLE, SURFACE

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.evaluate.run import Evaluation
    from volseg.stages.stats.plan import StatsOptions
    from volseg.stages.stats.run import VolumeStats
    from volseg.stages.verify.run import VerifyReport


def stats(
    volume: Place,
    *,
    name: str | None = None,
    labels: Place | None = None,
    output: Place | None = None,
    measure: Literal["full", "shapes", "basic"] = MEASURE,
    surface: Literal["crofton", "marching-cubes"] = SURFACE,
    centerline: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_config: Place | Mapping[str, Any] | None = None,
    block_timeout: float = BLOCK_TIMEOUT,
    progress: Progress | None = None,
) -> VolumeStats:
    """Count and measure the objects of a volume.

    Writes one row per object to ``tables/<name>.parquet`` in the volume, and one per slice to
    ``tables/<name>-slices.parquet``; ``docs/measurements.md`` explains the columns.

    Parameters
    ----------
    volume : path
    name : str, optional
        Name of the labels and of the tables; ``mitochondria``, or that of the file of ``labels``.
    labels : path, optional
        Labels to measure in place of the volume's, Zarr or TIFF.
    output : path, optional
        Also write the table of objects to this .csv or .parquet file.
    measure : str
        ``full``, ``shapes`` (no intensities) or ``basic`` (voxels, places and boxes).
    surface : str
        ``crofton`` or ``marching-cubes``.
    centerline : bool
        Also measure the centerline of each object.
    workers, scheduler, cluster, cluster_config, block_timeout
        Where blocks run; see ``docs/clusters.md``.
    progress : Progress, optional

    Raises
    ------
    InputError
        If there are no labels, or they do not fit the volume.
    BlockError
        If blocks could not be read.
    """
    (found,) = stats_of_all(
        [volume],
        output=output,
        progress=progress,
        name=name,
        labels=labels,
        measure=measure,
        surface=surface,
        centerline=centerline,
        workers=workers,
        scheduler=scheduler,
        cluster=cluster,
        cluster_config=cluster_config,
        block_timeout=block_timeout,
    )
    return found


def stats_of_all(
    volumes: Sequence[Place],
    *,
    output: Place | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[VolumeStats]:
    """Measure several volumes with the options of `stats`; write all objects into one table.

    Raises
    ------
    InputError
        As `stats` does, and if the volumes do not fit into one table, before any is measured.
    BlockError
        If blocks could not be read.
    """
    from volseg.errors import ParameterError
    from volseg.stages.stats.plan import check_one_table, plan_stats
    from volseg.stages.stats.run import stats as run
    from volseg.stages.stats.run import write_objects
    from volseg.storage.tables import check_table_path

    chosen, target = _stats_options(**options), optional_place(output)
    if chosen.labels is not None and len(volumes) > 1:
        raise ParameterError("--labels belongs to one volume; give one VOLUME")
    if target is not None:
        check_table_path(target)
    plans = [plan_stats(place_of(volume), chosen) for volume in volumes]
    if target is not None:
        check_one_table({plan.volume: plan.voxel_size for plan in plans})
    results = [run(plan, shown(progress)) for plan in plans]
    if target is not None:
        write_objects(results, target)
    return results


def _stats_options(
    name: str | None = None,
    labels: Place | None = None,
    measure: str = MEASURE,
    surface: str = SURFACE,
    centerline: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_config: Place | Mapping[str, Any] | None = None,
    block_timeout: float = BLOCK_TIMEOUT,
) -> StatsOptions:
    from volseg.stages.stats.plan import StatsOptions

    engine = engine_of(workers, scheduler, cluster, cluster_config, block_timeout)
    return StatsOptions(name, optional_place(labels), engine, measure, surface, centerline)


def evaluate(
    volume: Place,
    *,
    truth: Place,
    name: str = NAME,
    labels: Place | None = None,
    roi: str | None = None,
    mask: Place | None = None,
    iou: float = IOU,
    min_size: int | None = None,
    ignore_border: bool = False,
    instances: bool = False,
    output: Place | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_config: Place | Mapping[str, Any] | None = None,
    block_timeout: float = BLOCK_TIMEOUT,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare the objects of a volume with the truth.

    Parameters
    ----------
    volume : path
    truth : name or path
        Labels of that name in the volume, or Zarr or TIFF. The connected components of a mask are
        its objects.
    name : str
        Name of the prediction: labels, and probabilities if the volume has them.
    labels : path, optional
        Labels to evaluate in place of the volume's, Zarr or TIFF.
    roi : str, optional
        Region in voxels, ``z0:z1,y0:y1,x0:x1``.
    mask : name or path, optional
        Count only voxels that are above 0 here.
    iou : float
        Intersection over union from which objects match.
    min_size : int, optional
        Ignore smaller objects, in voxels, in truth and prediction; None takes the size below which
        objects were dropped when the labels were made.
    ignore_border : bool
        Count objects at the border neither as missed nor as false.
    instances : bool
        Take labels of one value as one object, not as a mask.
    output : path, optional
        Folder for evaluation.json, errors.parquet and curves.png.
    workers, scheduler, cluster, cluster_config, block_timeout
        Where blocks run; see ``docs/clusters.md``.
    progress : Progress, optional

    Raises
    ------
    InputError
        If something is missing or does not fit the volume.
    BlockError
        If blocks could not be read.
    """
    from volseg.stages.evaluate.plan import EvaluateOptions, plan_evaluation
    from volseg.stages.evaluate.run import evaluate as run

    if output is not None:
        check_output(output)
    options = EvaluateOptions(
        truth=str(truth),
        name=name,
        labels=optional_place(labels),
        roi=roi,
        mask=None if mask is None else str(mask),
        iou=iou,
        min_size=min_size,
        ignore_border=ignore_border,
        instances=instances,
        engine=engine_of(workers, scheduler, cluster, cluster_config, block_timeout),
    )
    result = run(plan_evaluation(place_of(volume), options), shown(progress))
    if output is not None:
        save_evaluation(result, output)
    return result


def check_output(folder: Place) -> None:
    """Check that an evaluation can be written to a folder.

    Raises
    ------
    ParameterError
        If it cannot.
    """
    from volseg.storage.tables import check_folder

    check_folder(file_of(folder))


def save_evaluation(result: Evaluation, folder: Place) -> list[Path]:
    """Write an evaluation to a folder: evaluation.json, errors.parquet, curves.png.

    Returns
    -------
    list of Path
        Files written; curves need matplotlib.

    Raises
    ------
    StorageError
        If a file cannot be written.
    """
    from volseg.fields import plain
    from volseg.stages.evaluate.output import write_results

    return write_results(result, plain(result), file_of(folder))


def verify(
    volume: Place,
    *,
    quick: bool = False,
    sample: int = SAMPLE,
    model: str | None = None,
    elsewhere: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: str | None = None,
    cluster_config: Place | Mapping[str, Any] | None = None,
    block_timeout: float = BLOCK_TIMEOUT,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check that a volume and its results are readable, complete and consistent.

    Reads everything, changes nothing. Damage is reported, not raised.

    Parameters
    ----------
    volume : path
    quick : bool
        Read everything, compare nothing.
    sample : int
        Blocks of each array of probabilities to predict again.
    model : str, optional
        Model for that, if it does not come with volseg.
    elsewhere : bool
        Allow for the rounding of the other machine that made the probabilities.
    workers, scheduler, cluster, cluster_config, block_timeout
        Where blocks run; see ``docs/clusters.md``.
    progress : Progress, optional

    Raises
    ------
    InputError
        If the volume cannot be opened, or ``model`` is not the one on record.
    """
    from volseg.stages.verify import run

    engine = engine_of(workers, scheduler, cluster, cluster_config, block_timeout)
    options = run.VerifyOptions(quick, sample, model, elsewhere, engine=engine)
    return run.verify(place_of(volume), options, shown(progress))
