r"""Tell known tissue from unknown, and what precision to expect: leave one data set out.

    python studies/foreign.py --data annotated \
        --left vnc=runs/without-vnc/unet2d-general.safetensors \
        --left ncmir=runs/without-ncmir/unet2d-general.safetensors ...

``annotated`` is that of leave_one_out.py. For each set that weights never saw, prints how well
distances rank slices that known sets held out below its slices (area under the curve), how far each
part lies, and the precision of voxels there by the card's rules. ``--compare`` tries other
distances and other layers, too. ``--write MODEL`` writes into the card of a model, by name or path,
what its training data look like, and the precision that was measured; run it last, on weights that
were trained on all of the sets, or on those of ``--known``. ``--left none=MODEL`` adds what a model
that knows all does on what they held out:

    python studies/foreign.py --data annotated --left vnc=unet2d --left ncmir=unet2d \
        --left cardiac=unet2d --known lucchi_pp --write unet2d
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from annotated import SETS, DataSet, Place, pairs_of, places_of, sets_in, stacked
from leave_one_out import RECIPE
from torch import Tensor, nn

import volseg
from volseg.defaults import NAME
from volseg.engine.progress import NoProgress
from volseg.scores.likeness import LIKE, fit_reference, name_likeness
from volseg.stages.survey.likeness import (
    describe_training,
    first_block,
    sample_features,
)
from volseg.stages.train.data import TrainingData, open_training_data
from volseg.stages.train.recipe import build_config
from volseg.storage.cards import Card, find_weights, load_card, update_card
from volseg.storage.weights import load_weights
from volseg.training.sampling import Source
from volseg.types import FULL_PROBABILITY, Doubles

SLICES, PLACES = 10, 4
"""Slices of a part, and places of a slice."""


class Until(nn.Module):
    """A network, and the features that one of its blocks finds."""

    def __init__(self, network: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, list[Tensor]()
        block.register_forward_hook(lambda _module, _given, found: self.seen.append(found))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of (n, 1, *space)."""
        self.seen.clear()
        self.network(x)
        return self.seen[-1]


@dataclass(frozen=True)
class Part:
    """A part of a data set: of which set, whether that was trained on, and where it is."""

    name: str
    known: bool
    source: Source
    place: Place


def open_sets(data: Path, names: Sequence[str], card: Card, scratch: Path) -> TrainingData:
    """Open data sets as they were trained on."""
    given = {
        **RECIPE,
        "architecture": card.architecture,
        "resample_to": card.voxel_size,
        "steps": 1,
    }
    if card.form.dimensions == 3:
        given["patch"] = (32, 96, 96)
    recipe = build_config({**given, "width": card.width, "preprocessing": card.preprocessing})
    return open_training_data(pairs_of(data, list(names), scratch), recipe, None, NoProgress())


def slices_of(source: Source) -> list[Source]:
    """Cut some slices out of a part."""
    z = source.roi[0]
    listed = np.arange(z.start, z.stop) if source.slices is None else source.slices
    chosen = listed[np.linspace(0, len(listed) - 1, min(SLICES, len(listed))).round().astype(int)]
    return [
        replace(source, roi=(slice(int(k), int(k) + 1), *source.roi[1:]), slices=np.array([k]))
        for k in chosen
    ]


def area_under_curve(low: Sequence[float], high: Sequence[float]) -> float:
    """Find the share of pairs of which the second is the larger one."""
    return float((np.array(low)[:, None] < np.array(high)[None]).mean())


def compare_ways(training: list[Doubles]) -> dict[str, Callable[[Doubles], Doubles]]:
    """List the distances that are tried, each fitted to training data, source by source."""
    every = np.concatenate(training)
    scale = np.mean([t.std(axis=0) for t in training], axis=0) + 1e-6

    def to_nearest(features: Doubles) -> Doubles:
        apart = (features[:, None] - every[None]) / scale
        found: Doubles = np.sqrt((apart**2).mean(axis=2)).min(axis=1)
        return found

    return {
        "nearest source": fit_reference(training).measure,
        "all as one": fit_reference([every]).measure,
        "nearest place": to_nearest,
    }


def measure_precision(
    place: Place, chosen: DataSet, model: str, scratch: Path, data: Path
) -> tuple[float, float, float]:
    """Measure precision and recall of voxels, by the card's rules, and how sure the model was.

    That is the mean probability of all voxels above the threshold, as `label` takes it.
    """
    raw, labels = stacked(data / place.raw, scratch), stacked(data / place.labels, scratch)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        volume = Path(folder) / "vol.zarr"
        # without depth, the fields of one microscope are a stack: one scale of intensities
        volseg.convert(raw, volume, voxel_size=chosen.voxel_size)
        volseg.segment(volume, model=model, roi=place.roi, views="xy")
        found = volseg.evaluate(volume, truth=labels, roi=place.roi, min_size=None).foreground
        z = place.roi.split(",")[0].split(":") if place.roi else (None, None)
        levels = volseg.open(volume).probabilities[NAME][slice(*(int(k) if k else None for k in z))]
    level = math.ceil(load_card(model).threshold * FULL_PROBABILITY)
    sure = float(levels[levels >= level].mean()) / FULL_PROBABILITY
    return found.precision, found.recall, sure


