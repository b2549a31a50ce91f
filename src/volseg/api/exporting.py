"""Hand results of a volume on to other programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Region, Result, Threads
from volseg.api.running import place_of, shown

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.exchange.volumes.run import VolumeExport


@described
class ExportKeywords(Result, Region, Threads, total=False):
    """Options of `export`.

    output : Write this file, folder or URL, whose ending names the form; {label} in the name of a
        mesh stands for each object's.
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
    what: Literal["labels", "probabilities", "raw", "table", "slices"] = "labels",
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
    from volseg.engine.options import EngineOptions
    from volseg.exchange.volumes.plan import ExportOptions, plan_export
    from volseg.exchange.volumes.run import export as write

    given: dict[str, Any] = {**options}
    output, objects = place_of(given.pop("output")), given.pop("objects", ())
    engine = EngineOptions(workers=given.pop("workers", None))
    chosen = ExportOptions(output, what, objects=tuple(objects), engine=engine, **given)
    return write(plan_export(place_of(volume), chosen), shown(progress))
