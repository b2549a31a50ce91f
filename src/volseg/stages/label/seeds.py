"""Settings of the seeds of objects that touch, as a run records them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from volseg.errors import ParameterError
from volseg.objects.splitting import CONTOUR, SURE
from volseg.types import ROUNDING, VoxelSize, level_of


def plan_contours(
    asked: tuple[float | None, float | None],
    voxel_size: VoxelSize | None,
    known: Mapping[str, Any],
    *,
    planar: bool,
) -> dict[str, Any]:
    """Take the user's settings of seeds between contours, or else the model's, or else plain ones.

    Parameters
    ----------
    asked : least probability of the class, and most of the contour
    """
    sure = asked[0] or known.get("sure") or SURE
    contour = asked[1] or known.get("contour") or CONTOUR
    fewest, own = float(known.get("fewest", 1)), known.get("voxel_size")
    if own and voxel_size is not None:
        axes = slice(1 if planar else 0, 3)
        fewest *= math.prod(list(own)[axes]) / math.prod(list(voxel_size)[axes])
    return {
        "split_sure_of_255": level_of(float(sure)),
        "split_contour_of_255": level_of(float(contour)),
        "split_fewest": max(math.ceil(fewest - ROUNDING), 1),
    }


def find_reach(voxel_size: VoxelSize | None, model: Mapping[str, Any]) -> list[float]:
    """Find how many voxels (z, y, x) offsets of 0 and 1 stand for."""
    noted = model.get("offsets")
    try:
        reach, sides = float(noted["reach_nm"]), voxel_size or noted["voxel_size"]  # type: ignore[index]
        return [reach / float(side) for side in sides]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ParameterError(
            f"it is not on record how far offsets of these probabilities reach, found {noted!r}; "
            f"segment again, with --split offset --overwrite"
        ) from None
