"""Open a volume: its arrays as NumPy and Dask see them, its results and tables by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from volseg.api.options import Place
from volseg.api.running import place_of
from volseg.api.slicing import ImageArray, describe, level_of
from volseg.errors import VolumeError

if TYPE_CHECKING:
    import numpy as np

    from volseg.types import VoxelSize, Zyx

Value = TypeVar("Value")


@dataclass(frozen=True, repr=False, eq=False)
class Results(Mapping[str, Value], Generic[Value]):
    """Results of one kind in a volume, by name; each is opened when it is asked for.

    Attributes
    ----------
    place : folder of these results
    names : lists what the folder holds now
    load : opens one of them
    """

    place: Path
    names: Callable[[], list[str]]
    load: Callable[[str], Value]

    def __getitem__(self, name: str) -> Value:
        """Open a result.

        Raises
        ------
        KeyError
            If there is none of that name.
        """
        names = self.names()
        if name not in names:
            raise KeyError(
                f"there is no {self.place / name}, only: {', '.join(names) or 'nothing'}"
            )
        return self.load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<{self.place.name}: {', '.join(self.names()) or 'none'}>"


@dataclass(frozen=True)
class Volume:
    """A volume and its results.

    Attributes
    ----------
    raw : ImageArray
        The image itself.
    """

    path: Path
    raw: ImageArray

    @property
    def shape(self) -> Zyx:
        """Voxels along (z, y, x)."""
        return self.raw.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw voxels."""
        return self.raw.dtype

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Size of a voxel in nm, (z, y, x); None if unknown."""
        return self.raw.voxel_size

    @cached_property
    def labels(self) -> Results[ImageArray]:
        """Objects: integers, 0 the background."""
        return self._images("labels")

    @cached_property
    def probabilities(self) -> Results[ImageArray]:
        """Probabilities: uint8, 0 to 255 standing for 0 to 1."""
        return self._images("probabilities")

    @cached_property
    def tables(self) -> Results[Any]:
        """Tables of objects and slices, as `pyarrow.Table`; ``to_pandas()`` turns them on."""
        from volseg.storage.tables import read_table

        def names() -> list[str]:
            return sorted(p.stem for p in self._found("tables", "*.parquet"))

        def read(name: str) -> Any:
            return read_table(self.path / "tables" / f"{name}.parquet")

        return Results(self.path / "tables", names, read)

    def _images(self, kind: str) -> Results[ImageArray]:
        def names() -> list[str]:
            return [p.name for p in self._found(kind) if (p / "zarr.json").exists()]

        return Results(self.path / kind, names, lambda name: _open_result(self.path / kind / name))

    def _found(self, kind: str, pattern: str = "*") -> list[Path]:
        from volseg.storage.attributes import results_in

        return results_in(self.path, kind, pattern)

    def __repr__(self) -> str:
        kinds = (self.probabilities, self.labels, self.tables)
        rows = [f"<volseg volume {self.path}: {describe(self.raw)}", *(f"  {k!r}" for k in kinds)]
        return "\n".join(rows) + ">"


def _open_result(path: Path) -> ImageArray:
    from volseg.storage.volumes import open_image

    image = open_image(path)
    if image.attributes.get("complete") is False:
        raise VolumeError(f"{path} is incomplete; finish it with the command that began it")
    return level_of(image)


def open(place: Place) -> Volume:  # noqa: A001 - it is called volseg.open
    """Open a volume: OME-Zarr 0.4 or 0.5, or a Zarr array; nothing but metadata is read.

    Parameters
    ----------
    place : path
        Folder of the volume, or its URL on object storage.

    Raises
    ------
    VolumeError
        If there is no usable volume.

    Examples
    --------
    ``volseg.open("vol.zarr").raw[0]`` is the first slice, ``.labels["mitochondria"].dask`` a Dask
    array of the objects, ``.tables["mitochondria"].to_pandas()`` one row per object.
    """
    from volseg.storage.volumes import open_image

    path = place_of(place)
    return Volume(path, level_of(open_image(path)))


def info(place: Place) -> dict[str, Any]:
    """Describe a volume and the results in it, as `volseg info --json` prints it.

    Raises
    ------
    VolumeError
        If there is no usable volume.
    """
    from volseg.stages.info.run import info as look

    return look(place_of(place))
