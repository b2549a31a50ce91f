"""Look at a volume before anything is segmented."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from volseg.api.keywords import takes
from volseg.api.options import Place, PreviewKeywords
from volseg.api.running import build, file_of, place_of, shown

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.preview.run import PreviewReport


@takes(PreviewKeywords)
def preview(
    volume: Place, *, progress: Progress | None = None, **options: Unpack[PreviewKeywords]
) -> PreviewReport:
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
