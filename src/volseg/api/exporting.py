"""Hand results of a volume on to other programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Region, Results, Threads
from volseg.api.running import EACH, check_single, place_of, shown
from volseg.defaults import NAME
from volseg.errors import ParameterError
from volseg.types import split_names

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.exchange.volumes.run import VolumeExport


What: TypeAlias = Literal["labels", "probabilities", "raw", "table", "slices"]


@described
class ExportKeywords(Results, Region, Threads, total=False):
    """Options of `export`.

    output : Write this file, folder or URL, whose ending names the form; {label} in the name of a
        mesh stands for each object's, {name} for each of several --name.
    level : Take this level of the pyramid, 0 the finest; --roi counts its voxels.
    dtype : Write labels as this type.  [default: one that tells all apart]
    objects : Make meshes of these objects only; repeatable.
    overwrite : Replace what stands there.
    """

    output: Required[Place]
    level: int
    dtype: Literal["uint8", "uint16", "uint32", "float32"] | None
    objects: Sequence[int]
    overwrite: bool


@takes(ExportKeywords)
def export(
    volume: Place,
    what: What = "labels",
    *,
    progress: "Progress | None" = None,
    **options: Unpack[ExportKeywords],
) -> "VolumeExport":
    """Write voxels, surfaces or tables of a volume in a form that other programs read.

    The ending of ``output`` names the form: .tif, .ome.tif, .h5, .zarr (OME-Zarr 0.4),
    .precomputed; .pngs, a folder of PNG files; .glb, .ply, .stl for surfaces of labels; .csv, .tsv,
    .xlsx for tables.

    Parameters
    ----------
    volume : path
    what : str
        ``labels``, ``probabilities``, ``raw``, ``table`` of objects, or ``slices``, the table of
        slices.
    progress : Progress, optional

    Raises
    ------
    InputError
        If it is not there, cannot be written in that form, or something stands at its place.
    WorkError
        If it cannot be read or written.
    """
    check_single(options.get("name"), "export")
    return export_all(volume, what, progress=progress, **options)[0]


def export_all(
    volume: Place,
    what: What = "labels",
    *,
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
    from volseg.exchange.volumes.plan import ExportOptions, plan_export
    from volseg.exchange.volumes.run import export as write

    given: dict[str, Any] = {**options}
    output, objects = str(given.pop("output")), given.pop("objects", ())
    engine = EngineOptions(workers=given.pop("workers", None))
    names = split_names(given.pop("name", NAME)) or (NAME,)
    if len(names) > 1 and EACH not in output:
        raise ParameterError(
            f"several --name need outputs of their own: write {EACH} in {output} for each, as in "
            f"{EACH}.tif"
        )
    plans = []
    for name in names:
        place = place_of(output.replace(EACH, name))
        chosen = ExportOptions(place, what, name, objects=tuple(objects), engine=engine, **given)
        plans.append(plan_export(place_of(volume), chosen))
    return [write(planned, shown(progress)) for planned in plans]
