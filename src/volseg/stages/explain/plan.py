"""Plan an explanation: of which prediction, in which region; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volseg.defaults import DEVICE, NAME
from volseg.errors import ConflictError, ParameterError
from volseg.fields import as_json
from volseg.geometry.grid import describe, parse_roi, roi_size
from volseg.models.devices import choose_device
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import PredictPlan, plan_prediction
from volseg.stages.verify.sample import plan_on_record
from volseg.storage.attributes import read_attributes, uncorrected
from volseg.storage.cards import load_card
from volseg.storage.images import explanations_path
from volseg.storage.locations import place_beside
from volseg.storage.plots import can_draw, check_picture
from volseg.storage.results import PARTING
from volseg.storage.stores import is_zarr
from volseg.storage.targets import check_file
from volseg.storage.volumes import Image, open_image, probabilities_path
from volseg.types import Roi

LARGEST = 1 << 23
"""Voxels of a region: its maps are kept in memory."""
ENDING = "-explain.png"


@dataclass(frozen=True)
class ExplainOptions:
    """Options of an explanation; see `volseg.api.looking.ExplainKeywords`."""

    roi: str
    name: str = NAME
    model: str | None = None
    device: str = DEVICE
    output: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_picture(self.output, "the contact sheet")


@dataclass(frozen=True)
class ExplainPlan:
    """An explanation: everything that decides it, and where it goes.

    Attributes
    ----------
    prediction : how the network is laid over the volume; its region is the one explained.
    sheet : PNG file; None where it cannot be drawn.
    """

    prediction: PredictPlan
    target: Path
    header: dict[str, Any]
    sheet: Path | None
    stands: bool
    overwrite: bool
    notes: tuple[str, ...]

    @property
    def image(self) -> Image:
        """The volume."""
        return self.prediction.image

    @property
    def roi(self) -> Roi:
        """The region."""
        return self.prediction.handover.roi


def plan_explanation(volume: Path, options: ExplainOptions) -> ExplainPlan:
    """Decide what is explained; read metadata only."""
    image = open_image(volume)
    roi = parse_roi(options.roi, image.levels[0].shape)
    if roi_size(roi) > LARGEST:
        raise ParameterError(
            f"the region {describe(roi)} has {roi_size(roi):,} voxels, and at most {LARGEST:,} "
            f"are explained at a time; give a smaller --roi"
        )
    prediction = _plan_prediction(volume, options)
    choice = replace(
        prediction.choice,
        device=choose_device(options.device).type,
        precision="float32",
        tta=False,
        rotations=False,
        maps=(_class_of(prediction),),
    )
    handover = replace(prediction.handover, roi=roi)
    prediction = replace(prediction, choice=choice, handover=handover)
    _ = prediction.known_look
    made = {k: v for k, v in prediction.mask.header.items() if k not in PARTING}
    made |= {"roi": [[s.start, s.stop] for s in roi], "precision": choice.precision}
    made["device"] = choice.device
    header = as_json(made)
    target = explanations_path(volume, options.name)
    noted = read_attributes(target).get("volseg") or {}
    stands = noted.get("run") == header
    if noted and not stands and not options.overwrite:
        raise ConflictError(
            f"{target} is of another region or network; give --overwrite to replace it"
        )
    notes, sheet = prediction.notes, None
    if can_draw():
        sheet = options.output or place_beside(volume, ENDING)
        check_file(
            sheet,
            overwrite=options.overwrite or (stands and noted.get("sheet") in {None, str(sheet)}),
        )
    else:
        notes += ("no contact sheet without matplotlib: pip install 'volseg[measure]'",)
    return ExplainPlan(prediction, target, header, sheet, stands, options.overwrite, notes)


def _class_of(prediction: PredictPlan) -> int:
    """Return the place of the class that is explained, among the network's maps."""
    maps, places = prediction.card.maps, prediction.choice.maps
    classes = [k for k in places if not maps or maps[k].is_class]
    if len(classes) != 1:
        raise ParameterError(
            f"{prediction.card.name} knows {', '.join(maps[k].name for k in classes)}, and one "
            f"class is explained at a time; segment the volume, and give one of them as --name"
        )
    return classes[0]


def _plan_prediction(volume: Path, options: ExplainOptions) -> PredictPlan:
    """Plan the prediction on record again; another one where there is none, or by another model."""
    name, model = uncorrected(volume, options.name), options.model
    path = probabilities_path(volume, name)
    made = open_image(path).attributes.get("model") or {} if is_zarr(path) else None
    other = model is not None and made is not None
    if made is None or (other and load_card(model or "").sha256 != made.get("sha256")):
        own = None if name == NAME else name
        return plan_prediction(volume, PredictOptions(model, own, device=options.device))
    found = plan_on_record(volume, path, model)
    if found is None:
        raise ParameterError(
            f"how {path} was made is not on record, or its model does not come with volseg; name "
            f"the network that is to be explained with --model"
        )
    return found
