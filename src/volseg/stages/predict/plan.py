"""Plan a prediction: everything that decides the result, before anything is written."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from volseg.defaults import DEVICE, NAME, PRECISION
from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError, VolumeError, command
from volseg.geometry.grid import (
    Grid,
    full_roi,
    parse_roi,
    roi_size,
    whole_multiples,
)
from volseg.geometry.handover import Handover
from volseg.models.registry import Views, check_centerline, find_architecture
from volseg.stages.intensities import check_counted
from volseg.stages.predict.device import find_device, note_emulation
from volseg.stages.predict.lattice import build_lattice, nearest_level, network_scales
from volseg.stages.predict.outputs import Output, centerline_of, note_untaught
from volseg.stages.predict.tasks import NetworkChoice
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.volumes import Image, open_image, probabilities_path, volume_tone
from volseg.storage.weights import Card, find_weights, load_card
from volseg.types import Zyx
from volseg.voxels.intensity import Tone

FORMAT = 2
"""Raised whenever the same parameters come to mean another result."""
DEFAULT_BLOCK = (64, 512, 512)
OF_MASKS, OF_CENTERLINES = "unet2d", "emnet"
"""The shipped networks that are used unless another is asked for (decision 0046)."""
CUBIC = 1.2
"""Voxels whose sides differ by more than this factor look different along different axes."""


@dataclass(frozen=True)
class PredictOptions:
    """What to predict, and how.

    Attributes
    ----------
    model : shipped name, or path of a safetensors file with its card.
    name : of the result.
    roi : ``z0:z1,y0:y1,x0:x1``; None is the whole volume.
    tile : network voxels that are evaluated at once; None is the model's.
    block : scheduled unit, rounded up to whole shards.
    shard, chunk : of the result; None chooses.
    device, precision : see `volseg.stages.predict_device`.
    tta, rotations, views : what probabilities are averaged over, see
        `volseg.models.inference.Predictor`.
    store_centerline : write what the network says of centerlines as well.
    engine : workers and scheduler.
    overwrite : replace a different result.
    """

    model: str = "emnet"
    name: str = NAME
    roi: str | None = None
    tile: Zyx | None = None
    block: Zyx | None = None
    shard: Zyx | None = None
    device: str = DEVICE
    precision: str = PRECISION
    tta: bool = False
    rotations: bool = False
    views: Views = "xy"
    store_centerline: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False


@dataclass(frozen=True)
class PredictPlan:
    """A run that has been thought through, of which nothing has been written yet."""

    image: Image
    card: Card
    level: int
    margin: Zyx
    handover: Handover
    spec: ArraySpec
    output: Path
    header: dict[str, Any]
    notes: tuple[str, ...]
    store_centerline: bool = False

    @property
    def outputs(self) -> tuple[Output, ...]:
        """List what is wanted: the mask, then centerlines, which are decided by the same."""
        mask = Output(self.output, self.header)
        return (mask, centerline_of(mask)) if self.store_centerline else (mask,)

    @property
    def counted(self) -> bool:
        """Whether the volume's intensities are known: without them nothing can be run."""
        return bool(self.image.attributes.get("histogram"))

    @property
    def tiles(self) -> int:
        """Number of tiles that an uninterrupted run evaluates."""
        roi = self.handover.roi
        axes = zip(self.handover.lattice.axes, roi, strict=True)
        return math.prod(len(a.reaching(s.start, s.stop)) for a, s in axes)

    @property
    def voxels(self) -> int:
        """Number of voxels that the run writes."""
        return roi_size(self.handover.roi)


