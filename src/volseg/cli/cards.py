"""Cards of models, as people read them; ``--json`` prints all that they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from volseg.cli.wording import counted, scaled, voxels_of
from volseg.fields import plain
from volseg.types import extent

if TYPE_CHECKING:
    from volseg.storage.cards import Card

HASH = 64
"""Hexadecimal digits of the hashes that a card holds."""


def describe_briefly(card: Card) -> str:
    """Describe a model in a line, and list its scores indented below."""
    return "\n".join([_heading(card), *_scores(card)])


def describe_card(card: Card) -> str:
    """Describe a model to a person: terms first, then what it is worth, what it does, its training.

    Of the recipe, settings that are the default are left out, and so is what is empty; of
    statistics, only what they are of stands there.
    """
    training = dict(card.training)
    terms, recipe = training.pop("terms", None), training.pop("recipe", None)
    lines = [_heading(card), *([f"terms: {terms}"] if terms else []), "scores:", *_scores(card)]
    lines += [f"{name}: {words}" for name, words in _facts(card)]
    lines += ["training:", *_entries(plain(training), "  ")]
    if isinstance(recipe, Mapping) and (told := list(_entries(_chosen(recipe), "    "))):
        lines += ["  recipe, but for what is the default:", *told]
    return "\n".join([*lines, f"sha256: {card.sha256}"])


def _heading(card: Card) -> str:
    what = f"{card.architecture}, {scaled(card.parameters)} parameters"
    return f"{card.name}: {what}, {voxels_of(card.voxel_size)}"


def _scores(card: Card) -> list[str]:
    scores = [f"  {name}: {_words(value)}" for name, value in card.scores.items()]
    return scores or ["  nothing was measured"]


def _words(value: Any) -> str:
    """Write a score, or several.

    Examples
    --------
    >>> _words([0.91984, 0.95]), _words("a.zarr, held out")
    ('0.9198, 0.95', 'a.zarr, held out')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _facts(card: Card) -> Iterator[tuple[str, str]]:
    """Yield what a model does, and what is known of it, each with its name."""
    rules = [f"from a probability of {card.threshold:g} on"]
    if card.min_size:
        rules.append(f"of {counted(card.min_size, 'network voxel')} at least")
    if card.min_probability:
        least = f"of a mean probability of {card.min_probability:g} at least"
        beyond = f" or more than {counted(card.faint_size, 'network voxel')}"
        rules.append(f"{least}{beyond if card.faint_size else ''}")
    if card.median_nm:
        rules.append(f"of the median of slices {card.median_nm:g} nm apart")
    yield "objects", ", ".join(rules)
    if card.maps:
        names = (m.name if m.name == m.kind else f"{m.name} ({m.kind})" for m in card.maps)
        yield "maps", ", ".join(names)
    if card.splitting:
        yield "splitting", _words(card.splitting)
    look = plain(card.preprocessing)
    yield "intensities", _words({name: value for name, value in look.items() if value})
    yield "tile", f"{extent(card.tile)} network voxels, {extent(card.overlap)} of them shared"
    yield "likeness", _likeness(card.tissue)
    known = f"known for {counted(len(card.ranges), 'convolution')}"
    yield "ranges for int8", known if card.ranges else "not measured"


def _likeness(tissue: Mapping[str, Any]) -> str:
    """Say of what data the statistics are, and what precision was measured in tissue like them."""
    if not tissue:
        return "the card does not say what the training data look like"
    words = [f"compared with {tissue.get('places', '?')} places of the training data"]
    measured = tissue.get("precision")
    for name, ratios in (measured if isinstance(measured, Mapping) else {}).items():
        if isinstance(ratios, list | tuple) and len(ratios) == 2:
            low, high = map(_words, ratios)
            words.append(f"in what is {name}, precision is {low} to {high} of the mean probability")
    return "; ".join(words)


def _chosen(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a recipe what is the default."""
    from volseg.training.config import TrainConfig

    made = {f.name: f.default_factory() for f in fields(TrainConfig) if callable(f.default_factory)}
    return _without(recipe, plain(vars(TrainConfig) | made))


def _without(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        usual = default.get(name)
        if isinstance(value, Mapping) and isinstance(usual, Mapping):
            found[name] = _without(value, usual)
        elif name not in default or plain(value) != usual or name == "steps":
            found[name] = value
    return found


def _entries(entries: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Yield nested entries one a line; nothing that is empty, and no hash."""
    for name, value in _told(entries).items():
        if isinstance(value, Mapping) and name.isdigit():  # a volume of several
            yield f"{indent}{name}: {_words(_told(value))}"
        elif isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _entries(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_words(value)}"


def _told(entries: Mapping[str, Any]) -> dict[str, Any]:
    empty: tuple[Any, ...] = (None, "", [], {})
    return {k: v for k, v in entries.items() if v not in empty and not _is_hash(v)}


def _is_hash(value: Any) -> bool:
    digits = "0123456789abcdef"
    return isinstance(value, str) and len(value) == HASH and all(c in digits for c in value)
