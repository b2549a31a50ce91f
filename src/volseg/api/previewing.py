"""Look at a volume before anything is segmented."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Device, Place
from volseg.api.running import build, file_of, place_of, shown

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.preview.run import PreviewReport


@described
class PreviewKeywords(Device, total=False):
    """Options of `preview`.

    models : Try this shipped model or .safetensors file, a network of slices; may be repeated.
        [default: the shipped ones]
    places : Look at this many places.
    seconds : Begin no other trial after this time.
    output : Draw the contact sheet to this PNG file.  [default: VOLUME-preview.png]
    precision : Evaluate the network in this type.
    """

    models: str | Sequence[str]
    places: int
    seconds: float
    output: Place | None
    precision: Literal["auto", "float32", "bfloat16"]


@takes(PreviewKeywords)
def preview(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[PreviewKeywords]
) -> "PreviewReport":
    """Try models at several scales on a few places of a volume, and draw what they find.

    Nothing is written into the volume.

    Parameters
    ----------
    volume : path
        OME-Zarr volume or Zarr array.
    progress : Progress, optional
        Display of the progress; see `volseg.engine.progress.Progress`.

    Raises
    ------
    InputError
        If the volume cannot be read or is empty, or a model or option cannot be used.
    StorageError
        If the contact sheet cannot be written.
    """
    from volseg.stages.preview import run

    models, output = options.get("models", ()), options.get("output")
    named = (models,) if isinstance(models, str) else tuple(models)
    settings = build(
        run.PreviewOptions,
        options,
        models=named or run.MODELS,
        output=None if output is None else file_of(output),
    )
    return run.preview(place_of(volume), settings, shown(progress))
