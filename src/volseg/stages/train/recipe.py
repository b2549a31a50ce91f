"""Recipes: read from a file, overridden, filled in by the network, and written beside weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from volseg import __version__
from volseg.errors import ParameterError, command
from volseg.fields import read_fields
from volseg.models.maps import MapSpec, asked_of, count_exclusive
from volseg.models.registry import find_architecture
from volseg.stages.train.regions import Pair
from volseg.stages.train.sources import folder_of_classes
from volseg.storage.cards import UNSTATED, load_card, shipped_models
from volseg.storage.locations import parse_location, parse_path
from volseg.storage.recipes import read_recipe, write_recipe
from volseg.training.annotation import parse_class
from volseg.training.augmentation import CALM
from volseg.training.config import LENGTHS, TrainConfig
from volseg.training.losses import EMNET
from volseg.types import VoxelSize

ARCHITECTURE = "emnet"
FINE_TUNING_RATE = 2e-4
"""Weights that are good already are moved with care, and their norms keep the statistics that they
learned to live with (decision 0034)."""
SLICES = {"patch": (1, 256, 256), "batch": 2, "width": 16, "learning_rate": 1e-3}
VOLUMES = {"patch": (32, 96, 96), "batch": 1, "width": 16, "learning_rate": 1e-3}
DEFAULTS: dict[str, dict[str, Any]] = {
    "emnet": {"width": 32, "learning_rate": 2e-3},
    "emnet-paper": {"width": 32, "learning_rate": 2e-3, "centerline_weight": 1.0},
    "emnet-single": {"width": 32, "learning_rate": 2e-3},
    "unet2d-valid": {"patch": (1, 316, 316)},
}
"""Settings that reach most in an hour on two cores; published widths are larger."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run that a recipe holds beside its `TrainConfig`.

    Attributes
    ----------
    start : shipped name or path of weights to start from; None for random weights.
    voxel_size : nm (z, y, x); overrides what the data say.
    name : of the exported weights; None takes the folder's.
    terms : under which the data may be used, for the card.
    """

    start: str | None = None
    voxel_size: VoxelSize | None = None
    name: str | None = None
    terms: str = UNSTATED


@dataclass(frozen=True)
class Recipe:
    """A recipe file."""

    config: Mapping[str, Any]
    run: Mapping[str, Any]
    pairs: tuple[Pair, ...]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file: tables ``[recipe]`` and ``[run]``, and a ``[[data]]`` for each pair."""
    content = read_recipe(path)
    unknown = sorted(set(content) - {"recipe", "run", "data"})
    if unknown:
        raise ParameterError(
            f"{path} has {', '.join(unknown)}; a recipe has the tables [recipe] and [run], and a "
            f"[[data]] for each pair of images and labels"
        )
    pairs = content.get("data", [])
    if not isinstance(pairs, list):
        raise ParameterError(f"{path} has one [data]; it is a list, written [[data]]")
    for entry in pairs:
        named = entry if isinstance(entry, dict) else {}
        missing = [name for name in ("raw", "labels") if name not in named]
        if missing:
            raise ParameterError(f"a [[data]] of {path} does not name its {' and '.join(missing)}")
    return Recipe(
        read_fields(TrainConfig, content.get("recipe", {}), "recipe"),
        read_fields(RunSettings, content.get("run", {}), "run"),
        tuple(_pair(entry) for entry in pairs),
    )


def _pair(entry: Any) -> Pair:
    named = read_fields(Pair, entry, "data")
    return Pair(**{**named, "raw": parse_location(str(entry["raw"]))})


def save_recipe(
    path: Path,
    config: TrainConfig,
    settings: RunSettings,
    pairs: Sequence[Pair],
    description: Sequence[Mapping[str, Any]],
) -> None:
    """Write a recipe from which a run can be repeated, with the fingerprints of its data.

    Links keep their names: what they lead to may have none that says what it is, nor a card.
    """
    data = []
    for pair, entry in zip(pairs, description, strict=True):
        noted = {
            "raw": str(pair.raw.absolute()),
            "labels": _find_from_anywhere(pair),
            "raw_fingerprint": entry["raw"],
            "labels_fingerprint": entry["labels hash"],
        }
        data.append({**asdict(pair), **noted})
    run = {f.name: getattr(settings, f.name) for f in fields(RunSettings)}
    if settings.start and settings.start not in shipped_models():
        run["start"] = str(parse_path(settings.start).absolute())
    named = [_name_class(text, pairs) for text in config.classes]
    comment = (
        f"volseg {__version__}: what this run was made with.\n"
        f"{command('train', '--config', path.name, '--output', 'FOLDER')} repeats it."
    )
    content = {"recipe": {**asdict(config), "classes": named}, "run": run, "data": data}
    write_recipe(path, content, comment)


def _find_from_anywhere(pair: Pair) -> str:
    """Name labels so that they are found from any folder; those in the volume keep their name."""
    if not pair.labels:
        return ""
    place = parse_location(pair.labels)
    named = place.name == pair.labels and (pair.raw / "labels" / place).exists()
    return pair.labels if named else str(place.absolute())


def _name_class(text: str, pairs: Sequence[Pair]) -> str:
    """Name the labels of a class likewise, unless they lie in a folder that the pair names."""
    name, _, place = parse_class(text)
    if place is None or any(folder_of_classes(pair) for pair in pairs):
        return text
    found = {_find_from_anywhere(replace(pair, labels=place)) for pair in pairs}
    return f"{name}={found.pop()}" if len(found) == 1 else text


def build_config(given: Mapping[str, Any], start: str | None = None) -> TrainConfig:
    """Build a recipe from the given values; the network decides the rest.

    Examples
    --------
    >>> config = build_config({"architecture": "unet2d", "steps": 10, "batch": 3})
    >>> config.patch, config.batch, config.loss
    ((1, 256, 256), 3, 'bce-dice')
    """
    known = dict(given)
    if start is not None:
        card = load_card(start)
        known = {
            "architecture": card.architecture,
            "width": card.width,
            "preprocessing": card.preprocessing,
            "learning_rate": FINE_TUNING_RATE,
            "freeze_norms_after": 0.0,
            "augmentation": CALM,
            **_same_maps(card.maps, known),
            **known,
        }
    name = known.setdefault("architecture", ARCHITECTURE)
    general = SLICES if find_architecture(name).dimensions == 2 else VOLUMES
    loss = EMNET if name.startswith(EMNET) else "bce-dice"
    return TrainConfig(**{**general, "loss": loss, **DEFAULTS.get(name, {}), **known})


def _same_maps(maps: Sequence[MapSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    """Learn the maps of the weights to start from, unless others are given."""
    if not maps or given.keys() & {"classes", "auxiliary"}:
        return {}
    return {
        "classes": tuple(m.name for m in maps if m.is_class),
        "auxiliary": asked_of(maps),
        "exclusive": count_exclusive(maps) > 0,
    }


def override(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Override a recipe by the given values; one length of the run replaces another.

    Examples
    --------
    >>> override({"steps": 100, "seed": 3}, {"minutes": 5})
    {'seed': 3, 'minutes': 5}
    """
    kept = dict(recipe)
    if any(name in given for name in LENGTHS):
        kept = {name: value for name, value in kept.items() if name not in LENGTHS}
    return {**kept, **given}
