"""What becomes an object: the rules that a user sets, and the header that decides the labels."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from volseg.defaults import CONNECTIVITY, MIN_SIZE, SPLIT, SPLIT_DEPTH
from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError, VolumeError, command
from volseg.objects.components import DIFFERING
from volseg.objects.splitting import METHODS
from volseg.storage.attributes import is_fraction
from volseg.storage.volumes import Image, open_image, probabilities_path
from volseg.types import FULL_PROBABILITY, VoxelSize, Zyx

FORMAT = 2
"""Raised whenever the same parameters come to mean another result."""
SPLIT_LIMIT = 1 << 23
"""Voxels of the largest bounding box that is split; each takes some 85 bytes in a worker."""
ROUNDING = 1e-6
"""By how much a quotient may pass a whole number and still mean it."""


@dataclass(frozen=True, kw_only=True)
class ObjectRules:
    """What becomes an object.

    Attributes
    ----------
    threshold : probability from which a voxel is foreground; None takes the model's.
    seed_threshold : at least ``threshold``; an object needs one voxel of this probability. None
        asks for none.
    connectivity : 6, 18 or 26; which neighbours are one object.
    min_size : objects of fewer voxels are dropped, measured whole.
    min_size_nm3 : the same in nm³; of the two, the larger counts.
    min_probability : objects of a lower mean probability are dropped; None takes the model's.
    fill_holes : background that one object encloses becomes that object.
    split : one of `METHODS`; how objects that touch are parted.
    split_depth : for ``distance``; by how many voxels, of the finest axis, a neck is thinner.
    """

    threshold: float | None = None
    seed_threshold: float | None = None
    connectivity: int = CONNECTIVITY
    min_size: int = MIN_SIZE
    min_size_nm3: float = 0
    min_probability: float | None = None
    fill_holes: bool = False
    split: str = SPLIT
    split_depth: float = SPLIT_DEPTH

    def __post_init__(self) -> None:
        _check_probability("a threshold", self.threshold)
        _check_probability("a seed threshold", self.seed_threshold)
        if self.threshold is not None:
            _seed_level(self.threshold, self.seed_threshold)
        if self.connectivity not in DIFFERING:
            raise ParameterError(f"connectivity must be 6, 18 or 26, found {self.connectivity}")
        self._check_split()
        if self.min_size < 0:
            raise ParameterError(f"min_size must not be negative, found {self.min_size}")
        if not 0 <= self.min_size_nm3 < math.inf:
            raise ParameterError(
                f"min_size_nm3 must be a volume of 0 nm³ or more, found {self.min_size_nm3}"
            )
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise ParameterError(
                f"the lowest mean probability must lie between 0 and 1, found "
                f"{self.min_probability}"
            )

    def _check_split(self) -> None:
        if self.split not in METHODS:
            raise ParameterError(f"split must be one of {', '.join(METHODS)}, found {self.split!r}")
        if not 0 < self.split_depth < math.inf:
            raise ParameterError(f"split_depth must be above 0 voxels, found {self.split_depth}")
        if self.split != "none" and importlib.util.find_spec("skimage") is None:
            raise ParameterError(
                "splitting needs scikit-image, which is not there; "
                "run `pip install 'volseg[measure]'`, or do without --split"
            )


@dataclass(frozen=True)
class LabelOptions(ObjectRules):
    """What becomes an object, and how the work is done.

    Attributes
    ----------
    block : scheduled unit, rounded up to whole shards.
    shard : of the result, which is one chunk then; None chooses.
    engine : workers and scheduler.
    overwrite : replace a different result.
    """

    block: Zyx | None = None
    shard: Zyx | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False


@dataclass(frozen=True)
class LabelReport:
    """What a run found.

    Attributes
    ----------
    objects : how many there are.
    threshold : probability from which a voxel was foreground.
    notes : what the user should know.
    """

    objects: int
    threshold: float
    seconds: float
    notes: tuple[str, ...] = ()


def open_probabilities(volume: Path, name: str) -> Image:
    """Open complete probabilities.

    Raises
    ------
    VolumeError
        If they are missing, incomplete, or not of volseg's making.
    """
    image = _open_complete(volume, name)
    model, run = (image.attributes.get(key) or {} for key in ("model", "run"))
    threshold, least = model.get("threshold"), model.get("min_probability", 0)
    stated = isinstance(threshold, float) and 0 < threshold < 1
    if not stated or not is_fraction(least) or "roi" not in run:
        raise VolumeError(
            f"the attributes of {image.path} do not say any more how it was made; remove it, and "
            f"make it again: `{command('segment', volume, name=name)}`"
        )
    return image


def _open_complete(volume: Path, name: str) -> Image:
    path = probabilities_path(volume, name)
    if not path.exists():
        first = command("segment", volume, name=name)
        raise VolumeError(f"{volume} has no probabilities/{name}; run `{first}` first")
    image = open_image(path)
    if image.levels[0].dtype != np.uint8 or not {"run", "fingerprint"} <= set(image.attributes):
        raise VolumeError(f"{path} was not written by volseg segment; its meaning is not known")
    if not image.attributes.get("complete"):
        raise VolumeError(f"{path} is incomplete; run the command that began it again")
    return image


def open_centerlines(volume: Path, name: str) -> Image:
    """Open complete probabilities of centerlines: ``probabilities/<name>-centerline``.

    Raises
    ------
    VolumeError
        If they are missing, incomplete, of another shape, or not of volseg's making.
    """
    lines = f"{name}-centerline"
    if not probabilities_path(volume, lines).exists():
        write = command("segment", volume, "--store-centerline", name=name)
        raise VolumeError(
            f"{volume} has no probabilities/{lines}, which --split centerline needs; write it "
            f"with `{write}`, or use --split distance"
        )
    image, shape = _open_complete(volume, lines), open_image(volume).levels[0].shape
    if image.levels[0].shape != shape:
        raise VolumeError(
            f"probabilities/{lines} has the shape {image.levels[0].shape}, the volume {shape}; "
            "centerlines must be those of the whole volume, voxel by voxel"
        )
    return image


def find_threshold(source: Image, rules: ObjectRules) -> float:
    """Take the user's threshold, or else the model's."""
    return rules.threshold or float(source.attributes["model"]["threshold"])


def plan_label(source: Image, rules: ObjectRules) -> dict[str, Any]:
    """Collect everything that decides the labels.

    Raises
    ------
    ParameterError
        If a rule cannot be applied to these probabilities.
    """
    threshold = find_threshold(source, rules)
    # a rule that is not asked for is not in the header: results from before it existed stay valid
    return {
        "format": FORMAT,
        "probabilities": source.attributes["fingerprint"],
        "threshold_of_255": level_of(threshold),
        "min_size": fewest_voxels(rules, source.voxel_size),
        "connectivity": rules.connectivity,
        **_seed_level(threshold, rules.seed_threshold),
        **_lowest_mean(source, threshold, rules),
        **({"fill_holes": True} if rules.fill_holes else {}),
        **_plan_split(rules, source.voxel_size),
    }


def _plan_split(rules: ObjectRules, voxel_size: VoxelSize | None) -> dict[str, Any]:
    if rules.split == "none":
        return {}
    # of a voxel of unknown size the form is unknown too; a cube is the usual one
    sides = voxel_size or (1.0, 1.0, 1.0)
    planned: dict[str, Any] = {"split": rules.split, "split_limit": SPLIT_LIMIT}
    planned["split_spacing"] = [side / min(sides) for side in sides]
    return planned | ({"split_depth": rules.split_depth} if rules.split == "distance" else {})


def _seed_level(threshold: float, seed_threshold: float | None) -> dict[str, int]:
    if seed_threshold is None:
        return {}
    if seed_threshold < threshold:
        raise ParameterError(
            f"a seed threshold must be at least the threshold of {threshold:g}, found "
            f"{seed_threshold:g}; give a higher --seed-threshold or a lower --threshold"
        )
    return {"seed_threshold_of_255": level_of(seed_threshold)}


def _lowest_mean(source: Image, threshold: float, rules: ObjectRules) -> dict[str, float]:
    """Take the user's rule, or else the model's, if there is one and it can drop anything."""
    least = rules.min_probability
    if least is None:
        least = source.attributes["model"].get("min_probability", 0)
    lowest = level_of(threshold) / FULL_PROBABILITY
    return {"min_probability": float(least)} if least > lowest else {}


def level_of(threshold: float) -> int:
    """Find the stored value, of 255, from which a voxel has at least this probability."""
    return max(math.ceil(threshold * 255 - ROUNDING), 1)  # from 0, all would be foreground


def fewest_voxels(rules: ObjectRules, voxel_size: VoxelSize | None) -> int:
    """Express the smallest object that is kept in voxels.

    Raises
    ------
    ParameterError
        If it is given in nm³ and the voxel size is unknown.

    Examples
    --------
    >>> fewest_voxels(ObjectRules(min_size_nm3=62500), (50, 5, 5))
    50
    """
    if not rules.min_size_nm3:
        return rules.min_size
    if voxel_size is None:
        raise ParameterError(
            f"the voxel size is unknown, so {rules.min_size_nm3:g} nm³ is no number of voxels; "
            "give the smallest size in voxels, or convert again with --voxel-size"
        )
    voxels = math.ceil(rules.min_size_nm3 / math.prod(voxel_size) - ROUNDING)
    return max(rules.min_size, voxels)


def _check_probability(what: str, found: float | None) -> None:
    if found is not None and not 0 < found <= 1:
        raise ParameterError(f"{what} is a probability above 0 and up to 1, found {found}")