def plan_prediction(
    volume: Path, options: PredictOptions, *, uncounted: bool = False
) -> PredictPlan:
    """Decide everything that a run depends on; read metadata only.

    Parameters
    ----------
    volume : Path
    options : PredictOptions
    uncounted : bool
        Whether intensities may still have to be counted: such a plan cannot be run.

    Raises
    ------
    VolumeError, ModelError, ParameterError
        If the volume, the model or an option cannot be used.
    """
    image, card = open_image(volume), load_card(options.model)
    check_place(image)
    shape = image.levels[0].shape
    form = find_architecture(card.architecture).viewed(options.views)
    scales, notes = network_scales(image, card, form)
    check_averaging(image, options)
    if options.store_centerline:
        check_centerline(card.architecture)
        notes += note_untaught(card)
    spec = fit_spec(shape, "uint8")
    if options.shard is not None:
        spec = replace(spec, shard=options.shard, chunk=options.shard)
    handover = Handover(
        Grid(shape, whole_multiples(options.block or DEFAULT_BLOCK, spec.shard)),
        build_lattice(shape, card, scales, form, options.tile),
        parse_roi(options.roi, shape) if options.roi else full_roi(shape),
    )
    device, precision = find_device(options.device, options.precision, options.engine)
    notes += note_emulation(device, precision, options.engine)
    level = nearest_level(image, scales)
    header = {
        "format": FORMAT,
        "raw": image.attributes.get("fingerprint"),
        "model": card.sha256,
        "tone": asdict(_find_tone(image, card, uncounted=uncounted)),
        "level": level,
        "lattice": [asdict(a) for a in handover.lattice.axes],
        "roi": [[s.start, s.stop] for s in handover.roi],
        "block": handover.grid.size,
        "shard": spec.shard,
        "averaged": [options.tta, options.rotations, options.views],
        "device": device,
        "precision": precision,
    }
    output = probabilities_path(volume, options.name)
    return PredictPlan(
        image,
        card,
        level,
        form.margin,
        handover,
        spec,
        output,
        json.loads(json.dumps(header)),
        notes,
        options.store_centerline,
    )


def choose_model(volume: Path, views: Views | None, *, centerline: bool) -> tuple[str, Views, str]:
    """Choose among the shipped networks for a volume, where nobody has.

    Parameters
    ----------
    volume : Path
    views : that are asked for, if any
    centerline : whether centerlines are wanted, which only EM-Net knows

    Returns
    -------
    model : str
    views : all three where voxels are cubes, as far as that is known
    note : what the user should know

    Raises
    ------
    VolumeError
        If there is no volume.
    """
    size = open_image(volume).voxel_size
    if centerline:
        return OF_CENTERLINES, views or "xy", f"the model is {OF_CENTERLINES}; --model is another"
    if views is None:
        views = "ortho" if size is not None and max(size) / min(size) <= CUBIC else "xy"
    along = "along z, y and x" if views == "ortho" else "along z"
    note = f"the model is {OF_MASKS}, which looks at slices {along}; see --model and --views"
    return OF_MASKS, views, note


def _find_tone(image: Image, card: Card, *, uncounted: bool) -> Tone:
    if not uncounted or image.attributes.get("histogram"):
        return volume_tone(image, card.preprocessing)
    check_counted(image.levels[0])
    return Tone((0.0, 1.0))


def check_place(image: Image) -> None:
    """Check that results have a place beside what they are made from.

    Raises
    ------
    VolumeError
        If the image is a mere array, or a result itself.
    """
    path = image.path
    if "run" in image.attributes:
        raise VolumeError(f"{path} is a result of volseg; name the volume that it was made from")
    if image.levels[0].path == path:
        raise VolumeError(
            f"{path} is a plain Zarr array, which has no place for results and no voxel size; make "
            f"a volume of it: `"
            + command("convert", path, "VOLUME.zarr", "--voxel-size", "Z,Y,X")
            + "`"
        )


def choose_network(plan: PredictPlan, options: PredictOptions) -> NetworkChoice:
    """Say which network evaluates the tiles of a plan, on the device that was found."""
    return NetworkChoice(
        str(find_weights(options.model)),
        plan.header["device"],
        plan.header["precision"],
        options.tta,
        options.rotations,
        options.views,
        plan.store_centerline,
    )


def check_averaging(image: Image, options: PredictOptions) -> None:
    """Check that a volume can be looked at along other axes.

    Raises
    ------
    ParameterError
        If orthogonal views are asked for where voxels are no cubes, as far as that is known.
    """
    if options.rotations and not options.tta:
        raise ParameterError("--rotations extend test-time augmentation; give --tta as well")
    size = image.voxel_size
    if options.views == "ortho" and size is not None and max(size) / min(size) > CUBIC:
        raise ParameterError(
            f"orthogonal views need cubic voxels, and those of {image.path} measure "
            f"{', '.join(f'{v:g}' for v in size)} nm (z, y, x): slices along z and along x would "
            f"show things at different scales; leave --views out"
        )
