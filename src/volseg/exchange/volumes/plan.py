"""Plan an export: of which voxels or table, in which form, to where; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from volseg.defaults import NAME
from volseg.engine.options import EngineOptions
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, VolumeError, command
from volseg.exchange.volumes.cut import Cut, HighestLabel, space_at
from volseg.exchange.volumes.in_place import check_copy
from volseg.geometry.grid import Grid, full_roi, parse_roi
from volseg.storage.attributes import results_in
from volseg.storage.stores import is_zarr
from volseg.storage.targets import check_apart, check_file, check_target
from volseg.storage.volumes import Image, check_complete, open_image, slices_path, table_path

What = Literal["labels", "probabilities", "raw", "table", "slices"]
Form = Literal["tiff", "ome-tiff", "hdf5", "ome-zarr", "precomputed", "png", "mesh", "sheet"]
FORMS: Mapping[str, Form] = {
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".zarr": "ome-zarr",
    ".precomputed": "precomputed",
    ".pngs": "png",
    ".glb": "mesh",
    ".ply": "mesh",
    ".stl": "mesh",
    ".csv": "sheet",
    ".tsv": "sheet",
    ".xlsx": "sheet",
}
"""Forms by the suffix of a file or folder, the longest first."""
VOXELS: tuple[What, ...] = ("labels", "probabilities", "raw")
EACH = "{label}"
"""Stands in the name of a mesh's file for each object's label."""
FOLDERS = ("ome-zarr", "precomputed", "png")
EXACT = {
    "uint8": (1 << 8) - 1,
    "uint16": (1 << 16) - 1,
    "float32": 1 << 24,
    "uint32": (1 << 32) - 1,
}
"""The highest label up to which a type tells all labels apart."""
TOLD_FLOAT = (
    "labels go up to {}, so they are written as float32, which ImageJ shows as they are; --dtype "
    "uint32 keeps whole numbers, for other programs"
)
WIDE = "write .h5, .zarr or .precomputed, which hold 64 bits"
ORDER: Mapping[str, tuple[str, ...]] = {
    "tiff": ("uint16", "float32", "uint32"),
    "ome-tiff": ("uint16", "uint32"),
    "precomputed": ("uint32",),
    "png": ("uint16",),
}
"""Types of labels, of which the first that tells all apart is taken."""


@dataclass(frozen=True)
class ExportOptions:
    """Choices for an export; see `volseg.api.exporting.ExportKeywords`."""

    output: Path
    what: What = "labels"
    name: str = NAME
    level: int = 0
    roi: str | None = None
    dtype: str | None = None
    objects: tuple[int, ...] = ()
    overwrite: bool = False
    in_place: bool = False
    remove: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise ParameterError(
                f"what is exported is one of {', '.join(get_args(What))}, found {self.what!r}"
            )
        if self.dtype is not None and self.what != "labels":
            raise ParameterError("--dtype is for labels; other voxels keep their type")
        if self.dtype is not None and self.form == "mesh":
            raise ParameterError("--dtype is of voxels, and a mesh has none")
        if self.objects and self.form != "mesh":
            raise ParameterError("--object chooses the objects of meshes (.glb, .ply, .stl)")
        if EACH in self.output.name and self.form != "mesh":
            raise ParameterError(f"{EACH} is for meshes, of which each may have a file of its own")
        if self.what not in VOXELS and (self.level or self.roi):
            raise ParameterError("--level and --roi are for voxels; a table is written whole")
        if self.in_place and (self.what not in VOXELS or self.level or self.roi or self.dtype):
            raise ParameterError(
                "--in-place copies labels, probabilities or raw voxels as they are, all levels; "
                "leave out --level, --roi and --dtype"
            )

    @property
    def form(self) -> Form:
        """The form that the suffix names."""
        if self.in_place:
            return "ome-zarr"
        sheet, mesh = self.what not in VOXELS, self.what == "labels"
        name = self.output.name.lower()
        known = {
            suffix: form
            for suffix, form in FORMS.items()
            if (form == "sheet") == sheet and (mesh or form != "mesh")
        }
        for suffix, form in known.items():
            if name.endswith(suffix) and name != suffix:
                return form
        other = ""
        if any(name.endswith(suffix) for suffix, form in FORMS.items() if form == "sheet"):
            table = command("export", "VOLUME", "table", "--output", self.output)
            other = f"; the table of the objects goes there by `{table}`"
        raise ParameterError(
            f"{self.what} go to a path that ends in {', '.join(known)}, found "
            f"{self.output.name!r}{other}"
        )


@dataclass(frozen=True)
class ExportPlan:
    """An export.

    Attributes
    ----------
    image : whose voxels they are; None for tables.
    cut : voxels of the first level that is written; None for tables.
    table : of the objects; None where there is none.
    notes : what the user should know.
    """

    volume: Path
    options: ExportOptions
    form: Form
    image: Image | None
    cut: Cut | None
    table: Path | None
    notes: tuple[str, ...] = ()

    @property
    def levels(self) -> range:
        """Levels that are written, if the form takes several: all, or of a region one."""
        first = self.options.level
        several = self.image is not None and self.options.roi is None
        return range(first, len(self.image.levels) if several and self.image else first + 1)

    def cut_of(self, level: int) -> Cut:
        """Choose the same voxels of another level, all of it."""
        if self.image is None or self.cut is None:
            raise ParameterError("a table has no voxels")
        if level == self.options.level:
            return self.cut
        array = self.image.levels[level]
        roi = full_roi(array.shape)
        return replace(self.cut, array=array, roi=roi, space=space_at(self.image, level, roi))


def plan_export(volume: Path, options: ExportOptions) -> ExportPlan:
    """Check all that can be checked before anything is written.

    Raises
    ------
    InputError
        If what is asked for is not there, cannot be written in that form, or something stands at
        its place.
    """
    form = options.form
    if not options.in_place:
        check_output(volume, options)
    if options.what not in VOXELS:
        find = table_path if options.what == "table" else slices_path
        path = find(volume, options.name)
        open_image(volume)
        if not path.exists():
            first = command("stats", volume, name=options.name)
            raise VolumeError(f"there is no {path}; run `{first}` first")
        return ExportPlan(volume, options, form, None, None, path)
    image = _open_exported(volume, options)
    if not 0 <= options.level < len(image.levels):
        raise ParameterError(
            f"--level is {options.level}, but {image.path} has the levels 0 to "
            f"{len(image.levels) - 1}"
        )
    if options.in_place and not options.remove:
        check_copy(volume, image, (options.what, options.name), overwrite=options.overwrite)
    array = image.levels[options.level]
    roi = full_roi(array.shape) if options.roi is None else parse_roi(options.roi, array.shape)
    label = options.what == "labels"
    dtype, notes = array.dtype, list[str]()
    if label and form != "mesh":
        dtype, notes = _choose_type(image, options)
    if form == "precomputed" and image.voxel_size is None:
        raise ParameterError(
            f"the voxel size of {volume} is unknown, and precomputed volumes are in nm; convert it "
            f"again with --voxel-size"
        )
    if image.voxel_size is None:
        notes.append(f"the voxel size of {volume} is unknown, so none is written")
    cut = Cut(array, roi, space_at(image, options.level, roi), np.dtype(dtype), label)
    found = table_path(volume, options.name)
    table = found if found.exists() else None
    return ExportPlan(volume, options, form, image, cut, table, tuple(notes))


def check_output(volume: Path, options: ExportOptions) -> None:
    """Refuse an output before any work is done."""
    output = options.output
    check_apart(volume, output)
    check_apart(output, volume)
    if options.form not in FOLDERS:
        check_file(output, overwrite=options.overwrite)
    else:
        check_target(output, overwrite=options.overwrite, known=_is_ours)


def _is_ours(target: Path) -> bool:
    info = target / "info"
    if target.suffix == ".pngs":
        return all(path.suffix == ".png" for path in target.iterdir())
    return is_zarr(target) or (info.is_file() and b'"scales"' in info.read_bytes())


def _open_exported(volume: Path, options: ExportOptions) -> Image:
    image, what = open_image(volume), options.what
    if what == "raw":
        return image
    path = volume / what / options.name
    if not is_zarr(path):
        there = ", ".join(p.name for p in results_in(volume, what) if is_zarr(p)) or "nothing"
        raise VolumeError(f"{volume} has no {what}/{options.name}; there is {there} in {what}")
    found = check_complete(open_image(path))
    beside = found.levels[0].shape == image.levels[0].shape
    if found.voxel_size is None and beside and not options.in_place:
        # what others put beside an image may not state again where its voxels lie
        return replace(found, space=image.space, voxel_size=image.voxel_size)
    return found


def _choose_type(image: Image, options: ExportOptions) -> tuple[np.dtype[Any], list[str]]:
    """Choose a type that tells all labels apart, and say so if ImageJ shows it differently."""
    own = image.levels[0].dtype
    if own.kind == "i" and not options.in_place:  # below 0 is background
        own = np.dtype(f"u{own.itemsize}")
    if options.dtype is None and options.form not in ORDER:
        return own, []
    highest = _highest_label(image, options)
    if options.dtype is not None:
        if options.dtype not in EXACT:
            raise ParameterError(f"--dtype is one of {', '.join(EXACT)}, found {options.dtype!r}")
        if highest > EXACT[options.dtype]:
            raise ParameterError(
                f"labels go up to {highest}, {options.dtype} tells those up to "
                f"{EXACT[options.dtype]} apart; give another --dtype, or leave it out"
            )
        return np.dtype(options.dtype), []
    for kind in ORDER.get(options.form, ()):
        if highest <= EXACT[kind]:
            told = kind == "float32"
            return np.dtype(kind), [TOLD_FLOAT.format(highest)] if told else []
    if options.form in ("tiff", "ome-tiff", "png"):
        held = options.form.removeprefix("ome-").upper()
        raise ParameterError(f"labels go up to {highest}, which {held} cannot hold; {WIDE}")
    return own, []


def _highest_label(image: Image, options: ExportOptions) -> int:
    """Find the highest label: on record, or in all voxels where the type allows for many."""
    objects, array = image.attributes.get("objects"), image.levels[0]
    if isinstance(objects, int) and "corrections" not in image.attributes:  # which leave gaps
        return objects
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 2:
        return int(np.iinfo(array.dtype).max)
    found = [0]
    blocks = Grid(array.shape, array.shard).blocks()
    run_blocks(HighestLabel(array), blocks, options.engine, on_result=lambda _, n: found.append(n))
    return max(found)