def parts_of(data: Path, opened: Mapping[str, TrainingData], unknown: Sequence[str]) -> list[Part]:
    """List what known sets hold out, and all parts of the unknown ones."""
    parts = []
    for name, found in opened.items():
        training, held = places_of(sets_in(data)[name])
        sources, places = found.validation, held
        if name in unknown:
            sources, places = [*found.training, *sources], [training, *held]
        parts += [
            Part(name, name not in unknown, source, place)
            for source, place in zip(sources, places, strict=True)
        ]
    return parts


def look(
    data: Path, left: str, model: str, known: Sequence[str], compare: bool, scratch: Path
) -> list[dict[str, Any]]:
    """Measure distances and precision with weights that never saw one set; print them."""
    card = load_card(model)
    form = card.form
    network = form.build(card.width)
    network.load_state_dict(load_weights(model, card))
    network.eval()
    names = [name for name in known if name != left]
    unknown_sets = [left] if left in SETS else []
    opened = {n: open_sets(data, [n], card, scratch) for n in (*names, *unknown_sets)}
    parts = parts_of(data, opened, unknown_sets)
    blocks: dict[str, nn.Module] = {"first": first_block(network)}
    if compare:
        for name, block in (
            ("second", network.encoder[1]),
            ("third", network.encoder[2]),
            ("deepest", network.encoder[-1]),
            ("last", network.decoder[-1]),
        ):
            blocks[name] = Until(network, block)
    rows = []
    for layer, block in blocks.items():
        training = [
            np.concatenate([sample_features(block, s, form, 40) for s in opened[n].training])
            for n in names
        ]
        seen = [
            [sample_features(block, s, form, PLACES) for s in slices_of(part.source)]
            for part in parts
        ]
        for way, measure in compare_ways(training).items():
            if not compare and way != "nearest source":
                continue
            far = [[float(measure(f).mean()) for f in slices] for slices in seen]
            unknown = [d for p, ds in zip(parts, far, strict=True) if not p.known for d in ds]
            areas = {
                p.name: round(area_under_curve(ds, unknown), 3)
                for p, ds in zip(parts, far, strict=True)
                if p.known and unknown
            }
            if areas:
                mean = round(float(np.mean(list(areas.values()))), 3)
                row = {"left out": left, "layer": layer, "distance": way, "area": mean, **areas}
                print(json.dumps(row), flush=True)
            if layer == "first" and way == "nearest source":
                rows = [float(np.median(np.concatenate([measure(f) for f in s]))) for s in seen]
    found = []
    for part, distance in zip(parts, rows, strict=True):
        chosen = sets_in(data)[part.name]
        precision, recall, sure = measure_precision(part.place, chosen, model, scratch, data)
        found.append(
            {
                "left out": left,
                "part of": part.name,
                "known": part.known,
                "distance": round(distance, 2),
                "likeness": name_likeness(distance),
                "precision": round(precision, 3),
                "recall": round(recall, 3),
                "mean probability": round(sure, 3),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Read the rows of parts that earlier calls printed."""
    if path is None:
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [row for row in lines if "part of" in row]


def calibrate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Find the lowest and highest ratio of precision to mean probability, by likeness.

    The interval of what is unlike the training data covers that of what is like them: it cannot be
    the surer one.
    """
    found: dict[str, Any] = {}
    measured: list[float] = []
    # one model that never saw several sets tells of its own in each call
    rows = list({(r["part of"], r["distance"], r["precision"]): r for r in rows}.values())
    for likeness in ("like", "unlike"):
        ratios = [
            r["precision"] / r["mean probability"]
            for r in rows
            if name_likeness(r["distance"]) == likeness
        ]
        if len(ratios) > 1:
            measured += ratios
            found[likeness] = [round(min(measured), 3), round(max(measured), 3)]
            found[f"{likeness}, measured on"] = f"{len(measured)} parts of sets"
    return found


def main() -> None:
    """Print the table, and write a card where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--left", action="append", default=[], help="SET=WEIGHTS, may be repeated")
    parser.add_argument("--known", nargs="+", default=list(SETS), help="sets that were trained on")
    parser.add_argument("--compare", action="store_true", help="other layers and distances, too")
    parser.add_argument("--rows", type=Path, help="what earlier calls printed, which counts, too")
    parser.add_argument("--write", help="name or path of weights whose card gets the reference")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch, rows = Path(folder), read_rows(arguments.rows)
        for pair in arguments.left:
            left, _, model = pair.partition("=")
            rows += look(arguments.data, left, model, arguments.known, arguments.compare, scratch)
        precision = calibrate(rows)
        print(json.dumps({"like up to": LIKE, **precision}))
        if arguments.write:
            path = find_weights(arguments.write)
            card = load_card(path)
            data = open_sets(arguments.data, arguments.known, card, scratch)
            tissue = describe_training(path, card, data.training)
            update_card(path, {"tissue": {**tissue, "precision": precision}})


if __name__ == "__main__":
    main()
