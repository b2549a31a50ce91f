"""Folder of a training run: its owner, and the checkpoint to resume from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from volseg.differences import flat_settings, settings_apart, tell_settings_apart
from volseg.errors import ConflictError, ParameterError, StorageError, command
from volseg.models.maps import CENTERLINE, CONTOUR_WIDTH, DISTANCE_REACH, OFFSET_REACH
from volseg.stages.train.loop import CHECKPOINT, LOG
from volseg.storage.checkpoints import Checkpoint, load_checkpoint
from volseg.storage.files import discard
from volseg.training.annotation import without_folder
from volseg.training.losses import EMNET

RECIPE, CURVES, SAMPLES, EVENTS = "recipe.toml", "curves.png", "samples", "tensorboard"
SHOWN = {SAMPLES: "step-*.png", EVENTS: "events.out.tfevents.*"}
"""Folders that show how a run goes, and what it writes in them."""
LOCK = ".lock"
SINCE: Mapping[str, Any] = {
    "classes": [],
    "auxiliary": [],
    "exclusive": False,
    "ignore": None,
    "map_weights": {},
    "contour_width": CONTOUR_WIDTH,
    "distance_reach": DISTANCE_REACH,
    "offset_reach": OFFSET_REACH,
}
"""Settings that earlier runs do not have, as they were: of one class."""
PAINTED = tuple(f"{kind}_probability" for kind in ("sheath", "granule", "region", "edge"))
"""Things that earlier runs may have painted; where they did, patches were drawn otherwise."""


def choose_name(output: Path, name: str | None) -> str:
    """Choose the name of a run's weights: the folder's, if no other is given."""
    chosen = name or output.resolve().name
    if not chosen or Path(chosen).name != chosen or chosen.startswith("."):
        raise ParameterError(f"--name becomes a file's name, found {chosen!r}")
    if f"{chosen}.safetensors" == CHECKPOINT:
        raise ParameterError(f"--name {chosen} is taken by the checkpoint; choose another")
    return chosen


def open_folder(
    weights: Path, configuration: Mapping[str, Any], *, overwrite: bool
) -> Checkpoint | None:
    """Find the checkpoint to resume from in a run's folder, or check that there is none.

    Parameters
    ----------
    weights : that the run exports into its folder
    overwrite : bool
        Whether the folder's run does not matter: `discard_run` removes it once a new one begins.
    """
    folder, card = weights.parent, weights.with_suffix(".json")
    own = (folder / CHECKPOINT, folder / LOG, folder / RECIPE, weights, card)
    if overwrite:
        return None
    saved = load_checkpoint(own[0])
    remedy = "choose another --output, or give --overwrite to discard it"
    if saved is None:
        standing = next((path for path in own if path.exists()), None)
        if standing is not None:
            raise ConflictError(f"{standing} stands where this run would write; {remedy}")
        return None
    theirs = _completed(json.loads(saved.config), configuration)
    if theirs != configuration:
        told = tell_settings_apart(theirs, configuration)
        if _is_kept(theirs, configuration) and (folder / RECIPE).exists():
            as_begun = command("train", "--config", folder / RECIPE, "--output", folder)
            remedy = f"`{as_begun}` goes on with it as it was begun; else {remedy}"
        raise ConflictError(f"the run in {folder} {told}; {remedy}")
    if saved.best is not None and not (weights.exists() and card.exists()):
        raise ConflictError(f"{folder} holds a run whose weights {weights.name} are gone; {remedy}")
    return saved


def _is_kept(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Tell whether the recipe of a run keeps all in which it differs from what is asked for."""
    kept, apart = flat_settings(theirs), settings_apart(theirs, ours)
    # data and weights are found again by their places only, where others may lie by now
    return all(k in kept and k != "from" and not k.startswith("data ") for k in apart)


def _completed(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Say of a run of a former version what it could not say, where that changes nothing."""
    since = {**SINCE, "images": ours.get("images")}  # which earlier runs did not tell
    found = {**{k: v for k, v in since.items() if k in ours}, **theirs}
    if "classes" in found:
        found["classes"] = [*map(without_folder, found["classes"])]
    if "preprocessing" in found:
        found["preprocessing"] = {"each": False, **found["preprocessing"]}
    if patches := found.get("augmentation", {}):
        # where nothing was painted, nothing of it has changed since; mitochondria never were
        none = () if any(patches.get(kind) for kind in PAINTED) else ("nucleus_probability",)
        found["augmentation"] = dict.fromkeys((*none, "crowd_probability"), 0.0) | patches
    if found.get("loss") != EMNET:  # no centerlines are learned, so their settings play no part
        lines = {k: v for k, v in ours.items() if k.startswith(CENTERLINE)}
        found = {k: v for k, v in found.items() if not k.startswith(CENTERLINE)} | lines
    return found


@contextmanager
def replacing_run(weights: Path) -> Iterator[None]:
    """Discard a run when a new one replaces its checkpoint.

    The new checkpoint is written first: if that fails, the old run is as it was.
    """
    folder = weights.parent
    # what shows how a run went is discarded only if there is one: else it is the user's own
    stood = any((folder / name).exists() for name in (CHECKPOINT, RECIPE))
    yield
    try:
        _discard_run(weights, stood=stood)
    except OSError as error:
        raise StorageError(f"cannot discard the run in {folder}: {error.strerror}") from error


def _discard_run(weights: Path, *, stood: bool) -> None:
    folder = weights.parent
    if stood:
        shown = {folder / name: files for name, files in SHOWN.items()}
        discard(folder / CURVES, *(p for place, files in shown.items() for p in place.glob(files)))
        for place in shown:
            with suppress(OSError):  # it was never there, or holds something else
                place.rmdir()
    discard(folder / LOG, folder / RECIPE, weights, weights.with_suffix(".json"))
