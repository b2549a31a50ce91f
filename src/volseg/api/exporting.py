"""Hand results of a volume on to other programs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Region, Results, Threads
from volseg.api.running import EACH, check_one_name, place_of, shown, text_of
from volseg.defaults import NAME
from volseg.errors import ParameterError
from volseg.fields import split_names

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.exchange.volumes.run import VolumeExport


What: TypeAlias = Literal["labels", "probabilities", "raw", "table", "slices"]


@described
class ExportKeywords(Results, Region, Threads, total=False):
    """Options of `export`.

    output : Write this file, folder or URL, whose ending names the form; {label} in the name of a
        mesh stands for each object's, {name} for each of several --name.
    in_place : Write a copy as Zarr v2 (OME-Zarr 0.4) into the volume itself, for programs that know
        no later version; it takes as much room again.
    remove : Remove what --in-place wrote.
    level : Take this level of the pyramid, 0 the finest; --roi counts its voxels.
    dtype : Write labels as this type.  [default: one that tells all apart]
    objects : Make meshes of these objects only; repeatable.
    overwrite : Replace what stands there.
    """

    output: Place | None
    in_place: bool
    remove: bool
    level: int
    dtype: Literal["uint8", "uint16", "uint32", "float32"] | None
    objects: Sequence[int]
    overwrite: bool


@takes(ExportKeywords)
def export(
    volume: Place,
    what: What = "labels",
    *,
    on_note: Callable[[str], None] | None = None,
    progress: "Progress | None" = None,
    **options: Unpack[ExportKeywords],
) -> "VolumeExport":
    """Write voxels, surfaces or tables of a volume in a form that other programs read.

    The ending of ``output`` names the form: .tif, .ome.tif, .h5, .zarr (OME-Zarr 0.4),
    .precomputed; .pngs, a folder of PNG files; .glb, .ply, .stl for surfaces of labels; .csv, .tsv,
    .xlsx for tables.

    Parameters
    ----------
    what : str
        ``labels``, ``probabilities``, ``raw``, ``table`` of objects, or ``slices``, the table of
        slices.
    on_note : callable, optional
        Takes what the user should know before anything is written.

    Raises
    ------
    InputError
        If it is not there, cannot be written in that form, or something stands at its place.
    WorkError
        If it cannot be read or written.
    """
    check_one_name(options.get("name"), "export")
    return export_all(volume, what, on_note=on_note, progress=progress, **options)[0]


def export_all(
    volume: Place,
    what: What = "labels",
    *,
    on_note: Callable[[str], None] | None = None,
    progress: "Progress | None" = None,
    **options: Unpack[ExportKeywords],
) -> "list[VolumeExport]":
    """Write several results of a volume, each to an output of its own, as `export` does.

    Raises
    ------
    InputError
        As `export` does, before anything is written.
    WorkError
        If something cannot be read or written.
    """
    from volseg.engine.options import EngineOptions
    from volseg.exchange.volumes.in_place import tell_room
    from volseg.exchange.volumes.plan import ExportOptions, plan_export
    from volseg.exchange.volumes.run import export as write

    given: dict[str, Any] = {**options}
    source, output = place_of(volume), given.pop("output", None)
    objects, in_place = tuple(map(int, given.pop("objects", ()))), bool(given.get("in_place"))
    if (output is None) == (not in_place):
        raise ParameterError(
            "give --output, the file or folder to write, or --in-place, for a copy in the volume"
        )
    if given.get("remove") and not in_place:
        raise ParameterError("--remove is for what --in-place wrote; leave out --output")
    engine = EngineOptions(workers=given.pop("workers", None))
    names = split_names(given.pop("name", NAME))
    if len(names) > 1 and not in_place and EACH not in str(output):
        raise ParameterError(
            f"several --name need outputs of their own: write {EACH} in {output} for each, as in "
            f"{EACH}.tif"
        )
    if what == "raw" and names != (NAME,):
        raise ParameterError(f"raw has no --name, found {', '.join(names)}; leave it out")
    if in_place and not (given.get("overwrite") or given.get("remove")):
        names = _lacking(source, what, names, on_note or str)
    plans, text = [], "" if output is None else text_of(output)
    for name in names:
        place = _own_place(source, what, name) if in_place else place_of(text.replace(EACH, name))
        chosen = ExportOptions(place, what, name, objects=objects, engine=engine, **given)
        plans.append(plan_export(source, chosen))
    if in_place and not given.get("remove"):
        for note in tell_room([plan.image for plan in plans if plan.image is not None]):
            (on_note or str)(note)
    return [write(planned, shown(progress)) for planned in plans]


def _lacking(
    volume: Path, what: str, names: tuple[str, ...], on_note: Callable[[str], object]
) -> tuple[str, ...]:
    """Leave out results whose copies are whole, unless all are: a run that was killed goes on."""
    from volseg.storage.copies import is_copied, is_unfinished

    places = {name: _own_place(volume, what, name) for name in names}
    whole = [name for name, at in places.items() if is_copied(at) and not is_unfinished(at)]
    if len(whole) == len(names):
        return names
    for name in whole:
        on_note(f"{places[name]} has a copy as Zarr v2, which is kept")
    return tuple(name for name in names if name not in whole)


def _own_place(volume: Path, what: str, name: str) -> Path:
    from volseg.storage.volumes import check_name

    return volume if what == "raw" else volume / what / check_name(name)
