"""Measure, compare and check what a volume holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Required, TypedDict, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Region, Results, Running, StatsKeywords, Threads
from volseg.api.running import (
    EACH,
    build,
    check_one_name,
    distinct_places,
    file_of,
    optional_place,
    place_of,
    shown,
    text_of,
)
from volseg.defaults import NAME
from volseg.errors import ParameterError
from volseg.fields import split_names

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.evaluate.run import Evaluation
    from volseg.stages.stats.run import VolumeStats
    from volseg.stages.verify.run import VerifyReport

NAMED: tuple[Literal["truth", "mask"], ...] = ("truth", "mask")
"""Options that are a name in the volume, or a path."""


@takes(StatsKeywords)
def stats(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[StatsKeywords]
) -> "VolumeStats":
    """Count and measure the objects of a volume.

    Writes one row per object to ``tables/<name>.parquet`` in the volume, and one per slice to
    ``tables/<name>-slices.parquet``; ``docs/measurements.md`` explains the columns.

    Raises
    ------
    InputError
        If there are no labels, or they do not fit the volume.
    BlockError
        If blocks could not be read.
    """
    check_one_name(options.get("name"), "stats")
    return stats_all([volume], progress=progress, **options)[0]


def stats_all(
    volumes: Sequence[Place],
    *,
    progress: "Progress | None" = None,
    **options: Unpack[StatsKeywords],
) -> "list[VolumeStats]":
    """Measure several results of several volumes with the options of `stats`.

    Parameters
    ----------
    volumes : paths
        All objects are written into one table, if an ``output`` is given.

    Raises
    ------
    InputError
        As `stats` does, and if the volumes do not fit into one table, before any is measured.
    BlockError
        If blocks could not be read.
    """
    from volseg.stages.stats import plan, run
    from volseg.storage.tables import check_table_path

    labels = optional_place(options.pop("labels", None))
    target = optional_place(options.pop("output", None))
    given = options.pop("name", None)
    names = (None,) if given is None else split_names(given)
    touched = options.pop("contacts", None)
    chosen = [
        build(
            plan.StatsOptions,
            options,
            labels=labels,
            name=name,
            contacts=None if len(names) > 1 and name == touched else touched,
        )
        for name in names
    ]
    if len(names) > 1 and (labels is not None or target is not None):
        raise ParameterError("several --name have tables of their own; leave --output and --labels")
    if labels is not None and len(volumes) > 1:
        raise ParameterError("--labels belongs to one volume; give one VOLUME")
    if target is not None:
        check_table_path(target)
    places = distinct_places(volumes)
    plans = [plan.plan_stats(volume, each) for volume in places for each in chosen]
    if target is not None:
        plan.check_one_table({planned.volume: planned.voxel_size for planned in plans})
    results = [run.stats(planned, shown(progress)) for planned in plans]
    if target is not None:
        run.write_objects(results, target)
    return results


@described
class Matching(TypedDict, total=False):
    """Comparison of objects.

    iou : Match objects of at least this intersection over union.
    min_size : Ignore smaller objects, in voxels, in truth and prediction.  [default: the --min-size
        that the labels were made with]
    tolerance : Also measure how far the surfaces of truth and prediction lie apart, and the F1 of
        boundaries at this distance in nm (in voxels where their size is unknown).
    ignore_border : Count objects at the border of the region neither as missed nor as false.
    instances : Take labels of one value as one object, not as a mask.
    images : Take slices as unrelated images, and score each by itself too; volumes that
        `volseg convert --images` made need no saying.
    """

    iou: float
    min_size: int | None
    tolerance: float | None
    ignore_border: bool
    instances: bool
    images: bool


class CompareArraysKeywords(Matching, Threads, total=False):
    """Options of `compare_arrays`."""


@described
class EvaluateKeywords(Results, Region, Matching, Running, total=False):
    """Options of `evaluate`.

    truth : Compare with labels of this name in VOLUME, or with a Zarr array, image or label TIFF.
        The objects of a mask are its connected components. {name} stands for each of several
        --name, here and in --mask.
    labels : Evaluate these labels, Zarr or TIFF, instead of VOLUME/labels/NAME.
    axes : Name the axes of --truth, --labels and --mask that are files, slowest first, such as YXZ,
        where these do not say.
    foreground : Take this value of the truth as foreground, such as 0 for membranes.  [default: all
        above 0]
    mask : Count only voxels above 0 in these labels, a name or a path.
    output : Write evaluation.json, errors.parquet and curves.png to this folder, of several --name
        to a folder in it for each.
    """

    truth: Required[Place]
    labels: Place | None
    axes: str | None
    foreground: int | None
    mask: Place | None
    output: Place | None


@takes(EvaluateKeywords)
def evaluate(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[EvaluateKeywords]
) -> "Evaluation":
    """Compare the objects of a volume with the truth.

    Raises
    ------
    InputError
        If something is missing or does not fit the volume.
    BlockError
        If blocks could not be read.
    """
    check_one_name(options.get("name"), "evaluate")
    return evaluate_all(volume, progress=progress, **options)[0]


def evaluate_all(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[EvaluateKeywords]
) -> "list[Evaluation]":
    """Compare several results of a volume with the truth, with the options of `evaluate`.

    Raises
    ------
    InputError
        As `evaluate` does, before anything is compared.
    BlockError
        If blocks could not be read.
    """
    from volseg.stages.evaluate import plan, run

    output, labels = options.pop("output", None), optional_place(options.pop("labels", None))
    if output is not None:
        check_output(output)
    names = split_names(options.pop("name", NAME))
    if len(names) > 1 and labels is not None:
        raise ParameterError("--labels are one result; give one --name")
    if len(names) > 1 and EACH not in str(options["truth"]):
        raise ParameterError(
            f"several --name have truths of their own; write {EACH} in --truth for each"
        )
    named = {key: text_of(place) for key in NAMED if (place := options.get(key)) is not None}
    plans = []
    for name in names:
        places = {key: place.replace(EACH, name) for key, place in named.items()}
        chosen = build(plan.EvaluateOptions, options, labels=labels, name=name, **places)
        plans.append(plan.plan_evaluation(place_of(volume), chosen))
    results = [run.evaluate(planned, shown(progress)) for planned in plans]
    if output is not None:
        save_evaluations(results, output)
    return results


def check_output(folder: Place) -> None:
    """Check that an evaluation can be written to a folder."""
    from volseg.stages.evaluate.output import check_folder

    check_folder(file_of(folder))


def save_evaluations(results: "Sequence[Evaluation]", folder: Place) -> list[Path]:
    """Write an evaluation to a folder: evaluation.json, errors.parquet, curves.png.

    Each of several goes to a folder in it, of the name of what was evaluated.

    Returns
    -------
    list of Path
        Files written; curves need matplotlib.
    """
    from volseg.stages.evaluate.output import write_results

    place, several = file_of(folder), len(results) > 1
    written = [
        write_results(each, place / each.prediction.name if several else place) for each in results
    ]
    return [path for paths in written for path in paths]


@described
class VerifyKeywords(Running, total=False):
    """Options of `verify`.

    quick : Read everything, compare nothing.
    sample : Predict N blocks of each array of probabilities again.
    model : Use this model, if it is not a shipped one.
    elsewhere : Allow for the rounding of another machine that made the probabilities.
    """

    quick: bool
    sample: int
    model: str | None
    elsewhere: bool


@takes(VerifyKeywords)
def verify(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[VerifyKeywords]
) -> "VerifyReport":
    """Check that a volume and its results are readable, complete and consistent.

    Reads everything, changes nothing. Damage is reported, not raised.

    Raises
    ------
    InputError
        If the volume cannot be opened, or ``model`` is not the one on record.
    """
    from volseg.stages.verify import run

    return run.verify(place_of(volume), build(run.VerifyOptions, options), shown(progress))
