"""Look at a volume: at its slices, at what networks find and see, in a browser."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Device, Place, Result, Results
from volseg.api.running import build, optional_file, place_of, several, shown, text_of
from volseg.errors import ParameterError, command

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.explain.run import ExplainReport
    from volseg.stages.preview.run import PreviewReport
    from volseg.stages.view.plan import Scene, ViewOptions
    from volseg.stages.view.serve import Served


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

    models = tuple(several(options.get("models", ()))) or run.MODELS
    target = optional_file(options.get("output"))
    chosen = build(run.PreviewOptions, options, models=models, output=target)
    return run.preview(place_of(volume), chosen, shown(progress))


@described
class ExploreKeywords(Result, total=False):
    """Options of `explore`.

    output : Draw the figure of --explore into this PNG file.  [default: VOLUME-explore.png]
    gamma : Draw the views with intensities raised to this power, as a network that was trained with
        it sees them.
    equalise : Draw the views equalised: by the volume, by each view, or by what is around each
        voxel; see `train`.
    overwrite : Replace a figure that is there.
    """

    output: Place | None
    gamma: float | None
    equalise: Literal["volume", "slice", "local"] | None
    overwrite: bool


@takes(ExploreKeywords)
def explore(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[ExploreKeywords]
) -> dict[str, Any]:
    """Look at a volume: views, intensities, correlation of slices, mean sizes of objects.

    Draws a figure, if matplotlib is installed. ``docs/explore.md`` describes what is read and
    returned.

    Raises
    ------
    InputError
        If the volume or its labels cannot be used.
    """
    from volseg.stages.explore import run as stage

    chosen = build(stage.ExploreOptions, options, output=optional_file(options.get("output")))
    return stage.explore(place_of(volume), chosen, shown(progress))


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

    Raises
    ------
    InputError
        If volume, region or model cannot be used, or another explanation stands there.
    StorageError
        If something cannot be written.
    """
    from volseg.stages.explain import plan, run

    chosen = build(plan.ExplainOptions, options, output=optional_file(options.get("output")))
    return run.explain(plan.plan_explanation(place_of(volume), chosen), shown(progress))


@described
class ViewKeywords(Results, total=False):
    """Options of `view`.

    at : Look at this object, a label of the table, of the first of several --name.
    truth : Show labels of this name in VOLUME too, or a Zarr array, image or label TIFF.
    axes : Name the axes of --truth, slowest first, such as YXZ, where a file does not say.
    report : Serve this page of `volseg report` too; its links then lead to the objects.
    """

    at: int | None
    truth: Place | None
    axes: str | None
    report: Place | None


@takes(ViewKeywords)
def view(volume: Place, **options: Unpack[ViewKeywords]) -> "Served":
    """Serve a volume to neuroglancer in a browser on this machine, until ``.stop()`` is called.

    Voxels are read where they are looked at.

    Parameters
    ----------
    volume : path
        OME-Zarr volume or Zarr array.

    Returns
    -------
    Served
        ``.url`` opens the viewer.

    Raises
    ------
    InputError
        If the volume cannot be read, there is no such object, or neuroglancer is not installed.
    """
    scene, _ = _plan(volume, options)
    report = optional_file(options.get("report"))
    if report is not None and not report.is_file():
        first = command("report", volume)
        raise ParameterError(f"there is no report {report}; make one with `{first}`")
    try:
        from volseg.stages.view.serve import Served
    except ImportError as error:
        raise ParameterError(
            f"volseg view needs neuroglancer, and {error.name} is missing: pip install "
            f"'volseg[view]'"
        ) from error
    return Served(scene, report)


def link(volume: Place, **options: Unpack[ViewKeywords]) -> str:
    """Compose a link that shows a volume behind http in neuroglancer on the web.

    Raises
    ------
    InputError
        If the volume lies on this machine or cannot be read, or there is no such object.
    """
    from volseg.stages.view.state import compose_link

    return compose_link(*_plan(volume, options))


def open_napari(volume: Place, **options: Unpack[ViewKeywords]) -> None:
    """Open napari with the layers of a volume, until its window is closed.

    Raises
    ------
    InputError
        If the volume cannot be read, there is no such object, or napari is not installed.
    """
    from volseg.api.layers import show_in_napari

    scene, settings = _plan(volume, options)
    if settings.truth is not None and not (scene.path / "labels" / settings.truth).exists():
        raise ParameterError(
            f"napari shows all labels of {scene.path}, and {settings.truth} is none of them; drag "
            f"the file into its window"
        )
    show_in_napari(scene.path, scene.names[0], scene.centre if settings.at is not None else None)


def _plan(volume: Place, options: ViewKeywords) -> "tuple[Scene, ViewOptions]":
    from volseg.stages.view.plan import ViewOptions, plan_view

    truth = options.get("truth")
    shown = {name: value for name, value in options.items() if name != "report"}
    settings = build(ViewOptions, shown, truth=None if truth is None else text_of(truth))
    return plan_view(place_of(volume), settings), settings
