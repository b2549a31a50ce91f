"""Choose the network of a prediction: options, and what they come to for a volume and a device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import get_args

import torch

from volseg.defaults import DEVICE, NAME, PRECISION, ZOOM
from volseg.engine.options import EngineOptions
from volseg.errors import ModelError, ParameterError, command
from volseg.models.compiled import OPENVINO, check_compiled
from volseg.models.devices import (
    TF32,
    check_device,
    check_precision,
    choose_batch,
    choose_device,
    choose_precision,
    gpu_name,
    multiplies_bfloat16,
)
from volseg.models.maps import CENTERLINE, CONTOUR, DISTANCE, OFFSET, OFFSETS
from volseg.models.registry import Views, axes_of
from volseg.stages.predict.lattice import CUBIC, choose_views
from volseg.stages.predict.loading import NetworkChoice
from volseg.stages.predict.look import Normalise
from volseg.stages.predict.outputs import Chosen, check_kind, choose_maps
from volseg.storage.cards import Card, find_weights, load_card
from volseg.storage.results import recorded_run
from volseg.storage.volumes import Image, probabilities_path
from volseg.training.losses import LOSSES
from volseg.types import Zyx

OF_MASKS, OF_CENTERLINES = "unet2d", "emnet"
"""The shipped networks that are used unless another is asked for (decision 0046)."""
AUTO_ELSEWHERE = {"cpu": "float32", "cuda": "bfloat16"}
"""The precision where workers are other machines, which nobody sees when a run is planned: what any
CPU is fast in, and GPUs of compute capability 8.0 or higher; workers with others refuse to work."""
PLANE = 2
"""Dimensions of networks of slices."""
RESTRICTED = "NON-COMMERCIAL"
"""Opening of the terms of weights that must not be used for everything."""
MOST_ZOOM = 20.0
"""Beyond it, no network sees anything of what is there."""


@dataclass(frozen=True)
class PredictOptions:
    """Choices for a prediction; see `volseg.api.options.SegmentKeywords`.

    Attributes
    ----------
    tile : network voxels that are evaluated at once; None is the model's.
    shard : of the result, which is one chunk then; None chooses.
    batch : slices at once; None chooses, see `volseg.models.devices.choose_batch`.
    device, precision : see `find_device`.
    tta, rotations, views : see `volseg.models.inference.Predictor`.
    """

    model: str | None = None
    name: str | None = None
    roi: str | None = None
    tile: Zyx | None = None
    batch: int | None = None
    block: Zyx | None = None
    shard: Zyx | None = None
    device: str = DEVICE
    precision: str = PRECISION
    tta: bool = False
    rotations: bool = False
    views: Views | None = None
    mask: str | PathLike[str] | None = None
    normalise: Normalise = "volume"
    images: bool = False
    invert: bool = False
    zoom: float = ZOOM
    store_centerline: bool = False
    store_contour: bool = False
    store_offset: bool = False
    classes: tuple[str, ...] | None = None
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

    def kinds(self, card: Card) -> tuple[str, ...]:
        """List the kinds of auxiliary maps that are stored; no offsets across the slices seen."""
        lines = (CENTERLINE,) if self.store_centerline else ()
        contours = (CONTOUR, DISTANCE) if self.store_contour else ()
        axes = axes_of(self.views or "xy")
        flat = card.form.dimensions == PLANE and len(axes) == 1
        seen = [kind for axis, kind in enumerate(OFFSETS) if not flat or axis != axes[0]]
        return (*lines, *contours, *(seen if self.store_offset else ()))


def settle_model(image: Image, options: PredictOptions) -> tuple[PredictOptions, tuple[str, ...]]:
    """Choose among the shipped networks for a volume, where nobody has.

    Slices are looked at along the axes that `choose_views` finds. What an earlier version made, or
    began, where it took other voxels for cubes, is gone on with as it is.
    """
    if options.model is not None:
        return replace(options, views=options.views or "xy"), ()
    if options.store_centerline:
        chosen = replace(options, model=OF_CENTERLINES, views=options.views or "xy")
        return chosen, (f"the model is {OF_CENTERLINES}; --model is another",)
    size = None if image.space.planar else image.voxel_size
    seen = image.levels[0].shape, size, load_card(OF_MASKS), options.zoom
    views, along = choose_views(*seen)
    earlier, words = choose_views(*seen, cubic=CUBIC)
    if options.views is not None:
        views, along = options.views, f"as --views {options.views} says"
    elif earlier != views and not options.overwrite and _sees(image, options.name, earlier):
        views, along = earlier, f"{words}, as the result that stands"
    note = f"the model is {OF_MASKS}, which looks at slices {along}; see --model and --views"
    return replace(options, model=OF_MASKS, views=views), (note,)


def _sees(image: Image, name: str | None, views: Views) -> bool:
    """Tell whether the result that stands, or was begun, is of slices along these axes."""
    averaged = recorded_run(probabilities_path(image.path, name or NAME)).get("averaged")
    return isinstance(averaged, list) and averaged[-1:] == [views]


def settle_network(
    image: Image, options: PredictOptions
) -> tuple[PredictOptions, NetworkChoice, Card, tuple[Chosen, ...], tuple[str, ...]]:
    """Settle which network evaluates tiles of a volume, on which device and in which type."""
    if image.space.planar:
        _check_images(options)
    options, notes = settle_model(image, options)
    model = find_weights(options.model or OF_MASKS)
    card, views = load_card(model), options.views or "xy"
    _check_averaging(image, options)
    if image.space.planar and card.form.dimensions != PLANE:
        raise ParameterError(
            f"{card.name} looks along z, and unrelated images have none; give a network of slices, "
            f"such as --model {OF_MASKS}"
        )
    chosen = choose_maps(card, options.classes, options.name, options.kinds(card))
    if options.store_contour:
        check_kind(card, chosen, CONTOUR)
    if options.store_offset:
        check_kind(card, chosen, OFFSET)
    if options.store_centerline:
        notes += note_untaught(card)
    device, precision = find_device(options.device, options.precision, options.engine)
    if device == OPENVINO:
        _check_compiled_model(card, precision, centerline=options.store_centerline)
    notes += note_terms(card, options.model) + _note_emulation(device, precision, options.engine)
    known = None if device == OPENVINO or options.engine.elsewhere else torch.device(device)
    choice = NetworkChoice(
        str(model),
        device,
        precision,
        options.tta,
        options.rotations,
        views,
        tuple(one.place for one in chosen),
        choose_batch(options.batch, device, known),
        gpu_name(known),
        card.sha256,
    )
    return options, choice, card, chosen, notes


def _check_images(options: PredictOptions) -> None:
    """Check that what is asked for is possible with unrelated images, which are seen along z."""
    if options.views not in (None, "xy"):
        raise ParameterError(
            f"unrelated images have no slices along other axes; found --views {options.views}"
        )
    if options.normalise != "volume":
        raise ParameterError(
            f"the brightness of unrelated images is each one's own already; leave --normalise "
            f"{options.normalise} out"
        )


def _check_compiled_model(card: Card, precision: str, *, centerline: bool) -> None:
    """Check that OpenVINO can give what is asked of a model."""
    if centerline:
        raise ParameterError("--device openvino gives no centerlines; give --device cpu")
    if precision == "int8" and not card.ranges:
        raise ModelError(
            f"the card of {card.name} has no ranges, which int8 needs; give --precision float32"
        )


def find_device(device: str, precision: str, engine: EngineOptions) -> tuple[str, str]:
    """Choose where the network runs, and in which precision.

    Workers elsewhere may have what is lacking here, and lack what is here; so what this machine
    can do does not decide their precision. One that cannot do what was chosen ends the run.

    Parameters
    ----------
    device : ``auto``, ``cpu``, ``cuda``, ``mps``, ``xpu`` or ``openvino``
    precision : ``auto``, ``float32``, ``bfloat16``, ``tf32`` of GPUs, or ``int8`` of OpenVINO
    """
    if device == OPENVINO:
        return device, check_compiled(precision, here=not engine.elsewhere)
    if not engine.elsewhere:
        here = choose_device(device)
        chosen = str(choose_precision(precision, here)).removeprefix("torch.")
        return here.type, precision if precision == TF32 else chosen
    gpus = device == "auto" and engine.cluster is not None and engine.cluster.gpus > 0
    where = "cuda" if gpus else device
    if where == "auto":
        where = choose_device(where).type
    check_device(where)
    name = AUTO_ELSEWHERE.get(where, "float32") if precision == "auto" else precision
    check_precision(name)
    return where, name


def _note_emulation(device: str, precision: str, engine: EngineOptions) -> tuple[str, ...]:
    """Warn of a precision that this machine's CPU can only emulate."""
    here = device == "cpu" and not engine.elsewhere
    if precision != "bfloat16" or not here or multiplies_bfloat16(torch.device(device)):
        return ()
    note = "this CPU does not multiply bfloat16 in hardware, so it takes about five times as long"
    return (f"{note} as in --precision float32",)


def _check_averaging(image: Image, options: PredictOptions) -> None:
    """Check that a volume can be looked at along other axes than z."""
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


def note_terms(card: Card, model: str | Path | None = None) -> tuple[str, ...]:
    """Tell of weights that are for non-commercial use only, and which are named as ``model``."""
    if not str(card.training.get("terms", "")).startswith(RESTRICTED):
        return ()
    shown = command("models", "show", model or card.name)
    return (f"the weights of {card.name} are for non-commercial use only, see `{shown}`",)


def note_untaught(card: Card) -> tuple[str, ...]:
    """Warn of a network whose output for centerlines was never trained, as far as is known."""
    recipe = card.training.get("recipe")
    known = recipe if isinstance(recipe, dict) else {}
    if known.get("loss") not in LOSSES and known.get("centerline_weight") != 0:
        return ()
    return (f"{card.name} was trained without centerlines, so those it gives mean nothing",)
