"""Segment: from raw to counted objects, in one go: predict, label, and the pyramids of both."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from volseg.engine.options import ClusterOptions, EngineOptions
from volseg.engine.progress import Progress
from volseg.engine.run import same_workers
from volseg.models.maps import CENTERLINE, CONTOUR, OFFSET
from volseg.stages.label.plan import Foundation, LabelOptions, LabelPlan, found_on, plan_labels_on
from volseg.stages.label.rules import UNSPLIT, ObjectRules
from volseg.stages.label.run import LabelReport, label
from volseg.stages.label.source import GUIDES, choose_guides, open_probabilities
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.outputs import Output
from volseg.stages.predict.plan import PredictPlan, plan_prediction, with_survey_of
from volseg.stages.predict.run import PredictReport, hint_inverted, model_record, predict
from volseg.stages.segment.repair import Mended, mend_labels, mend_probabilities
from volseg.stages.survey.intensities import with_survey
from volseg.storage.attributes import update_attributes
from volseg.storage.images import sizes_of
from volseg.storage.locations import check_writable
from volseg.storage.predictions import KIND
from volseg.storage.results import fingerprint
from volseg.storage.volumes import open_image


@dataclass(frozen=True)
class SegmentOptions(ObjectRules):
    """Choices for a segmentation.

    Attributes
    ----------
    repair : look for damage in what is complete first, and make what is damaged again.
    """

    predict: PredictOptions = field(default_factory=PredictOptions)
    repair: bool = False

    @property
    def prediction(self) -> PredictOptions:
        """The prediction: auxiliary maps too, where objects are split by them."""
        lines = self.predict.store_centerline or self.split == CENTERLINE
        return replace(
            self.predict,
            store_centerline=lines,
            store_contour=self.split == CONTOUR,
            store_offset=self.split == OFFSET,
            images=self.images,
        )

    @property
    def labelling(self) -> LabelOptions:
        """The rules, and how labels are made."""
        return LabelOptions(
            **{rule.name: getattr(self, rule.name) for rule in fields(ObjectRules)},
            block=self.predict.block,
            shard=self.predict.shard,
            engine=self.predict.engine,
            overwrite=self.predict.overwrite,
        )


@dataclass(frozen=True)
class SegmentReport:
    """Reports of both stages.

    Attributes
    ----------
    classes : labels of each class, by the name of the result.
    """

    predict: PredictReport
    label: LabelReport
    seconds: float
    mended: tuple[Mended, ...] = ()
    notes: tuple[str, ...] = ()
    classes: Mapping[str, LabelReport] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentPlan:
    """A segmentation: the plans of its two stages, of which the second depends on the first."""

    prediction: PredictPlan
    labellings: tuple[LabelPlan, ...]
    options: SegmentOptions

    @property
    def notes(self) -> tuple[str, ...]:
        """List what the user should know before anything is computed."""
        outputs, split = self.prediction.outputs, self.options.split
        guided = {o.of for o in outputs if not o.is_class}
        return self.prediction.notes + tuple(
            f"the network gives no {split}s of {o.path.name}, so its objects that touch stay one"
            for o in outputs
            if split in GUIDES and o.is_class and o.of not in guided
        )


def plan_segmentation(volume: Path, options: SegmentOptions) -> SegmentPlan:
    """Plan both stages, and refuse now what either would refuse later; read metadata only."""
    return _add_labels(plan_prediction(volume, options.prediction), options)


def segment(plan: SegmentPlan, progress: Progress) -> SegmentReport:
    """Write ``probabilities/<name>`` and ``labels/<name>`` of a volume, of each class at once.

    On request, and to split objects by them, also auxiliary maps: centerlines, contours, offsets.

    Running it again does only what is missing.
    """
    begun, told = time.monotonic(), len(plan.prediction.notes)
    repair, mended = plan.options.repair, tuple[Mended, ...]()
    engine = one_worker_per_gpu(plan.options.predict)
    with same_workers(engine):
        if _is_unseen(plan.prediction):
            plan = _look_at(plan, engine, progress)
        if repair:
            mended = mend_probabilities(plan.prediction, progress)
        predicted = predict(plan.prediction, progress)
        labellings = plan.labellings
        if predicted.resumed:  # an earlier version has another record of the model
            labellings = _add_labels(plan.prediction, plan.options).labellings
        if repair:
            mended += tuple(m for each in labellings for m in mend_labels(each, progress))
        labelled = {each.name: label(each, progress) for each in labellings}
    notes = plan.prediction.notes[told:] + (
        hint_inverted(plan.prediction) if predicted.tiles else ()
    )
    first, seconds = next(iter(labelled.values())), time.monotonic() - begun
    return SegmentReport(predicted, first, seconds, mended, notes, labelled)


def _is_unseen(plan: PredictPlan) -> bool:
    """Tell whether the volume has to be looked at before anything is predicted."""
    if plan.counted and plan.image.attributes.get("survey"):
        return False
    # what a former version completed stays
    return not all(_stands(plan, output) for output in plan.outputs)


def _stands(plan: PredictPlan, output: Output) -> bool:
    """Tell whether an image is complete; before intensities are counted, none is known to be."""
    return plan.counted and output.stands(overwrite=plan.options.overwrite)


def _look_at(plan: SegmentPlan, engine: EngineOptions, progress: Progress) -> SegmentPlan:
    """Look at a volume that others wrote, or a former version; note it, and complete the plan."""
    image = plan.prediction.image
    check_writable(image.path)  # before all of it is read
    seen = with_survey(image, engine, progress)
    noted = {name: seen.attributes[name] for name in ("histogram", "fingerprint", "survey")}
    update_attributes(image.path, noted)
    return _add_labels(with_survey_of(plan.prediction, seen), plan.options)


def _add_labels(prediction: PredictPlan, options: SegmentOptions) -> SegmentPlan:
    volume, labellings = prediction.image.path, []
    for output in prediction.outputs:
        if not output.is_class:
            continue
        rules = options.labelling
        own = {str(o.header.get(KIND)): o for o in prediction.outputs if o.of == output.of}
        guides = [own[kind] for kind in choose_guides(options.split, own)]
        if options.split in GUIDES and not guides:  # of classes, some may have no such map
            rules = replace(rules, **UNSPLIT)
        source = _find_foundation(prediction, output, guides)
        labelling = replace(plan_labels_on(volume, source, rules), elsewhere=output.elsewhere)
        # what probabilities that stand were made from is not known before intensities are
        if prediction.counted or not output.path.exists():
            labelling.stands()
        labellings.append(labelling)
    return SegmentPlan(prediction, tuple(labellings), options)


def _find_foundation(plan: PredictPlan, mask: Output, guides: Sequence[Output]) -> Foundation:
    """Say from which probabilities labels will be made: those that stand, or those of the plan."""
    sizes = sizes_of(plan.image)
    if _stands(plan, mask):
        source = found_on(open_probabilities(plan.image.path, mask.path.name), sizes)
    else:
        record = model_record(plan, mask.place)
        space, shape, roi = plan.image.space, plan.spec.shape, mask.header["roi"]
        decided, inside = fingerprint(mask.header), mask.header.get("mask")
        source = Foundation(mask.path, shape, space, decided, record, roi, (), inside, sizes)
    known = []
    for output in guides:
        made = open_image(output.path).attributes if _stands(plan, output) else {}
        known.append((output.path, made.get("fingerprint", fingerprint(output.header))))
    return replace(source, guides=tuple(known))


def one_worker_per_gpu(options: PredictOptions) -> EngineOptions:
    """Start a worker for each GPU of this machine, where there are several, and no other wish."""
    engine, gpus = options.engine, torch.cuda.device_count()
    gpus = min(gpus, engine.workers or gpus)
    asked = engine.scheduler is not None or engine.cluster is not None
    if asked or gpus < 2 or options.device not in {"auto", "cuda"}:
        return engine
    cores = max(engine.threads // gpus, 1)
    return replace(engine, workers=None, cluster=ClusterOptions(workers=gpus, cores=cores, gpus=1))
