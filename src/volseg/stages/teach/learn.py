"""Train on marks, with the loop of `train`: from the weights in use, in a few minutes."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from volseg import __version__
from volseg.stages.teach.judged import Judged
from volseg.stages.teach.lesson import Lesson
from volseg.stages.train.loop import Events, train_steps
from volseg.stages.train.recipe import build_config
from volseg.stages.train.state import Start, start_run
from volseg.storage.cards import UNSTATED, Card
from volseg.storage.marks import Mark
from volseg.training.augmentation import CALM
from volseg.training.config import TrainConfig

RATE = 1e-4


def teaching_recipe(card: Card, minutes: float | None, steps: int | None = None) -> TrainConfig:
    """Fill in a recipe for so many minutes, or steps.

    A step shows one patch: in a mean over several, the few voxels of a mark would count for little.
    The statistics of batch norms stay as they are.
    """
    given = {
        "architecture": card.architecture,
        "width": card.width,
        "preprocessing": card.preprocessing,
        "loss": "bce-dice",
        "batch": 1,
        "minutes": None if steps else minutes,
        "steps": steps,
        "learning_rate": RATE,
        "weight_decay": 0.0,
        "ema": 0.98,
        "freeze_norms_after": 0.0,
        "foreground_share": 0.8,
        "validate_every": 1 << 30,
        "augmentation": CALM,
    }
    return build_config(given)


def learn(
    lesson: Lesson,
    config: TrainConfig,
    start: Start,
    workers: int,
    strength: float,
    on_step: Callable[[float], None],
) -> tuple[tuple[nn.Module, nn.Module], int]:
    """Train; return the old and the new network, and the steps that were taken.

    The new one lies between the old one and what the training ended with, see `between`.

    Parameters
    ----------
    strength : part of what the training changed that is kept
    on_step : is told the part of the training that is done
    """
    eye = lesson.eye
    run = start_run(config, None, eye.device, eye.precision, start=start)
    old = copy.deepcopy(run.averaged)
    sources = [*lesson.show_marks(), *lesson.remember(old)]
    events = Events(
        lambda run: on_step(min(run.progress, 1.0)), lambda _run, _row: None, lambda _run: None
    )
    # the loop keeps a checkpoint; a lesson takes minutes, and is begun anew where it was killed
    with tempfile.TemporaryDirectory(prefix="volseg-teach-") as folder:
        configuration = json.dumps(asdict(config))
        train_steps(run, (sources, sources[:1]), Path(folder), configuration, workers, events)
    new = copy.deepcopy(old)
    new.load_state_dict(between(old.state_dict(), run.averaged.state_dict(), strength))
    return (old, new), run.step


def between(old: Mapping[str, Tensor], new: Mapping[str, Tensor], part: float) -> dict[str, Tensor]:
    """Go some part of the way from old weights to new ones (Wortsman et al., CVPR 2022).

    Examples
    --------
    >>> between({"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 2.0])}, 0.5)["w"].tolist()
    [0.5, 1.0]
    """
    return {
        name: torch.lerp(tensor, new[name], part) if tensor.is_floating_point() else new[name]
        for name, tensor in old.items()
    }


def make_card(
    weights: Path,
    judged: Judged,
    marks: Sequence[Mark],
    config: TrainConfig,
    steps: int,
    strength: float,
) -> dict[str, Any]:
    """Describe the new weights by those that they were made from, and by the marks.

    What was measured of the old ones does not hold for them.
    """
    card = judged.card
    origin = {"name": card.name, "sha256": card.sha256}
    terms = card.training.get("terms", UNSTATED)
    taught = {
        "data": {"marks on": judged.image.path.name, "marks": [describe_mark(m) for m in marks]},
        "terms": terms,
        "from": origin,
        "made on": dict(judged.made_on),
        "recipe": asdict(config),
        "steps": steps,
        "strength": strength,
        **({} if config.minutes is None else {"minutes": config.minutes}),
        "volseg": __version__,
    }
    content = {name: value for name, value in asdict(card).items() if name != "sha256"}
    nothing: dict[str, Any] = {"scores": {}, "tissue": {}, "ranges": {}}
    return {**content, "name": weights.stem, "training": taught, **nothing}


def describe_mark(mark: Mark) -> str:
    """Say what was marked, in a few words."""
    voxels = int((mark.spans[:, 1] - mark.spans[:, 0]).sum())
    return f"{'yes' if mark.yes else 'no'}: {mark.name}, {voxels} voxels"
