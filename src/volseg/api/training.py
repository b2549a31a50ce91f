"""Train a network on volumes and their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from volseg.api.keywords import takes
from volseg.api.options import Place
from volseg.api.running import divide, file_of, place_of, several, several_texts, shown, text_of
from volseg.api.train_options import Card, Data, Intensities, Learning, Length, TrainKeywords
from volseg.errors import ParameterError

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.train.regions import Pair
    from volseg.stages.train.run import TrainOptions, TrainReport

REGIONS: tuple[Literal["roi", "validation"], ...] = ("roi", "validation")
Value = TypeVar("Value")


@takes(TrainKeywords)
def train(
    volumes: Place | Sequence[Place] = (),
    *,
    on_row: Callable[[Mapping[str, float]], None] | None = None,
    progress: Progress | None = None,
    **options: Unpack[TrainKeywords],
) -> TrainReport:
    """Train a network on volumes and their labels; the same call resumes an interrupted run.

    What is None is decided by ``config``, or else by the network.

    Parameters
    ----------
    volumes : path or several
        Volumes or stacks, each of which has ``labels``.
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
    from volseg.stages.train import run

    pairs, chosen = _plan(volumes, options)
    return run.train(pairs, chosen, shown(progress), on_row)


def _plan(
    volumes: Place | Sequence[Place], options: TrainKeywords
) -> tuple[Sequence[Pair], TrainOptions]:
    from volseg.stages.train.recipe import Recipe, build_config, load_recipe, override
    from volseg.stages.train.run import TrainOptions

    given: dict[str, Any] = {n: value for n, value in options.items() if value is not None}
    data, given = divide(given, Data)
    config, given = divide(given, Length, Learning)
    tones, given = divide(given, Intensities)
    card, given = divide(given, Card)
    for name in ("classes", "auxiliary"):
        config |= {name: tuple(several(config[name]))} if name in config else {}
    path = given.pop("config", None)
    recipe = Recipe({}, {}, ()) if path is None else load_recipe(file_of(path))
    settings = {**recipe.run, **card}
    chosen = _with_tones(override(recipe.config, config), **tones)
    given["output"] = file_of(given["output"])
    if not several(data.get("labels", ())) and several(volumes) and chosen.get("classes"):
        data["labels"] = ""  # each class names its own
    _check_used(volumes, data)
    planned = TrainOptions(config=build_config(chosen, settings.get("start")), **settings, **given)
    return pair_up(volumes, **data) or recipe.pairs, planned


def _check_used(volumes: Place | Sequence[Place], data: Mapping[str, Any]) -> None:
    """Refuse options of data that are named elsewhere: those of a recipe keep what it says."""
    if several(volumes) or data.get("data"):
        return
    lists = (list, tuple, str)
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in data.items()
        if name != "labels" and value is not False and not (isinstance(value, lists) and not value)
    ]
    if given:
        raise ParameterError(
            f"{' and '.join(given)} without a VOLUME: name VOLUME and --labels, or --data; data "
            f"that a recipe names keep what it says of them"
        )


def _with_tones(
    config: dict[str, Any], gamma: float | None = None, equalise: str | None = None
) -> dict[str, Any]:
    """Change what a recipe does to intensities."""
    from volseg.voxels.intensity import Preprocessing, choose_preprocessing

    known = config.get("preprocessing", Preprocessing())
    changed = choose_preprocessing(known, gamma, equalise)
    given = gamma is not None or equalise is not None
    return {**config, "preprocessing": changed} if given else config


def pair_up(volumes: Place | Sequence[Place], **options: Unpack[Data]) -> list[Pair]:
    """Pair images and labels, and give each pair its regions."""
    from volseg.stages.train.regions import Pair

    named, labels = several(volumes), several_texts(options.get("labels", ()))
    if bool(named) != bool(labels):
        missing = "--labels" if named else "a VOLUME"
        raise ParameterError(f"images and labels come in pairs; {missing} is missing")
    found = one_each(labels, len(named), "--labels")
    both = [*zip(named, found, strict=True), *options.get("data", ())]
    rois, validations = (
        one_each(several(options.get(name, ())), len(both), f"--{name}") for name in REGIONS
    )
    listed = [*options.get("slices", ())]
    flat = any(isinstance(z, int | Integral) for z in listed)
    slices = one_each([listed] if flat else listed, len(both), "--slices")
    read = partial(
        Pair,
        images=options.get("images", False),
        foreground=options.get("foreground"),
        axes=options.get("axes"),
    )
    pairs = [
        read(
            place_of(raw),
            "" if label is None else text_of(label),
            roi,
            validation,
            None if z is None else tuple(map(int, z)),
        )
        for (raw, label), roi, validation, z in zip(both, rois, validations, slices, strict=True)
    ]
    held = options.get("validation_data", ())
    return [*pairs, *(read(place_of(raw), text_of(label), held_out=True) for raw, label in held)]


def one_each(values: Sequence[Value], count: int, flag: str) -> list[Value | None]:
    """Give each of several pairs its value: one for all, or one each, in the same order.

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
