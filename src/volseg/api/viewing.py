"""Look at a volume and its results in a browser."""

from typing import TYPE_CHECKING, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Results
from volseg.api.running import build, file_of, place_of
from volseg.errors import ParameterError, command

if TYPE_CHECKING:
    from volseg.stages.view.plan import Scene, ViewOptions
    from volseg.stages.view.serve import Served


@described
class ViewKeywords(Results, total=False):
    """Options of `view`.

    at : Look at this object, a label of the table, of the first of several --name.
    truth : Show labels of this name in VOLUME too, or a Zarr array, image or label TIFF.
    report : Serve this page of `volseg report` too; its links then lead to the objects.
    """

    at: int | None
    truth: Place | None
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
    report = None if (page := options.get("report")) is None else file_of(page)
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
    from volseg.stages.view.link import compose_link

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
    settings = build(ViewOptions, shown, truth=None if truth is None else str(truth))
    return plan_view(place_of(volume), settings), settings
