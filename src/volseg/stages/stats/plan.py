"""What is to be measured: opened and checked, before hours go into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from volseg.defaults import NAME
from volseg.errors import ParameterError, ShapeError
from volseg.sources.labels import LabelSource, open_label_path, open_labels
from volseg.storage.locations import check_writable
from volseg.storage.volumes import Image, labels_path, open_image, table_path
from volseg.types import VoxelSize


def open_measured(
    volume: Path, labels: Path | None, name: str | None
) -> tuple[Image, LabelSource, str]:
    """Open a volume and the labels that are to be measured in it.

    Parameters
    ----------
    volume : that the tables go into
    labels : from elsewhere, in place of the volume's
    name : of the volume's labels, and of the tables

    Returns
    -------
    image, labels, name : the name is that of the tables

    Raises
    ------
    InputError
        If labels are missing, incomplete, of another shape, or their tables those of others.
    """
    check_writable(volume)
    image = open_image(volume)
    if labels is None:
        chosen = NAME if name is None else name
        source = open_labels(volume, chosen)
    else:
        source, chosen = open_label_path(labels), labels.stem if name is None else name
        own = labels_path(volume, chosen)
        if own.exists() and own.resolve() != source.path.resolve():
            raise ParameterError(
                f"tables/{chosen}.parquet is for the objects of {own}; give another --name for "
                f"those of {labels}"
            )
    table_path(volume, chosen)  # a name that tables cannot have is refused before all is measured
    if source.shape != image.levels[0].shape:
        raise ShapeError(
            f"{source.path} has the shape {source.shape}, {volume} {image.levels[0].shape}; give "
            f"labels of the volume's own size"
        )
    return image, source, chosen


def check_volumes(volumes: Sequence[Path], name: str | None, *, one_table: bool) -> None:
    """Check that volumes hold labels that fit, and go into one table, if that is wanted.

    Raises
    ------
    InputError
        If labels cannot be measured, or the volumes do not go together.
    """
    sizes = {}
    for volume in volumes:
        image, source, _ = open_measured(volume, None, name)
        sizes[volume] = image.voxel_size or source.voxel_size
    if one_table:
        check_one_table(sizes)


def check_one_table(sizes: Mapping[Path, VoxelSize | None]) -> None:
    """Check that columns mean the same for all volumes.

    Raises
    ------
    ParameterError
        If some voxel sizes are unknown.
    """
    unknown = [str(volume) for volume, size in sizes.items() if size is None]
    if 0 < len(unknown) < len(sizes):
        raise ParameterError(
            f"one table cannot hold volumes with and without a voxel size; unknown in: "
            f"{', '.join(unknown)}; leave --output out, or measure them apart"
        )
