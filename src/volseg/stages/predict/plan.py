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
from volseg.sources.masks import open_mask
from volseg.stages.predict.device import note_emulation
from volseg.stages.predict.lattice import build_lattice, nearest_level, network_scales
from volseg.stages.predict.look import Look, Wishes, is_wanted, look_at
from volseg.stages.predict.network import (
    PredictOptions,
    check_averaging,
    choose_network,
    settle_model,
)
from volseg.stages.predict.outputs import Output, centerline_of, note_untaught
from volseg.stages.predict.tasks import NetworkChoice
from volseg.stages.survey import advise, read_survey
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.volumes import (
    Image,
    open_image,
    probabilities_path,
    scratch_path,
)
from volseg.storage.weights import Card, load_card
from volseg.types import Zyx

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
    look : how the network sees the volume; None until that has been looked at.
    wishes : choices of how to look at it.
    handover : blocks, tiles and region.
    spec : of level 0 of what is written.
    outputs : the mask, then centerlines where they are wanted.
    scratch : folder of ledgers and of what blocks hand over.
    options : that it was made by.
    notes : what the user should know.
    """

    image: Image
    card: Card
    choice: NetworkChoice
    level: int
    margin: Zyx
    look: Look | None
    wishes: Wishes
    handover: Handover
    spec: ArraySpec
    outputs: tuple[Output, ...]
    scratch: Path
    options: PredictOptions
    notes: tuple[str, ...]

    @property
    def mask(self) -> Output:
        """The probabilities of being foreground."""
        return self.outputs[0]

    @property
    def engine(self) -> EngineOptions:
        """Workers and scheduler."""
        return self.options.engine

    @property
    def overwrite(self) -> bool:
        """Tell whether a different result may be replaced."""
        return self.options.overwrite

    @property
    def counted(self) -> bool:
        """Tell whether the volume has been looked at: without that nothing can be run."""
        return self.look is not None

    @property
    def known_look(self) -> Look:
        """Return how the network sees the volume.

        Raises
        ------
        VolumeError
            If nobody has looked at it.
        """
        if self.look is None:
            raise VolumeError(
                f"{self.image.path} has no histogram of its intensities; "
                f"`{command('segment', self.image.path)}` counts them"
            )
        return self.look

    @property
    def tiles(self) -> int:
        """Number of tiles that an uninterrupted run evaluates, where all is tissue."""
        mask = self.wishes.mask
        if mask is None:
            return self.handover.count_tiles()
        return sum(is_wanted(self.handover, mask, tile) for tile in self.handover.reaching())

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
    scales, notes = network_scales(image, card, form, options.zoom)
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
    wishes = _wishes_for(volume, image, options)
    look = look_at(image, level, card.preprocessing, wishes)
    header = {
        "format": FORMAT,
        "model": card.sha256,
        "level": level,
        **describe_look(image, look, wishes),
        **_describe_work(handover, spec, choice, options.zoom),
    }
    output = Output(
        probabilities_path(volume, options.name), json.loads(json.dumps(header)), card.name
    )
    return PredictPlan(
        image=image,
        card=card,
        choice=choice,
        level=level,
        margin=form.margin,
        look=look,
        wishes=wishes,
        handover=handover,
        spec=spec,
        outputs=(output, centerline_of(output)) if options.store_centerline else (output,),
        scratch=scratch_path(volume),
        options=options,
        notes=chosen + notes + advise(read_survey(image)),
    )


def _describe_work(
    handover: Handover, spec: ArraySpec, choice: NetworkChoice, zoom: float
) -> dict[str, Any]:
    """Describe how the network is laid over the volume, and evaluated."""
    # without a zoom, runs are those of versions that had none
    zoomed = {} if zoom == 1 else {"zoom": zoom}
    return zoomed | {
        "lattice": [asdict(a) for a in handover.lattice.axes],
        "roi": [[s.start, s.stop] for s in handover.roi],
        "block": handover.grid.size,
        "shard": spec.shard,
        "averaged": [choice.tta, choice.rotations, choice.views],
        "device": choice.device,
        "precision": choice.precision,
    }


def _wishes_for(volume: Path, image: Image, options: PredictOptions) -> Wishes:
    mask = open_mask(volume, image, options.mask) if options.mask is not None else None
    return Wishes(options.normalise, options.invert, mask)


def describe_look(image: Image, look: Look | None, wishes: Wishes) -> dict[str, Any]:
    """List what of a volume, and of how it is looked at, decides a result."""
    raw = image.attributes.get("fingerprint")
    if look is None:
        return {"raw": raw, "tone": None, **wishes.describe()}
    return {"raw": raw, "tone": asdict(look.tone), **look.describe(), **wishes.describe()}


def with_survey_of(plan: PredictPlan, image: Image) -> PredictPlan:
    """Complete the plan of a volume that has been looked at since.

    Raises
    ------
    VolumeError
        If it has not.
    """
    look = look_at(image, plan.level, plan.card.preprocessing, plan.wishes)
    known = json.loads(json.dumps(describe_look(image, look, plan.wishes)))
    outputs = tuple(replace(o, header={**o.header, **known}) for o in plan.outputs)
    notes = plan.notes + advise(read_survey(image))
    return replace(plan, image=image, look=look, outputs=outputs, notes=notes)


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
