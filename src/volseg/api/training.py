"""Train a network on volumes and their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from volseg.api.running import Place, file_of, place_of, shown
from volseg.defaults import DEVICE
from volseg.errors import ParameterError

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.train.regions import Pair
    from volseg.stages.train.run import TrainReport
    from volseg.types import VoxelSize, Zyx

Value = TypeVar("Value")
Named: TypeAlias = tuple[Place, Place]
"""A volume or stack, and its labels."""

RECIPE = (
    "architecture",
    "width",
    "loss",
    "patch",
    "batch",
    "steps",
    "minutes",
    "epochs",
    "patience",
    "optimizer",
    "schedule",
    "learning_rate",
    "fraction",
    "validate_every",
    "seed",
)
RUN = ("start", "voxel_size", "name", "terms")


def train(
    volumes: Place | Sequence[Place] = (),
    *,
    output: Place,
    labels: Place | Sequence[Place] = (),
    data: Sequence[Named] = (),
    validation_data: Sequence[Named] = (),
    config: Place | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    roi: str | Sequence[str] = (),
    validation: str | Sequence[str] = (),
    slices: Sequence[Sequence[int]] = (),
    images: bool = False,
    fraction: float | None = None,
    voxel_size: VoxelSize | None = None,
    name: str | None = None,
    architecture: str | None = None,
    width: int | None = None,
    start: str | None = None,
    loss: str | None = None,
    patch: Zyx | None = None,
    batch: int | None = None,
    gamma: float | None = None,
    equalise: bool = False,
    optimizer: str | None = None,
    schedule: str | None = None,
    learning_rate: float | None = None,
    validate_every: int | None = None,
    seed: int | None = None,
    terms: str | None = None,
    workers: int | None = None,
    device: str = DEVICE,
    overwrite: bool = False,
    on_row: Callable[[Mapping[str, float]], None] | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train a network on volumes and their labels; the same call resumes an interrupted run.

    What is None is decided by ``config``, or else by the network.

    Parameters
    ----------
    volumes, labels : path or several
        Volumes or stacks, and the labels of each: a name in the volume, Zarr or TIFF.
    output : path
        Folder for checkpoint, log and weights.
    data, validation_data : pairs of paths, optional
        Volumes and labels to train on; those that serve for validation alone.
    config : path, optional
        Recipe of a run, as TOML.
    steps, minutes, epochs : number, optional
        Length of the run: one of them.
    patience : int, optional
        Validations without a better one after which the run ends; 0 is never.
    roi, validation : text or several, optional
        Regions to train on and to hold out, ``z0:z1,y0:y1,x0:x1``, for all volumes or each.
    slices : sequences of integers, optional
        Annotated slices, for all volumes or each.
    images : bool
        Take slices as unrelated images.
    fraction : float, optional
        Part of the slices to train on.
    voxel_size : three floats, optional
        nm (z, y, x); overrides what the data say.
    name : str, optional
        Name of the weights.
    architecture, width, loss, patch, batch, optimizer, schedule, learning_rate, validate_every,
    seed
        Recipe, see `volseg.training.config.TrainConfig`.
    start : str, optional
        Weights to start from: shipped name or path.
    gamma, equalise
        Preprocessing of intensities.
    terms : str, optional
        Terms of the data, for the card of the weights.
    workers : int, optional
        Threads that draw patches.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    overwrite : bool
        Discard another run in the folder.
    on_row : callable, optional
        Receives every row of the log.
    progress : Progress, optional

    Raises
    ------
    InputError
        If data or options cannot be used, or the folder holds another run.
    TrainingError
        If the loss is not finite.
    """
    given = locals()
    from volseg.stages.train import run

    pairs, options = _plan(given)
    return run.train(pairs, options, shown(progress), on_row)


def _plan(given: Mapping[str, Any]) -> tuple[Sequence[Pair], Any]:
    from dataclasses import replace

    from volseg.stages.train.recipe import Recipe, build_config, load_recipe, override
    from volseg.stages.train.run import TrainOptions
    from volseg.voxels.intensity import Preprocessing

    config = given["config"]
    recipe = load_recipe(file_of(config)) if config else Recipe({}, {}, ())
    chosen = override(recipe.config, _told(given, RECIPE))
    if given["gamma"] is not None or given["equalise"]:
        known = chosen.get("preprocessing", Preprocessing())
        chosen["preprocessing"] = replace(
            known,
            gamma=given["gamma"] or known.gamma,
            equalise=given["equalise"] or known.equalise,
        )
    run = {**recipe.run, **_told(given, RUN)}
    options = TrainOptions(
        output=file_of(given["output"]),
        config=build_config(chosen, run.get("start")),
        device=given["device"],
        workers=given["workers"],
        overwrite=given["overwrite"],
        **run,
    )
    return pair_up(given) or recipe.pairs, options


def _told(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if given[name] is not None}


def pair_up(given: Mapping[str, Any]) -> list[Pair]:
    """Pair images and labels, and give each pair its regions.

    Raises
    ------
    ParameterError
        If they do not go together.
    """
    from volseg.stages.train.regions import Pair

    volumes, labels = several(given["volumes"]), several(given["labels"])
    if bool(volumes) != bool(labels):
        missing = "--labels" if volumes else "a VOLUME"
        raise ParameterError(f"images and labels come in pairs; {missing} is missing")
    found = one_each(labels, len(volumes), "--labels")
    named = [*zip(volumes, found, strict=True), *given["data"]]
    rois, validations, listed = (
        one_each(several(given[flag]), len(named), f"--{flag}")
        for flag in ("roi", "validation", "slices")
    )
    images = given["images"]
    pairs = [
        Pair(place_of(raw), str(label), roi, validation, None if z is None else tuple(z), images)
        for (raw, label), roi, validation, z in zip(named, rois, validations, listed, strict=True)
    ]
    held = [
        Pair(place_of(raw), str(label), images=images, held_out=True)
        for raw, label in given["validation_data"]
    ]
    return [*pairs, *held]


def several(given: Any) -> list[Any]:
    """List what is given once or several times.

    Examples
    --------
    >>> several("vol.zarr"), several(["a.zarr", "b.zarr"])
    (['vol.zarr'], ['a.zarr', 'b.zarr'])
    """
    return [given] if isinstance(given, str | PathLike) else list(given)


def one_each(values: Sequence[Value], count: int, flag: str) -> list[Value | None]:
    """Give each of several pairs its value: one for all, or one each, in the same order.

    Raises
    ------
    ParameterError
        If there are neither.

    Examples
    --------
    >>> one_each(["a"], 2, "--roi"), one_each([], 2, "--roi")
    (['a', 'a'], [None, None])
    """
    if len(values) not in {0, 1, count} or (values and not count):
        raise ParameterError(
            f"{flag} is given once for all {count} pairs of images and labels, or once for each, "
            f"found {len(values)}"
        )
    if len(values) == count:
        return list(values)
    return [values[0] if values else None for _ in range(count)]
