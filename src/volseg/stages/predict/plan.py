"""Plan a prediction: everything that decides the result, before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from volseg.errors import VolumeError, command
from volseg.fields import as_json
from volseg.geometry.grid import Grid, full_roi, parse_roi, roi_size, whole_multiples
from volseg.geometry.handover import Handover
from volseg.models.compiled import OPENVINO
from volseg.models.devices import CPU_SLICES
from volseg.sources.masks import MaskSource, open_mask
from volseg.stages.predict.lattice import build_lattices, nearest_level, network_scales
from volseg.stages.predict.loading import NetworkChoice
from volseg.stages.predict.look import Look, is_wanted, look_at
from volseg.stages.predict.network import PredictOptions, settle_network
from volseg.stages.predict.outputs import Output, list_outputs
from volseg.stages.survey.notes import advise, tell_astray
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.cards import Card
from volseg.storage.images import as_images
from volseg.storage.results import check_place
from volseg.storage.volumes import Image, open_image, scratch_path

FORMAT = 3
"""Raised whenever the same parameters come to mean another result."""
DEFAULT_BLOCK = (64, 512, 512)


@dataclass(frozen=True)
class PredictPlan:
    """A prediction: everything that decides the result, where it goes, and how it is run.

    Attributes
    ----------
    look : how the network sees the volume; None until that has been looked at.
    mask_labels : outside of which nothing is looked for; None is everywhere.
    outputs : classes, then auxiliary maps where they are wanted.
    scratch : folder of ledgers and of what blocks hand over.
    """

    image: Image
    card: Card
    choice: NetworkChoice
    level: int
    look: Look | None
    mask_labels: MaskSource | None
    handover: Handover
    spec: ArraySpec
    outputs: tuple[Output, ...]
    scratch: Path
    options: PredictOptions
    notes: tuple[str, ...]

    @property
    def mask(self) -> Output:
        """The probabilities of the first class."""
        return self.outputs[0]

    @property
    def counted(self) -> bool:
        """Tell whether the volume has been looked at: without that nothing can be run."""
        return self.look is not None

    @property
    def known_look(self) -> Look:
        """Return how the network sees the volume."""
        if self.look is None:
            raise VolumeError(
                f"{self.image.path} has no histogram of its intensities; "
                f"`{command('segment', self.image.path)}` counts them"
            )
        return self.look

    @property
    def resampled(self) -> bool:
        """Tell whether the network's voxels are others than those of the level that it reads.

        The distance of the slices that it sees is no matter: all versions sum those alike.
        """
        level = self.image.factors[self.level]
        sliced = self.card.form.dimensions == 2
        return any(
            axis.scale != level[k]
            for each in self.handover.lattices
            for k, axis in enumerate(each.axes)
            if not (sliced and k == each.normal)
        )

    @property
    def tiles(self) -> int:
        """Number of tiles that an uninterrupted run evaluates, where all is tissue."""
        mask = self.mask_labels
        if mask is None:
            return sum(self.handover.count_tiles())
        return sum(is_wanted(self.handover, mask, tile) for tile in self.handover.reaching())

    @property
    def voxels(self) -> int:
        """Number of voxels that the run writes."""
        return roi_size(self.handover.roi)


def plan_prediction(volume: Path, options: PredictOptions) -> PredictPlan:
    """Decide everything that a prediction depends on; read metadata only."""
    image = as_images(open_image(volume), asked=options.images)
    check_place(image)
    named = options.model is not None
    options, choice, card, chosen, settled = settle_network(image, options)
    shape = image.levels[0].shape
    scales, notes = network_scales(image, card, choice.views, options.zoom, named=named)
    spec = fit_spec(shape, "uint8")
    if options.shard is not None:
        spec = replace(spec, shard=options.shard, chunk=options.shard)
    handover = Handover(
        Grid(shape, whole_multiples(options.block or DEFAULT_BLOCK, spec.shard)),
        build_lattices(shape, card, scales, choice.views, options.tile),
        parse_roi(options.roi, shape) if options.roi else full_roi(shape),
    )
    own = build_lattices(shape, card, scales, choice.views)
    asked = {} if handover.lattices == own else {"tile": options.tile}
    level = nearest_level(image, scales)
    mask = None if options.mask is None else open_mask(image, options.mask)
    look, described = _look(image, level, card, options, mask)
    header = {
        "format": FORMAT,
        "model": card.sha256,
        "level": level,
        **described,
        **_describe_work(handover, spec, choice, options.zoom),
        **asked,
    }
    return PredictPlan(
        image=image,
        card=card,
        choice=choice,
        level=level,
        look=look,
        mask_labels=mask,
        handover=handover,
        spec=spec,
        outputs=list_outputs(volume, as_json(header), card.name, chosen),
        scratch=scratch_path(volume),
        options=options,
        notes=settled + notes + tell_astray(image) + advise(image),
    )


def _describe_work(
    handover: Handover, spec: ArraySpec, choice: NetworkChoice, zoom: float
) -> dict[str, Any]:
    """Describe how the network is laid over the volume, and evaluated."""
    # without a zoom, runs are those of versions that had none
    more: dict[str, Any] = {} if zoom == 1 else {"zoom": zoom}
    # on CPUs the size of a batch decides no more than last bits of a slice by itself
    if choice.device not in {"cpu", OPENVINO} or choice.batch != CPU_SLICES:
        more["batch"] = choice.batch
    if choice.gpu is not None:
        more["gpu"] = choice.gpu
    return more | {
        "lattice": [asdict(a) for lattice in handover.lattices for a in lattice.axes],
        "roi": [[s.start, s.stop] for s in handover.roi],
        "block": handover.grid.size,
        "shard": spec.shard,
        "averaged": [choice.tta, choice.rotations, choice.views],
        "device": choice.device,
        "precision": choice.precision,
    }


def _look(
    image: Image, level: int, card: Card, options: PredictOptions, mask: MaskSource | None
) -> tuple[Look | None, dict[str, Any]]:
    """Decide how a volume is looked at; list what of that, and of the volume, decides a result."""
    normalise, invert = options.normalise, options.invert
    look = look_at(image, level, card.preprocessing, normalise=normalise, invert=invert, mask=mask)
    found: dict[str, Any] = {"raw": image.attributes.get("fingerprint"), "tone": None}
    if look is not None:
        found |= {"tone": asdict(look.tone), **look.describe()}
    if invert:
        found["invert"] = True
    if mask is not None:
        found["mask"] = {"labels": mask.name, "fingerprint": mask.fingerprint}
    return look, found


def with_survey_of(plan: PredictPlan, image: Image) -> PredictPlan:
    """Complete the plan of a volume that has been looked at since."""
    look, described = _look(image, plan.level, plan.card, plan.options, plan.mask_labels)
    known = as_json(described)
    outputs = tuple(replace(o, header={**o.header, **known}) for o in plan.outputs)
    notes = plan.notes + advise(image)
    return replace(plan, image=image, look=look, outputs=outputs, notes=notes)
