"""Check all volumes that are to be measured, before hours go into the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from volseg.errors import ParameterError, ShapeError
from volseg.io.label_sources import open_labels
from volseg.io.locations import check_writable
from volseg.io.volumes import open_image


def check_volumes(volumes: Sequence[Path], name: str, *, one_table: bool) -> None:
    """Check that volumes hold labels of a name, which fit, and go together.

    Parameters
    ----------
    volumes : of which each has labels of its own
    name : of the labels
    one_table : whether the objects of all are to be written into one table

    Raises
    ------
    InputError
        If labels are missing, incomplete or of another shape, or only some voxel sizes are known.
    """
    unknown = []
    for volume in volumes:
        check_writable(volume)
        image, labels = open_image(volume), open_labels(volume, name)
        if labels.shape != image.levels[0].shape:
            raise ShapeError(
                f"{labels.path} has the shape {labels.shape}, {volume} {image.levels[0].shape}; "
                f"labels must have the volume's own size"
            )
        if image.voxel_size is None and labels.voxel_size is None:
            unknown.append(str(volume))
    if one_table and 0 < len(unknown) < len(volumes):
        raise ParameterError(
            f"one table cannot hold volumes with and without a voxel size; unknown in: "
            f"{', '.join(unknown)}; leave --output out, or measure them apart"
        )
