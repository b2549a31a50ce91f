"""Open the result that is judged, and find the weights that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import ModelError, ParameterError, VolumeError, command
from volseg.sources.labels import LabelSource, open_labels
from volseg.stages.label.again import FLAGS, recorded_rules
from volseg.stages.label.rules import ObjectRules, describe_rules
from volseg.stages.predict.lattice import network_scales
from volseg.stages.teach.seeds import Reach
from volseg.storage.attributes import uncorrected
from volseg.storage.cards import Card, load_card
from volseg.storage.images import as_images
from volseg.storage.predictions import find_recorded
from volseg.storage.remote import as_remote
from volseg.storage.volumes import Image, labels_path, open_image, probabilities_path
from volseg.types import FULL_PROBABILITY, VoxelSize, Zyx, zyx

CORE_NM, FAR_NM = 60.0, 400.0
"""Radii of a seed: of what a click marks for sure, half a thin mitochondrion; and at most."""

SPLITS = "split", "split_depth", "split_centres"
RULES = ("connectivity", "min_size", *FLAGS, "faint_size", "fill_holes", *SPLITS)
"""Rules for objects that have a flag of `segment`, beside thresholds."""


@dataclass(frozen=True)
class Judged:
    """Result that is judged, and how it was made.

    Attributes
    ----------
    run, rules : how these were made, and which objects were found in them.
    asked_images : slices were taken as unrelated images, and the volume does not say that they are.
    """

    image: Image
    labels: LabelSource
    objects: int
    probabilities: Image
    run: Mapping[str, Any]
    rules: Mapping[str, Any]
    threshold: float
    model: str
    card: Card
    asked_images: bool = False

    @property
    def shape(self) -> Zyx:
        """Shape of the volume."""
        return self.labels.shape

    @property
    def zoom(self) -> float:
        """Times that voxels were taken as larger than they are said to be."""
        return float(self.run.get("zoom", 1.0))

    @property
    def scales(self) -> VoxelSize:
        """Voxels of the volume per voxel of the network."""
        return zyx(network_scales(self.image, self.card, zoom=self.zoom)[0])

    @property
    def made_on(self) -> dict[str, str]:
        """Name the labels and the weights that were judged."""
        return {"labels": str(self.labels.fingerprint), "weights": self.card.sha256}

    @property
    def reach(self) -> Reach:
        """Radii of a seed, in voxels of the volume."""
        _, y, x = (s / nm for s, nm in zip(self.scales, self.card.voxel_size, strict=True))
        return Reach((CORE_NM * y, CORE_NM * x), (FAR_NM * y, FAR_NM * x))

    def options(self) -> dict[str, Any]:
        """List the options of `segment` that made it, beside the model, its region and mask."""
        rules = recorded_rules(self.rules)
        found: dict[str, Any] = {"threshold": rules.threshold}
        if rules.seed_threshold is not None:
            found["seed_threshold"] = rules.seed_threshold
        # what holds without being asked for is not repeated
        model = self.probabilities.attributes["model"]
        if model.get("min_probability", 0) != self.card.min_probability:
            # an earlier card asked for another mean, and weights that are taught ask for this one's
            model = {**model, "min_probability": self.card.min_probability}
        usual = recorded_rules(
            describe_rules(ObjectRules(**found), self.probabilities.space, model)
        )
        for name in RULES:
            if (value := getattr(rules, name)) != getattr(usual, name):
                found[name] = value
        if "min_probability" in found:  # the model's size is for its own mean
            found.pop("faint_size", None)
            found |= {"faint_size": rules.faint_size} if rules.faint_size else {}
        if self.run.get("invert"):
            found["invert"] = True
        if self.zoom != 1:
            found["zoom"] = self.zoom
        flips, turns, views = self.run.get("averaged", (False, False, "xy"))
        found |= {"tta": True} if flips else {}
        found |= {"rotations": True} if turns else {}
        found |= {"images": True} if self.asked_images else {}
        return found if views == "xy" else {**found, "views": views}


def open_judged(volume: Path, name: str, model: str | None) -> Judged:
    """Open a result with its probabilities and weights."""
    image, labels = open_image(volume), open_labels(volume, name)
    if (origin := uncorrected(volume, name)) != name:
        raise ParameterError(
            f"{labels.path} were made of {origin} by `apply`, and weights learn from what they "
            f"found themselves: mark objects of {origin}, with "
            f"`{command('teach', volume, name=origin)}`"
        )
    noted, path = open_image(labels_path(volume, name)).attributes, probabilities_path(volume, name)
    again = command("segment", volume, name=name)
    if "objects" not in noted or not path.exists():
        raise VolumeError(
            f"{labels.path} is no result of volseg with probabilities; make one with `{again}`"
        )
    probabilities = open_image(path)
    made, run = probabilities.attributes, probabilities.attributes.get("run", {})
    if not made.get("complete") or noted["run"].get("probabilities") != made.get("fingerprint"):
        raise VolumeError(
            f"{labels.path} was not made of {path} as they are; run "
            f"`{command('label', volume, '--overwrite', name=name)}` first"
        )
    if "normalise" in run:
        raise ParameterError(
            f"{path} was made with --normalise, and teach knows intensities as they are; "
            f"segment without it first"
        )
    chosen = _find_parent(volume, made.get("model", {}), model)
    return Judged(
        as_images(image, asked=probabilities.space.planar),
        labels,
        int(noted["objects"]),
        probabilities,
        run,
        noted["run"],
        int(noted["run"]["threshold_of_255"]) / FULL_PROBABILITY,
        chosen,
        load_card(chosen),
        probabilities.space.planar and not image.space.planar,
    )


def _find_parent(volume: Path, record: Mapping[str, Any], model: str | None) -> str:
    """Find the weights that are on record: those that are named, shipped, or beside the volume."""
    if record.get("sha256") is None:
        raise ParameterError("the probabilities are of no network of volseg, so none can be taught")
    local = as_remote(volume) is None
    beside = sorted(volume.resolve().parent.glob("*.safetensors")) if local else []
    found = find_recorded(record, model, beside)
    if found is None:
        raise ModelError(
            f"the weights that made the result, {record.get('name')} with the sha256 "
            f"{record['sha256'][:12]}..., neither come with volseg nor lie beside {volume}; name "
            f"them with --model"
        )
    return found
