"""Plan a prediction: everything that decides the result, before anything is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from volseg.engine.options import EngineOptions
from volseg.errors import VolumeError, command
from volseg.geometry.grid import (
    Grid,
    full_roi,
    parse_roi,
    roi_size,
    whole_multiples,
)
from volseg.geometry.handover import Handover
from volseg.models.registry import check_centerline, find_architecture
from volseg.stages.intensities import check_counted
from volseg.stages.predict.device import note_emulation
from volseg.stages.predict.lattice import build_lattice, nearest_level, network_scales
from volseg.stages.predict.network import (
    PredictOptions,
    check_averaging,
    choose_network,
    settle_model,
)
from volseg.stages.predict.outputs import Output, centerline_of, note_untaught
from volseg.stages.predict.tasks import NetworkChoice
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.volumes import (
    Image,
    open_image,
    probabilities_path,
    scratch_path,
    volume_tone,
)
from volseg.storage.weights import Card, load_card
from volseg.types import Zyx
from volseg.voxels.intensity import Tone

FORMAT = 2
"""Raised whenever the same parameters come to mean another result."""
DEFAULT_BLOCK = (64, 512, 512)


@dataclass(frozen=True)
class PredictPlan:
    """A prediction: everything that decides the result, where it goes, and how it is run.

    Attributes
    ----------
    image : the volume.
    card : of the model.
    choice : which network evaluates tiles, and how.
    level : of the pyramid that the network reads.
    margin : network voxels per side by which a tile's input exceeds it.
    tone : what the network sees of intensities; None until they have been counted.
    handover : blocks, tiles and region.
    spec : of level 0 of what is written.
    outputs : the mask, then centerlines where they are wanted.
    scratch : folder of ledgers and of what blocks hand over.
    engine, overwrite : see `PredictOptions`.
    notes : what the user should know.
    """

    image: Image
    card: Card
    choice: NetworkChoice
    level: int
    margin: Zyx
    tone: Tone | None
    handover: Handover
    spec: ArraySpec
    outputs: tuple[Output, ...]
    scratch: Path
    engine: EngineOptions
    overwrite: bool
    notes: tuple[str, ...]

    @property
    def mask(self) -> Output:
        """The probabilities of being foreground."""
        return self.outputs[0]

    @property
    def counted(self) -> bool:
        """Tell whether the volume's intensities are known: without them nothing can be run."""
        return self.tone is not None

    @property
    def known_tone(self) -> Tone:
        """Return what the network sees of intensities.

        Raises
        ------
        VolumeError
            If they have not been counted.
        """
        return self.tone or volume_tone(self.image, self.card.preprocessing)

    @property
    def tiles(self) -> int:
        """Number of tiles that an uninterrupted run evaluates."""
        return self.handover.count_tiles()

    @property
    def voxels(self) -> int:
        """Number of voxels that the run writes."""
        return roi_size(self.handover.roi)


def plan_prediction(volume: Path, options: PredictOptions) -> PredictPlan:
    """Decide everything that a prediction depends on; read metadata only.

    Raises
    ------
    VolumeError, ModelError, ParameterError
        If the volume, the model or an option cannot be used.
    """
    image = open_image(volume)
    check_place(image)
    options, chosen = settle_model(image, options)
    choice = choose_network(options)
    card = load_card(choice.model)
    shape = image.levels[0].shape
    form = find_architecture(card.architecture).viewed(options.views or "xy")
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
        build_lattice(shape, card, scales, form, options.views or "xy", options.tile),
        parse_roi(options.roi, shape) if options.roi else full_roi(shape),
    )
    notes += note_emulation(choice.device, choice.precision, options.engine)
    level = nearest_level(image, scales)
    tone = find_tone_of(image, card)
    decided = {"model": card.sha256, "tone": tone and asdict(tone), "level": level}
    header = {
        "format": FORMAT,
        "raw": image.attributes.get("fingerprint"),
        **decided,
        **_describe_work(handover, spec, choice),
    }
    mask = Output(
        probabilities_path(volume, options.name), json.loads(json.dumps(header)), card.name
    )
    return PredictPlan(
        image=image,
        card=card,
        choice=choice,
        level=level,
        margin=form.margin,
        tone=tone,
        handover=handover,
        spec=spec,
        outputs=(mask, centerline_of(mask)) if options.store_centerline else (mask,),
        scratch=scratch_path(volume),
        engine=options.engine,
        overwrite=options.overwrite,
        notes=chosen + notes,
    )


def _describe_work(handover: Handover, spec: ArraySpec, choice: NetworkChoice) -> dict[str, Any]:
    """Describe how the network is laid over the volume, and evaluated."""
    return {
        "lattice": [asdict(a) for a in handover.lattice.axes],
        "roi": [[s.start, s.stop] for s in handover.roi],
        "block": handover.grid.size,
        "shard": spec.shard,
        "averaged": [choice.tta, choice.rotations, choice.views],
        "device": choice.device,
        "precision": choice.precision,
    }


def with_intensities(plan: PredictPlan, image: Image) -> PredictPlan:
    """Complete the plan of a volume whose intensities have been counted since.

    Raises
    ------
    VolumeError
        If they have not.
    """
    tone = volume_tone(image, plan.card.preprocessing)
    known = {"raw": image.attributes["fingerprint"], "tone": json.loads(json.dumps(asdict(tone)))}
    outputs = tuple(replace(o, header={**o.header, **known}) for o in plan.outputs)
    return replace(plan, image=image, tone=tone, outputs=outputs)


def find_tone_of(image: Image, card: Card) -> Tone | None:
    """Find what the network sees of intensities; None where they have not been counted.

    Raises
    ------
    VolumeError
        If they are of a type that cannot be counted.
    """
    if image.attributes.get("histogram"):
        return volume_tone(image, card.preprocessing)
    check_counted(image.levels[0])
    return None


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
