"""Say in words how a result that stands differs from the one that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from volseg.errors import list_slices
from volseg.types import extent, probability_of

HASH = re.compile("[0-9a-f]{64}")
Phrase = tuple[str, Callable[[Any], str]]
"""A preposition, and how a value is put in words."""

IMPLIED = ("lattice", "level", "tone")
"""Parameters that follow from the network, so that they say nothing more where that differs."""


def tell_apart(theirs: Any, ours: Mapping[str, Any], models: tuple[str, str]) -> str:
    """Say how a result was made, and what is asked for in its place.

    Parameters
    ----------
    theirs, ours : headers of both runs
    models : names of the networks of both; empty where they are not known

    Examples
    --------
    >>> before = {"model": "ab12", "averaged": [False, False, "ortho"], "precision": "float32"}
    >>> after = {"model": "cd34", "averaged": [False, False, "xy"], "precision": "float32"}
    >>> tell_apart(before, after, ("unet2d", "emnet"))
    'was made with unet2d along three axes; you ask for emnet'
    >>> tell_apart({"threshold_of_255": 128}, {"threshold_of_255": 153}, ("", ""))
    'was made with a threshold of 0.5; you ask for a threshold of 0.6'
    """
    if not isinstance(theirs, Mapping):
        return "is there, and no record says how it was made"
    if "imported" in theirs or "imported" in ours:
        before, after = map(_origin, (theirs, ours), models)
        return f"was {before}; you ask for what is {after}"
    keys = [k for k in {**theirs, **ours} if theirs.get(k) != ours.get(k)]
    pairs: list[tuple[str, str, str]] = []
    if "zoom" in keys:
        keys = [k for k in keys if k not in IMPLIED]
    if {"model", "averaged"} & set(keys):
        keys = [k for k in keys if k not in {"model", "averaged", *IMPLIED}]
        pairs.append(("with", *_networks(theirs, ours, models)))
    if "faint_size" in keys:  # it says nothing without the mean that is asked for up to it
        keys = [k for k in keys if k not in {"min_probability", "faint_size"}]
        pairs.append(("with", _lowest_mean(theirs), _lowest_mean(ours)))
    pairs += [_pair(key, theirs.get(key), ours.get(key), models) for key in keys]
    before = ", ".join(f"{preposition} {was}" for preposition, was, _ in pairs)
    after = ", ".join(now for _, _, now in pairs)
    return f"was made {before}; you ask for {after}"


def describe_difference(theirs: Any, ours: Mapping[str, Any]) -> str:
    """Name the parameters in which two runs differ.

    Examples
    --------
    >>> describe_difference({"level": 0}, {"level": 1})
    'level was 0, now 1'
    """
    if not isinstance(theirs, dict):
        return "no record says how it was made"
    keys = sorted({k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)})
    return ", ".join(f"{k} was {theirs.get(k)!r}, now {ours.get(k)!r}" for k in keys)


def tell_settings_apart(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Say with which settings a run was begun, and which are asked for in their place.

    Examples
    --------
    >>> tell_settings_apart({"seed": 0, "learning_rate": 0.1}, {"seed": 3, "learning_rate": 0.1})
    'was begun with seed 0; you ask for seed 3'
    >>> weights = [{"from": {"name": name, "sha256": 64 * "a"}} for name in ("one", "two")]
    >>> tell_settings_apart(*weights)
    'was begun with weights one aaaaaaaaaaaa; you ask for weights two aaaaaaaaaaaa'
    >>> tell_settings_apart({"patches": {"blur": 0.5, "zoom": 1}}, {"patches": {"zoom": 1}})
    'was begun with patches blur 0.5; you ask for patches blur none'
    """
    runs, keys = map(flat_settings, (theirs, ours)), settings_apart(theirs, ours)
    before, after = (
        ", ".join(f"{SETTINGS.get(k, k.replace('_', ' '))} {_short(run.get(k))}" for k in keys)
        for run in runs
    )
    return f"was begun with {before}; you ask for {after}"


