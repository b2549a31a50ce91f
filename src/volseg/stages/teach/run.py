"""Teach: take marks on a result, train for some minutes, and write new weights."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.defaults import DEVICE, MINUTES, NAME, STRENGTH
from volseg.engine.options import EngineOptions, available_cores
from volseg.engine.progress import Job, Progress
from volseg.errors import ConflictError, ParameterError
from volseg.models.devices import choose_device
from volseg.sources.annotations import read_annotations
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import check_axes, find_labels
from volseg.sources.points import Point, read_points
from volseg.stages.predict.look import look_apart
from volseg.stages.preview.places import choose_places, look_around
from volseg.stages.preview.run import place_sheet
from volseg.stages.teach.judged import Judged, open_judged
from volseg.stages.teach.learn import learn, make_card, teaching_recipe
from volseg.stages.teach.lesson import Eye, Lesson
from volseg.stages.teach.marks import Said, check_agreement, find_marks, is_same, renew
from volseg.stages.teach.show import (
    Next,
    draw_sheet,
    find_marked,
    propose_next,
    propose_rule,
    propose_section,
    read_objects,
)
from volseg.stages.teach.simulate import click
from volseg.stages.train.run import LOADERS
from volseg.stages.train.state import Start, training_precision
from volseg.storage.ledger import locked
from volseg.storage.locations import check_writable, folder_of, place_beside
from volseg.storage.marks import Mark, Round, load_rounds, save_rounds
from volseg.storage.plots import save_pixels
from volseg.storage.volumes import scratch_path, volume_tone
from volseg.storage.weights import load_weights, save_weights
from volseg.training.config import TrainConfig

PLACES = 12
"""Windows in which the network is to remember what it was sure of."""
LOOKING = 20.0
"""Seconds that choosing them may take, where chunks are large."""
UNTAUGHT: dict[str, Any] = {
    "weights": None,
    "before": (math.nan, math.nan),
    "after": (math.nan, math.nan),
    "steps": 0,
    "strength": 0.0,
    "sheet": None,
}
"""Part of a report where marks are kept, and nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class TeachOptions:
    """Options of `teach`; see `volseg.api.teaching.TeachKeywords`."""

    name: str = NAME
    marked_no: Sequence[int] = ()
    marked_yes: Sequence[int] = ()
    points: Sequence[tuple[Path, bool | None]] = ()
    painted: str | None = None
    slices: Sequence[int] | None = None
    simulate: str | None = None
    axes: str | None = None
    minutes: float = MINUTES
    steps: int | None = None
    strength: float = STRENGTH
    model: str | None = None
    output: Path | None = None
    sheet: Path | None = None
    device: str = DEVICE
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.minutes < math.inf:
            raise ParameterError(f"minutes must be 0 or more, found {self.minutes}")
        if self.steps is not None and self.steps < 1:
            raise ParameterError(f"steps must be at least 1, found {self.steps}")
        if not 0 < self.strength <= 1:
            raise ParameterError(f"strength must be above 0, and 1 at most, found {self.strength}")
        if not (self.minutes or self.steps) and (self.output or self.sheet):
            raise ParameterError(
                "minutes are 0, so nothing is trained and no weights or sheet are written; leave "
                "--output and --sheet out, or give --minutes"
            )


@dataclass(frozen=True)
class TeachReport:
    """Result of teaching.

    Attributes
    ----------
    weights : the new file, beside which its card stands; None where nothing was trained.
    parent : name or path of the weights that it was made from.
    before, after : parts of the voxels marked no, and yes, that are called mitochondria.
    strength : part of what it changed in the weights that was taken over.
    sheet : the contact sheet; None for networks of volumes.
    suspects : what to look at next; none where objects were not measured.
    max_section_um2 : a largest section that tells the marks apart; None where none does.
    rule : on a column of the table that tells marked objects apart; None where none does.
    segment : options with which the result was made, for the next command.
    """

    weights: Path | None
    parent: str
    marked_no: int
    marked_yes: int
    before: tuple[float, float]
    after: tuple[float, float]
    steps: int
    strength: float
    sheet: Path | None
    suspects: tuple[Next, ...]
    max_section_um2: float | None
    rule: str | None
    segment: Mapping[str, Any]
    seconds: float


def teach(volume: Path, options: TeachOptions, progress: Progress) -> TeachReport:
    """Train the weights of a result on marks, and write new ones beside the volume.

    Raises
    ------
    InputError
        If marks, weights or options cannot be used; nothing was written.
    TrainingError
        If the loss is not finite; the marks are kept.
    """
    begun = time.monotonic()
    judged = open_judged(volume, options.name, options.model)
    learning = _plan_lesson(volume, judged, options) if options.minutes or options.steps else None
    with locked(scratch_path(volume) / f"teach-{options.name}.lock"):
        kept = load_rounds(volume, options.name, judged.shape)
        rounds = _add_round(judged, options, kept)
        marks = [mark for entry in rounds for mark in entry.marks]
        if not marks:
            raise ParameterError(
                "nothing is marked; name false objects with --not and right ones with --yes, or "
                "give --points"
            )
        save_rounds(volume, options.name, rounds, judged.shape)
    taught = UNTAUGHT if learning is None else learning(marks, progress)
    objects = read_objects(volume, judged.labels)
    no, yes = find_marked(objects, [r.marks for r in rounds if r.made_on == judged.made_on])
    return TeachReport(
        parent=judged.model,
        marked_no=sum(not mark.yes for mark in marks),
        marked_yes=sum(mark.yes for mark in marks),
        suspects=propose_next(objects, no, yes, judged.image),
        max_section_um2=propose_section(marks, judged.shape, judged.image.voxel_size),
        rule=propose_rule(objects, no, yes),
        segment=judged.options(),
        seconds=time.monotonic() - begun,
        **taught,
    )


