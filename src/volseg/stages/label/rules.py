"""Rules of what becomes an object, as a user sets them and as a run records them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volseg.defaults import CONNECTIVITY, SPLIT, SPLIT_DEPTH
from volseg.errors import ParameterError, require
from volseg.objects.components import DIFFERING, PLANAR
from volseg.objects.joining import Limits
from volseg.objects.splitting import METHODS, VOTES
from volseg.stages.label.median import FARTHEST_NM, plan_median
from volseg.stages.label.seeds import find_reach, plan_contours
from volseg.storage.ome import Space
from volseg.types import FULL_PROBABILITY, ROUNDING, VoxelSize, level_of

SPLIT_LIMIT = 1 << 23
"""Voxels of the largest bounding box that is split; each takes up to 90 bytes in a worker."""
CONTOURS, OFFSET = "contour", "offset"
UNSPLIT: Mapping[str, Any] = {
    "split": "none",
    **dict.fromkeys(("split_sure", "split_contour", "split_votes")),
}
"""Rules of objects that are not split, which take none that are for one way to do so."""


@dataclass(frozen=True, kw_only=True)
class ObjectRules:
    """Rules of what becomes an object; see `volseg.api.options.Objects`.

    Sizes are those of whole objects, and a size in nm³ takes the place of the model's. The
    threshold of a seed is at least ``threshold``. ``split_depth`` counts voxels of the finest axis.
    """

    threshold: float | None = None
    seed_threshold: float | None = None
    connectivity: int = CONNECTIVITY
    images: bool = False
    complement: bool = False
    min_size: int | None = None
    min_size_nm3: float = 0
    max_volume_um3: float | None = None
    max_section_um2: float | None = None
    min_probability: float | None = None
    faint_size: int | None = None
    median_nm: float | None = None
    fill_holes: bool = False
    split: str = SPLIT
    split_depth: float = SPLIT_DEPTH
    split_centres: int | None = None
    split_sure: float | None = None
    split_contour: float | None = None
    split_votes: float | None = None

    def __post_init__(self) -> None:
        _check_probability("a threshold", self.threshold)
        _check_probability("a seed threshold", self.seed_threshold)
        if self.threshold is not None:
            _seed_level(self.threshold, self.seed_threshold)
        if self.connectivity not in DIFFERING:
            raise ParameterError(
                f"connectivity must be 4, 6, 8, 18 or 26, found {self.connectivity}"
            )
        self._check_split()
        if self.complement and self.seed_threshold is not None:
            raise ParameterError("what is below a threshold has no seeds above another")
        self._check_sizes()
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise ParameterError(
                f"the lowest mean probability must lie between 0 and 1, found "
                f"{self.min_probability}"
            )
        if self.median_nm is not None and not 0 <= self.median_nm <= FARTHEST_NM:
            raise ParameterError(
                f"the distance of the slices of a median must lie between 0 and {FARTHEST_NM:g} "
                f"nm, found {self.median_nm}"
            )

    def _check_sizes(self) -> None:
        for name in ("min_size", "faint_size"):
            if (size := getattr(self, name)) is not None and size < 0:
                raise ParameterError(f"{name} must not be negative, found {size}")
        if not 0 <= self.min_size_nm3 < math.inf:
            raise ParameterError(
                f"min_size_nm3 must be a volume of 0 nm³ or more, found {self.min_size_nm3}"
            )
        for unit, most in (("µm³", self.max_volume_um3), ("µm²", self.max_section_um2)):
            if most is not None and not 0 < most < math.inf:
                raise ParameterError(f"a largest size is above 0 {unit}, found {most}")

    def _check_split(self) -> None:
        if self.split not in METHODS:
            raise ParameterError(f"split must be one of {', '.join(METHODS)}, found {self.split!r}")
        if not 0 < self.split_depth < math.inf:
            raise ParameterError(f"split_depth must be above 0 voxels, found {self.split_depth}")
        if self.split_centres is not None and (self.split != "kmeans" or self.split_centres < 1):
            raise ParameterError(
                f"split_centres must be at least 1, and is for --split kmeans alone; found "
                f"{self.split_centres} for --split {self.split}"
            )
        for flag in ("split_sure", "split_contour"):
            _check_probability(flag, getattr(self, flag))
            if getattr(self, flag) is not None and self.split != CONTOURS:
                raise ParameterError(f"{flag} is for --split contour alone")
        if self.split_votes is not None and (
            self.split != OFFSET or not 0 < self.split_votes < math.inf
        ):
            raise ParameterError(
                f"split_votes must be above 0, and is for --split offset alone; found "
                f"{self.split_votes} for --split {self.split}"
            )
        if self.split != "none":
            require("skimage", "measure", "splitting needs scikit-image")


def describe_rules(rules: ObjectRules, space: Space, model: Mapping[str, Any]) -> dict[str, Any]:
    """List what the rules decide, for the header of a run."""
    threshold, voxel_size = find_threshold(rules, model), space.voxel_size
    planar = space.planar
    # a rule that is not asked for is not in the header: results from before it existed stay valid
    return {
        "threshold_of_255": level_of(threshold),
        "min_size": fewest_voxels(rules, voxel_size, model, planar=planar),
        "connectivity": PLANAR[rules.connectivity] if planar else rules.connectivity,
        **_seed_level(threshold, rules.seed_threshold),
        **_largest_sizes(rules, voxel_size),
        **_lowest_mean(rules, space, model),
        **plan_median(rules.median_nm, space, model, complement=rules.complement),
        **({"fill_holes": True} if rules.fill_holes else {}),
        **({"complement": True} if rules.complement else {}),
        **_plan_split(rules, voxel_size, model, planar=planar),
    }


def find_threshold(rules: ObjectRules, model: Mapping[str, Any]) -> float:
    """Take the user's threshold, or else the model's."""
    return rules.threshold or float(model["threshold"])


def _plan_split(
    rules: ObjectRules, voxel_size: VoxelSize | None, model: Mapping[str, Any], *, planar: bool
) -> dict[str, Any]:
    if rules.split == "none":
        return {}
    # of a voxel of unknown size the form is unknown too; a cube is the usual one
    sides = voxel_size or (1.0, 1.0, 1.0)
    if planar:  # how thick an image is said to be means nothing
        sides = (min(sides[1:]), *sides[1:])
    planned: dict[str, Any] = {"split": rules.split, "split_limit": SPLIT_LIMIT}
    planned["split_spacing"] = [side / min(sides) for side in sides]
    if rules.split == "distance":
        planned["split_depth"] = rules.split_depth
    elif rules.split == "kmeans":
        # 0 stands for the elbow; without it, labels of another criterion would pass for these
        planned["split_centres"] = rules.split_centres or 0
    known = model.get("splitting") or {}
    if rules.split == CONTOURS:
        asked = rules.split_sure, rules.split_contour
        planned |= plan_contours(asked, voxel_size, known, planar=planar)
    elif rules.split == OFFSET:
        votes = rules.split_votes or known.get("votes") or VOTES
        planned |= {"split_votes": float(votes), "split_reach": find_reach(voxel_size, model)}
    return planned


def _seed_level(threshold: float, seed_threshold: float | None) -> dict[str, int]:
    if seed_threshold is None:
        return {}
    if seed_threshold < threshold:
        raise ParameterError(
            f"a seed threshold must be at least the threshold of {threshold:g}, found "
            f"{seed_threshold:g}; give a higher --seed-threshold or a lower --threshold"
        )
    return {"seed_threshold_of_255": level_of(seed_threshold)}


def _largest_sizes(rules: ObjectRules, voxel_size: VoxelSize | None) -> dict[str, float]:
    sizes = {"max_volume_um3": rules.max_volume_um3, "max_section_um2": rules.max_section_um2}
    asked = {name: float(size) for name, size in sizes.items() if size is not None}
    if asked and voxel_size is None:
        raise ParameterError(
            "the voxel size is unknown, so a largest volume or section is no number of voxels; "
            "convert again with --voxel-size, or leave out --max-volume and --max-section"
        )
    return asked


def limits_of(run: Mapping[str, Any], voxel_size: VoxelSize | None) -> Limits:
    """Read the limits of objects from what a run has on record.

    Examples
    --------
    >>> limits_of({"min_size": 9, "max_section_um2": 0.5}, (50, 10, 10))
    Limits(min_size=9, max_size=inf, max_section=5000, min_probability=0, faint_size=inf)
    """

    def most(name: str, axes: slice) -> float:
        if name not in run or voxel_size is None:
            return math.inf
        voxel = math.prod(side / 1000 for side in list(voxel_size)[axes])
        return math.floor(float(run[name]) / voxel + ROUNDING)

    return Limits(
        int(run["min_size"]),
        most("max_volume_um3", slice(3)),
        most("max_section_um2", slice(1, 3)),
        run.get("min_probability", 0),
        run.get("faint_size", math.inf),
    )


def _lowest_mean(rules: ObjectRules, space: Space, model: Mapping[str, Any]) -> dict[str, float]:
    """Take the user's rule, or else the model's, if there is one and it can drop anything."""
    least, largest = rules.min_probability, rules.faint_size
    if least is None:  # the model's is that of what it was trained to find
        least = 0 if rules.complement else model.get("min_probability", 0)
        if largest is None:
            largest = _models_size("faint_size", space.voxel_size, model, planar=space.planar)
    lowest = level_of(find_threshold(rules, model)) / FULL_PROBABILITY
    if least <= lowest:
        return {}
    return {"min_probability": float(least), **({"faint_size": largest} if largest else {})}


def fewest_voxels(
    rules: ObjectRules,
    voxel_size: VoxelSize | None,
    model: Mapping[str, Any] | None = None,
    *,
    planar: bool = False,
) -> int:
    """Express the smallest object that is kept in voxels: the user's, or else the model's.

    Examples
    --------
    >>> fewest_voxels(ObjectRules(min_size_nm3=62500), (50, 5, 5))
    50
    """
    if not rules.min_size_nm3:
        return (
            _models_size("min_size", voxel_size, model or {}, planar=planar)
            if rules.min_size is None
            else rules.min_size
        )
    if voxel_size is None:
        raise ParameterError(
            f"the voxel size is unknown, so {rules.min_size_nm3:g} nm³ is no number of voxels; "
            "give the smallest size in voxels, or convert again with --voxel-size"
        )
    voxels = math.ceil(rules.min_size_nm3 / math.prod(voxel_size) - ROUNDING)
    return max(rules.min_size or 0, voxels)


def _models_size(
    name: str, voxel_size: VoxelSize | None, model: Mapping[str, Any], *, planar: bool
) -> int:
    """Convert a size of objects that a card names, in voxels of its own, to voxels of the volume.

    Without a voxel size the volume is taken to have the model's, as in prediction. Of an image, the
    object is a section as wide as it.
    """
    own, axes = int(model.get(name, 0)), slice(1 if planar else 0, 3)
    voxels = own ** (2 / 3) if planar else float(own)
    if voxel_size is not None and own:
        sides = list(map(float, model["voxel_size"]))
        voxels *= math.prod(sides[axes]) / math.prod(list(voxel_size)[axes])
    return math.ceil(voxels - ROUNDING)


def states_size(model: Mapping[str, Any]) -> bool:
    """Tell whether the sizes of objects on record of a model can be used, if there are any."""
    owns = [model.get(name, 0) for name in ("min_size", "faint_size")]
    size = model.get("voxel_size", ())
    sides = isinstance(size, list | tuple) and all(
        isinstance(side, int | float) and 0 < side < math.inf for side in size
    )
    sound = all(isinstance(own, int) and own >= 0 for own in owns)
    return sound and sides and (not any(owns) or len(size) == 3)


def _check_probability(what: str, found: float | None) -> None:
    if found is not None and not 0 < found <= 1:
        raise ParameterError(f"{what} is a probability above 0 and up to 1, found {found}")