def settings_apart(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """List the settings, brought to one level, in which two runs differ."""
    before, after = flat_settings(theirs), flat_settings(ours)
    return [k for k in {**before, **after} if before.get(k) != after.get(k)]


def flat_settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Bring groups of settings to one level, but not the names of weights."""
    flat: dict[str, Any] = {}
    for key, value in run.items():
        if isinstance(value, Mapping) and "sha256" not in value:
            flat |= {f"{key} {k}": v for k, v in value.items()}
        else:
            flat[key] = value
    return flat


def _origin(run: Mapping[str, Any], model: str) -> str:
    """Say where probabilities are from; a file of one name may have another content."""
    how = "read from" if "imported" in run else "predicted with"
    content = f" ({str(run['imported'])[:12]})" if "imported" in run else ""
    return f"{how} {model or 'something that is not on record'}{content}"


def _short(value: Any) -> str:
    """Shorten a hash, of which people compare the beginning, and name weights by their name."""
    if value is None:
        return "none"
    named = isinstance(value, Mapping) and {"name", "sha256"} <= value.keys()
    text = f"{value['name']} {_short(value['sha256'])}" if named else str(value)
    return text[:12] if HASH.fullmatch(text) else text


def _networks(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], models: tuple[str, str]
) -> tuple[str, str]:
    """Name both networks, and what their probabilities are averaged over where that differs."""
    same, words = theirs.get("model") == ours.get("model"), []
    for run, name in zip((theirs, ours), models, strict=True):
        # two networks may bear one name, or none
        known = name and (same or models[0] != models[1])
        network = name if known else f"{name or 'the model'} {str(run.get('model'))[:12]}"
        words.append(network + _looks(run.get("averaged"), plain=same))
    return words[0], words[1]


def _looks(averaged: Any, *, plain: bool) -> str:
    """Say over what probabilities are averaged; with ``plain``, also that they are not."""
    if not isinstance(averaged, list) or len(averaged) != 3:
        return ""
    tta, rotations, views = averaged
    axes = {"ortho": " along three axes", "xz": " along y", "yz": " along x"}.get(views, "")
    if views == "xy" and plain:
        axes = " along z"
    turns = " and quarter turns" if rotations else ""
    return f"{axes}, averaged over flips{turns}" if tta else axes


def _pair(key: str, was: Any, now: Any, models: tuple[str, str]) -> tuple[str, str, str]:
    """Put one parameter of both runs in words."""
    if key in CHANGED:
        return "from", *CHANGED[key]
    if key == "probabilities":
        if models[0] != models[1]:
            return "from", f"probabilities of {models[0]}", f"those of {models[1]}"
        return "from", "other probabilities", "objects in those that are there now"
    if key == "output":
        before, after = (_plural(kind) if kind else "a class" for kind in (was, now))
        return "as", before, after
    return PHRASES.get(key, ("with", str))[0], _say(key, was), _say(key, now)


def _lowest_mean(run: Mapping[str, Any]) -> str:
    """Name the lowest mean probability of objects, and of which objects it is asked.

    Examples
    --------
    >>> _lowest_mean({"min_probability": 0.85, "faint_size": 50}), _lowest_mean({})
    ('a lowest mean probability of 0.85 for objects up to 50 voxels', 'no lowest mean probability')
    """
    mean, largest = run.get("min_probability"), run.get("faint_size")
    if mean is None and largest is None:
        return _say("min_probability", None)
    size = "of any size" if largest is None else f"up to {largest} voxels"
    return f"{_say('min_probability', mean)} for objects {size}"


def _plural(kind: str) -> str:
    """Name a kind of auxiliary maps.

    Examples
    --------
    >>> _plural("contour"), _plural("offset-z")
    ('contours', 'offsets along z')
    """
    name, _, axis = str(kind).partition("-")
    return f"{name}s along {axis}" if axis else f"{name}s"


def _say(key: str, value: Any) -> str:
    if value is None:
        return "no " + NAMES.get(key, key)
    if key in PHRASES:
        try:
            return PHRASES[key][1](value)
        except (TypeError, ValueError, KeyError):
            pass  # it was changed on the disk, and is shown as it is
    return f"{key} {value!r}"


def _region(roi: Any) -> str:
    return "the region " + ",".join(f"{a}:{b}" for a, b in roi)


def _tiles(lattice: Any) -> str:
    each = [lattice[n : n + 3] for n in range(0, len(lattice), 3)]
    return f"tiles of {' and '.join(extent([a['tile'] for a in axes]) for axes in each)}"


def _probability(what: str) -> Callable[[Any], str]:
    return lambda level: f"{what} of {probability_of(level):g}"


CHANGED = {
    "raw": ("other voxels", "those that the volume holds now"),
    "labels": ("other objects", "those that are there now"),
    "corrections": ("other corrections", "these"),
    "centerlines": ("other centerlines", "objects split by those that are there now"),
    "contours": ("other contours", "objects split by those that are there now"),
    "offsets": ("other offsets", "objects split by those that are there now"),
    "format": ("another version of volseg", "what this version makes"),
}
"""Parameters whose values mean nothing to people: what they were, and what they are now."""
PHRASES: dict[str, Phrase] = {
    "block": ("in", lambda block: f"blocks of {extent(block)}"),
    "shard": ("in", lambda shard: f"files of {extent(shard)} voxels"),
    "roi": ("for", _region),
    "lattice": ("in", _tiles),
    "zoom": ("with", "a zoom of {:g}".format),
    "level": ("from", "level {} of the volume".format),
    "tone": ("with", "intensities scaled by {}".format),
    "device": ("on", str),
    "precision": ("in", str),
    "batch": ("in", "batches of {} slices".format),
    "gpu": ("on", "a GPU of the kind {}".format),
    "centerline": ("with", lambda _: "centerlines"),
    "normalise": ("with", lambda found: f"intensities made alike by {found['by']}"),
    "invert": ("with", lambda _: "inverted intensities"),
    "mask": ("within", lambda found: f"the mask {found['labels']}"),
    "background": ("without", lambda found: f"background of {', '.join(map(str, found))}"),
    "interpolated": ("with", lambda found: f"interpolated slices {list_slices(found)}"),
    "missing": ("with", lambda found: f"missing slices {list_slices(found)}"),
    "threshold_of_255": ("with", _probability("a threshold")),
    "seed_threshold_of_255": ("with", _probability("a seed threshold")),
    "min_size": ("with", "a smallest size of {} voxels".format),
    "max_volume_um3": ("with", "a largest volume of {:g} µm³".format),
    "max_section_um2": ("with", "a largest section of {:g} µm²".format),
    "min_probability": ("with", "a lowest mean probability of {:g}".format),
    "median_nm": ("with", "a median of slices {:g} nm apart".format),
    "connectivity": ("with", "{} neighbours".format),
    "fill_holes": ("with", lambda _: "filled holes"),
    "split": ("with", "touching objects split by {}".format),
    "split_depth": ("with", "a split depth of {:g} voxels".format),
    "split_centres": ("with", lambda count: f"{count or 'an elbow for'} centres in each object"),
    "split_sure_of_255": ("with", _probability("seeds from a probability")),
    "split_contour_of_255": ("with", _probability("contours from a probability")),
    "split_fewest": ("with", "seeds of at least {} voxels".format),
    "split_votes": ("with", "seeds of at least {:g} votes".format),
    "split_reach": ("with", lambda reach: f"offsets of up to {extent(reach)} voxels"),
    "split_axes": ("with", "offsets along {}".format),
}
SETTINGS = {"from": "weights", "images": "slices that are unrelated images:"}
"""Settings of a run that trains whose names do not read well."""
NAMES = {
    "centerline": "centerlines",
    "seed_threshold_of_255": "seed threshold",
    "max_volume_um3": "largest volume",
    "max_section_um2": "largest section",
    "min_probability": "lowest mean probability",
    "median_nm": "median of slices",
    "fill_holes": "filled holes",
    "split": "split",
    "split_depth": "split depth",
    "split_centres": "elbow over the sum of squares",
    "split_sure_of_255": "probability of seeds",
    "split_contour_of_255": "probability of contours",
    "split_fewest": "smallest seed",
    "split_votes": "votes for a seed",
}
