"""Explain what a network finds in a region of a volume."""

from typing import TYPE_CHECKING, Required, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Device, Place, Result
from volseg.api.running import build, file_of, place_of, shown

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.explain.run import ExplainReport


@described
class ExplainKeywords(Device, Result, total=False):
    """Options of `explain`.

    roi : Explain this region, in voxels; bounds are optional.
    model : Explain this shipped model or .safetensors file.  [default: the one that made the
        result; unet2d where there is none]
    output : Draw the contact sheet to this PNG file.  [default: VOLUME-explain.png]
    overwrite : Replace the explanation of another region or model, and another picture.
    """

    roi: Required[str]
    model: str | None
    output: Place | None
    overwrite: bool


@takes(ExplainKeywords)
def explain(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[ExplainKeywords]
) -> "ExplainReport":
    """Explain what a network finds in a region of a volume, and draw it.

    Writes ``explanations/<name>`` into the volume: layers of uncertainty, saliency, Grad-CAM,
    attention and filters, which `report` and `view` show. ``docs/explain.md`` says what they mean.

    Parameters
    ----------
    volume : path
    progress : Progress, optional

    Raises
    ------
    InputError
        If volume, region or model cannot be used, or another explanation stands there.
    StorageError
        If something cannot be written.
    """
    from volseg.stages.explain import plan, run

    output = options.get("output")
    target = None if output is None else file_of(output)
    chosen = build(plan.ExplainOptions, options, output=target)
    return run.explain(plan.plan_explanation(place_of(volume), chosen), shown(progress))
