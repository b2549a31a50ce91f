"""Rule of the median of slices, as a user sets it and as a run records it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volseg.errors import ParameterError
from volseg.objects.dropped import is_limit
from volseg.storage.ome import Space
from volseg.types import VoxelSize

FARTHEST_NM = 1e6
"""Of slices whose median is taken, as in cards."""


def plan_median(
    asked: float | None, space: Space, model: Mapping[str, Any], *, complement: bool
) -> dict[str, float]:
    """Take the user's distance, or else the model's, where slices lie near enough to each other."""
    if space.planar and asked:
        raise ParameterError("slices of unrelated images have no median; leave out --median")
    if space.planar:
        return {}
    if asked is None:  # the model's is that of what it was trained to find
        asked = 0.0 if complement else float(model.get("median_nm", 0))
    elif asked and not median_step(asked, space.voxel_size):
        apart = space.voxel_size[0] if space.voxel_size else 0.0
        raise ParameterError(
            f"slices are {apart:g} nm apart, so none lies about {asked:g} nm from another; give "
            f"--median {apart:g}, or leave it out"
        )
    return {"median_nm": float(asked)} if median_step(asked, space.voxel_size) else {}


def keep_recorded(
    planned: Mapping[str, Any], run: Mapping[str, Any], voxel_size: VoxelSize | None
) -> dict[str, float]:
    """Take the distance on record of labels that stand or were begun, if it means the same slices.

    Examples
    --------
    >>> keep_recorded({"median_nm": 50.0}, {"median_nm": 35.0}, (50, 5, 5))
    {'median_nm': 35.0}
    >>> keep_recorded({"median_nm": 50.0}, {"median_nm": 35.0}, (5, 5, 5))
    {}
    """
    asked, noted = planned.get("median_nm"), run.get("median_nm")
    if asked is None or not is_limit(noted) or noted > FARTHEST_NM:
        return {}
    same = median_step(noted, voxel_size) == median_step(asked, voxel_size)
    return {"median_nm": noted} if same else {}


def median_step(nm: float, voxel_size: VoxelSize | None) -> int:
    """Find how many slices lie in a distance; one where their distance is unknown.

    Examples
    --------
    >>> [median_step(35, size) for size in ((5, 5, 5), (50, 5, 5), (90, 5, 5), None)]
    [7, 1, 0, 1]
    """
    if not nm or voxel_size is None:
        return int(nm > 0)
    return round(nm / voxel_size[0])