def _plan_lesson(
    volume: Path, judged: Judged, options: TeachOptions
) -> Callable[[Sequence[Mark], Progress], dict[str, Any]]:
    """Check all that training needs, before marks are kept; return what trains."""
    if judged.card.outputs > 1:
        raise ParameterError(
            f"{judged.model} gives {', '.join(m.name for m in judged.card.maps)}; only weights of "
            f"one map can be taught; give --minutes 0 to keep the marks, then volseg apply --marks"
        )
    if judged.rules.get("complement"):
        raise ParameterError(
            f"{judged.labels.path} are what is below the threshold (--complement), and marks teach "
            f"what is above it; give --minutes 0 to keep the marks, then volseg apply --marks"
        )
    _choose_files(volume, options)
    config = teaching_recipe(judged.card, options.minutes, options.steps)
    eye = _open_eye(judged, config, options.device)
    workers = options.workers or min(available_cores(), LOADERS)

    def train(marks: Sequence[Mark], progress: Progress) -> dict[str, Any]:
        lesson = Lesson(eye, marks, choose_places(look_around(judged.image, LOOKING), PLACES))
        start = Start(judged.card, load_weights(judged.model, judged.card))
        with Job(progress, 100, "%", "teaching").shown():
            told, part = _percent(progress), options.strength
            networks, steps = learn(lesson, config, start, workers, part, told)
        weights, sheet = _choose_files(volume, options)  # another lesson may have ended since
        card = make_card(weights, judged, marks, config, steps, part)
        save_weights(weights, networks[1].state_dict(), card)
        before, after = (lesson.measure(network, judged.threshold) for network in networks)
        drawn = draw_sheet(lesson, (judged.model, str(weights)), judged.zoom, judged.threshold)
        if drawn is not None:
            save_pixels(sheet, drawn)
        shown = None if drawn is None else sheet
        found = {"weights": weights, "before": before, "after": after}
        return {**found, "steps": steps, "strength": part, "sheet": shown}

    return train


def _choose_files(volume: Path, options: TeachOptions) -> tuple[Path, Path]:
    """Choose the files of new weights, and of the sheet; refuse those that stand."""
    weights = choose_weights(volume, options.output)
    sheet = place_sheet(volume, options.sheet or weights.with_suffix(".png"))
    if options.sheet is None and sheet.exists():
        raise ConflictError(f"{sheet} exists; choose another --output, or a --sheet")
    return weights, sheet


def choose_weights(volume: Path, output: Path | None) -> Path:
    """Choose a file for new weights: beside the volume, with a number that is free."""
    if output is not None:
        if output.suffix != ".safetensors":
            raise ParameterError(f"weights end in .safetensors, found {output.name!r}")
        for path in (output, output.with_suffix(".json")):
            if path.exists():
                raise ConflictError(f"{path} exists; choose another --output")
        check_writable(folder_of(output))
        return output
    numbered = (place_beside(volume, f"-taught-{n}.safetensors") for n in itertools.count(1))
    ends = ".safetensors", ".json", ".png"
    return next(p for p in numbered if not any(p.with_suffix(end).exists() for end in ends))


def _open_eye(judged: Judged, config: TrainConfig, device: str) -> Eye:
    chosen, invert = choose_device(device), bool(judged.run.get("invert", False))
    image, look = judged.image, config.preprocessing
    whole, apart = volume_tone(image, look, invert=invert), None
    if judged.card.form.dimensions == 2:
        apart = look_apart(image, image.levels[0], look, whole, invert=invert)
    return Eye(
        image,
        judged.card.form,
        config.patch,
        judged.scales,
        apart or whole,
        training_precision(config, chosen),
        chosen,
    )


def _add_round(judged: Judged, options: TeachOptions, kept: Sequence[Round]) -> list[Round]:
    """Add what is marked now to what was marked before, unless they contradict each other."""
    size, known = judged.image.voxel_size, [mark for entry in kept for mark in entry.marks]
    painted, truth = (
        None if given is None else refuse_greys(find_labels(judged.image, given, axes=options.axes))
        for given in (options.painted, options.simulate)
    )
    check_axes(options.axes, filter(None, (painted, truth)))
    points: list[Point] = []
    for path, yes in options.points:
        if path.suffix == ".json":
            points += read_annotations(path, yes, size, judged.image.space.corner)
        else:
            points += read_points(path, yes, size)
    if truth is not None:
        points += click(judged.labels, truth, options.slices, known)
    said = Said(
        [(n, False) for n in options.marked_no] + [(n, True) for n in options.marked_yes],
        points,
        painted,
        options.slices,
    )
    marks = find_marks(said, judged, EngineOptions(workers=options.workers))
    check_agreement([*known, *marks])
    # the same command again, after it was killed in training, marks nothing new
    fresh = [mark for mark in marks if not any(is_same(mark, other) for other in known)]
    return renew(kept, marks) + ([Round(tuple(fresh), judged.made_on)] if fresh else [])


def _percent(progress: Progress) -> Callable[[float], None]:
    told = 0

    def tell(part: float) -> None:
        nonlocal told
        progress.advance(int(part * 100) - told)
        told = int(part * 100)

    return tell
