"""Put arrays into a folder that the stages can work on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from volseg.defaults import NAME
from volseg.errors import ParameterError, ShapeError, VolsegError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from volseg.types import Probabilities, VoxelSize, Zyx


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Lend a folder, and remove it with all in it; errors name what is in it by its own name."""
    with TemporaryDirectory(prefix="volseg-") as name:
        folder = Path(name).resolve()
        try:
            yield folder
        except VolsegError as error:
            words = (a.replace(f"{folder}/", "") if isinstance(a, str) else a for a in error.args)
            error.args = tuple(words)
            raise


def write_array(path: Path, values: ArrayLike) -> Path:
    """Write an array to storage."""
    import numpy as np

    from volseg.geometry.grid import full_roi
    from volseg.storage.arrays import create_array, fit_spec

    array = np.asarray(values)
    if array.ndim != 3 or not array.size:
        raise ShapeError(f"an array has three axes (z, y, x), found the shape {array.shape}")
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif":
        raise ParameterError(f"an array holds numbers, found {array.dtype}")
    create_array(path, fit_spec(array.shape, array.dtype.name)).write(
        full_roi(array.shape), np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    )
    return path


def create_empty(volume: Path, shape: Zyx, voxel_size: VoxelSize | None) -> None:
    """Create a volume of which nothing is read, as a place for results."""
    from volseg.storage.arrays import fit_spec
    from volseg.storage.volumes import create_image

    create_image(volume, fit_spec(shape, "uint8"), voxel_size, attributes={"complete": True})


def write_probabilities(
    volume: Path, values: Probabilities, voxel_size: VoxelSize | None, model: Mapping[str, Any]
) -> None:
    """Create a volume with complete probabilities, as `segment` would leave them.

    Parameters
    ----------
    volume : folder to create
    values : uint8, shape (z, y, x)
    voxel_size : nm (z, y, x)
    model : threshold and min_probability
    """
    from volseg.geometry.grid import full_roi
    from volseg.storage.arrays import fit_spec
    from volseg.storage.volumes import create_image, probabilities_path

    roi = full_roi(values.shape)
    noted = {
        "complete": True,
        "fingerprint": "array",
        "run": {"roi": [[side.start, side.stop] for side in roi]},
        "model": dict(model),
    }
    create_empty(volume, values.shape, voxel_size)
    path = probabilities_path(volume, NAME)
    image = create_image(path, fit_spec(values.shape, "uint8"), voxel_size, attributes=noted)
    image.levels[0].write(roi, values)


def as_levels(probabilities: ArrayLike) -> Probabilities:
    """Take stored probabilities as they are, floats as `label` does, and a mask of truth values."""
    import numpy as np

    from volseg.sources.probabilities import SLACK, as_probabilities

    array = np.asarray(probabilities)
    if array.ndim != 3 or not array.size:
        raise ShapeError(f"probabilities have three axes (z, y, x), found {array.shape}")
    if array.dtype == np.uint8:
        if np.max(array) == 1:
            told = "no probability is above 1 of 255; a mask of 0 and 1 is given as mask > 0"
            warnings.warn(told, stacklevel=4)
        return array
    if array.dtype == bool:
        return as_probabilities(array, "mask")
    low, high = np.min(array), np.max(array)
    if array.dtype.kind != "f" or not (low >= -SLACK and high <= 1 + SLACK):
        raise ParameterError(
            f"probabilities are uint8, 0 to 255, or floats from 0 to 1, found {array.dtype} from "
            f"{low} to {high}"
        )
    return as_probabilities(array, "fractions")


def without(folder: Path, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Remove a folder from the paths in notes."""
    return tuple(note.replace(f"{folder}/", "") for note in notes)
