"""Choose the network of a prediction: options, and what they come to for a volume and a device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from typing import get_args

from volseg.defaults import DEVICE, NAME, PRECISION, ZOOM
from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError
from volseg.models.registry import Views
from volseg.stages.predict.device import find_device
from volseg.stages.predict.lattice import CUBIC, choose_views
from volseg.stages.predict.look import Normalise
from volseg.stages.predict.tasks import NetworkChoice
from volseg.storage.volumes import Image
from volseg.storage.weights import find_weights, load_card
from volseg.types import Zyx

OF_MASKS, OF_CENTERLINES = "unet2d", "emnet"
"""The shipped networks that are used unless another is asked for (decision 0046)."""


MOST_ZOOM = 20.0
"""Beyond it, no network sees anything of what is there."""


@dataclass(frozen=True)
class PredictOptions:
    """Choices for a prediction.

    Attributes
    ----------
    model : shipped name, or path of a safetensors file with its card; None chooses for the volume.
    name : of the result.
    roi : ``z0:z1,y0:y1,x0:x1``; None is the whole volume.
    tile : network voxels that are evaluated at once; None is the model's.
    block : scheduled unit, rounded up to whole shards.
    shard, chunk : of the result; None chooses.
    device, precision : see `volseg.stages.predict.device`.
    tta, rotations, views : what probabilities are averaged over, see
        `volseg.models.inference.Predictor`. Without views, slices along z, or what suits the
        volume where the model is chosen for it.
    mask : labels in the volume, or elsewhere, outside of which nothing is looked for.
    normalise : make brightness alike: of the ``volume`` as it is, of all ``slices``, or ``local``.
    invert : show the network bright voxels dark and dark ones bright.
    zoom : voxels are taken as so many times as large as they are said to be.
    store_centerline : write what the network says of centerlines as well.
    engine : workers and scheduler.
    overwrite : replace a different result.
    """

    model: str | None = None
    name: str = NAME
    roi: str | None = None
    tile: Zyx | None = None
    block: Zyx | None = None
    shard: Zyx | None = None
    device: str = DEVICE
    precision: str = PRECISION
    tta: bool = False
    rotations: bool = False
    views: Views | None = None
    mask: str | PathLike[str] | None = None
    normalise: Normalise = "volume"
    invert: bool = False
    zoom: float = ZOOM
    store_centerline: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.normalise not in get_args(Normalise):
            raise ParameterError(
                f"normalise is one of {', '.join(get_args(Normalise))}, found {self.normalise!r}"
            )
        if not 1 / MOST_ZOOM <= self.zoom <= MOST_ZOOM:
            raise ParameterError(
                f"zoom lies between {1 / MOST_ZOOM:g} and {MOST_ZOOM:g}, found {self.zoom:g}"
            )


def settle_model(image: Image, options: PredictOptions) -> tuple[PredictOptions, tuple[str, ...]]:
    """Choose among the shipped networks for a volume, where nobody has.

    Slices are looked at along the axes that `choose_views` finds.

    Returns
    -------
    options : with a model and views
    notes : what the user should know
    """
    if options.model is not None:
        return replace(options, views=options.views or "xy"), ()
    if options.store_centerline:
        chosen = replace(options, model=OF_CENTERLINES, views=options.views or "xy")
        return chosen, (f"the model is {OF_CENTERLINES}; --model is another",)
    shape, card = image.levels[0].shape, load_card(OF_MASKS)
    views, along = choose_views(shape, image.voxel_size, card, options.zoom)
    if options.views is not None:
        views, along = options.views, f"as --views {options.views} says"
    note = f"the model is {OF_MASKS}, which looks at slices {along}; see --model and --views"
    return replace(options, model=OF_MASKS, views=views), (note,)


def choose_network(options: PredictOptions) -> NetworkChoice:
    """Say which network evaluates tiles, on which device and in which type.

    Raises
    ------
    ParameterError
        If it cannot run there, as far as that is known here.
    """
    device, precision = find_device(options.device, options.precision, options.engine)
    return NetworkChoice(
        str(find_weights(options.model or OF_MASKS)),
        device,
        precision,
        options.tta,
        options.rotations,
        options.views or "xy",
        options.store_centerline,
    )


def check_averaging(image: Image, options: PredictOptions) -> None:
    """Check that a volume can be looked at along other axes than z.

    Raises
    ------
    ParameterError
        If that is asked for where voxels are no cubes, as far as that is known.
    """
    if options.rotations and not options.tta:
        raise ParameterError("--rotations extend test-time augmentation; give --tta as well")
    size = image.voxel_size
    views = options.views or "xy"
    if views != "xy" and size is not None and max(size) / min(size) > CUBIC:
        raise ParameterError(
            f"--views {views} needs cubic voxels, and those of {image.path} measure "
            f"{', '.join(f'{v:g}' for v in size)} nm (z, y, x): slices along z and along x would "
            f"show things at different scales; leave --views out"
        )
