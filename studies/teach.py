"""Teach weights on tissue that they never saw, let the truth click, and measure what it brings.

    python studies/teach.py --data annotated --model runs/without-ncmir/unet2d-general.safetensors

``annotated`` is that of leave_one_out.py; the weights never saw ``ncmir``. The ten largest false
and the five largest missed sections of slices 2, 5 and 8 of its validation part are marked; what is
measured lies in its other slices, at a threshold of 0.5 with nothing dropped, and in slices 132-164
of ``lucchi_pp``, which the weights do know (``--known`` names some of them, ``--known 0:0`` none).
Prints one JSON object per row: before, and in each round what is left when the marked objects are
dropped from what was shown, what the new weights find, and which objects they confirm; the clicks
of the next round are on those. Objects are those of all slices. ``--drop`` leaves the training out.
With several ``--strengths`` it trains once, and measures each of them. Give ``--folder`` to keep
volumes, weights and contact sheets.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from annotated import sets_in, stacked
from leave_one_out import score

import volseg
from volseg.defaults import NAME, STRENGTH
from volseg.engine.progress import NoProgress
from volseg.errors import ParameterError
from volseg.geometry.grid import full_roi
from volseg.objects.intervals import find_intervals
from volseg.sources.labels import open_label_path, open_labels
from volseg.stages.teach.learn import between
from volseg.stages.teach.run import TeachOptions, teach
from volseg.stages.teach.simulate import click
from volseg.storage.cards import load_card
from volseg.storage.marks import Mark, load_rounds
from volseg.storage.volumes import labels_path, open_image
from volseg.storage.weights import load_weights, save_weights

TAUGHT = f"{NAME}-taught"
SLICES = {"ncmir": (2, 5, 8), "vnc": (3, 10, 16)}
"""In which the truth clicks."""


def find_objects(volume: Path, model: Path, name: str) -> None:
    """Segment all slices along z."""
    rules = {"threshold": 0.5, "min_size": 0, "min_probability": 0}
    volseg.segment(volume, model=str(model), name=name, views="xy", overwrite=True, **rules)


def click_on(volume: Path, shown: str, truth: Path, marked: Sequence[int], file: Path) -> Path:
    """Let the truth click on what is shown, and write the points as a user's would be.

    Nothing is clicked that was marked before, for whatever reason, and no object of which at least
    half is true is called false for one of its sections.
    """
    labels, source = open_labels(volume, shown), open_label_path(truth)
    known = [m for entry in load_rounds(volume, NAME, labels.shape) for m in entry.marks]
    whole = full_roi(labels.shape)
    found, true = labels[whole], source[whole] > 0
    sizes, right = np.bincount(found.ravel()), np.bincount(found.ravel(), true.ravel())
    mostly = (2 * right >= sizes) & (np.arange(len(sizes)) > 0)
    known.append(
        Mark(yes=False, name="true", spans=find_intervals(mostly[found], whole, labels.shape))
    )
    either = [replace(m, yes=yes) for m in known for yes in (False, True)]
    clicks = click(labels, source, marked, either)
    rows = [",".join(map(str, (*p.place, "yes" if p.yes else "no"))) for p in clicks]
    file.write_text("\n".join(["z,y,x,mark", *rows]), encoding="utf-8")
    return file


def measure_others(
    volume: Path, truth: Path, marked: Sequence[int], name: str = NAME
) -> dict[str, float]:
    """Compare the slices in which nothing was marked with the truth, and all objects."""
    labels, source = open_image(labels_path(volume, name)).levels[0], open_label_path(truth)
    kept = [z for z in range(labels.shape[0]) if z not in marked]
    roi = full_roi(labels.shape)
    found, true = labels[roi][kept] > 0, source[roi][kept] > 0
    both = int((found & true).sum())
    objects = volseg.evaluate(volume, truth=truth, name=name).objects
    return {
        "false voxels": int((found & ~true).sum()),
        "precision": round(both / max(int(found.sum()), 1), 3),
        "recall": round(both / max(int(true.sum()), 1), 3),
        "Jaccard": round(both / max(int((found | true).sum()), 1), 3),
        "precision of objects": round(objects.precision, 3),
        "recall of objects": round(objects.recall, 3),
    }


def measure_applied(
    volume: Path, truth: Path, marked: Sequence[int], name: str, **how: Any
) -> dict[str, float]:
    """Drop objects of a result, and measure what is left as `measure_others` does."""
    outcome = f"{name}-{'marked' if 'marks' in how else 'confirmed'}"
    volseg.apply(volume, name=name, overwrite=True, **how)
    return measure_others(volume, truth, marked, outcome)


def keep_part(old: Path, whole: Path, part: float, into: Path) -> None:
    """Write weights as `teach` does with this strength, given those that it makes with 1."""
    card = asdict(load_card(str(whole)))
    before, after = (load_weights(str(p), load_card(str(p))) for p in (old, whole))
    save_weights(into, between(before, after, part), card)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--set", choices=tuple(SLICES), default="ncmir")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, help="in place of minutes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--slices", type=int, nargs=3, help="in which the truth clicks")
    parser.add_argument("--strengths", type=float, nargs="+", default=[STRENGTH])
    parser.add_argument("--known", default="132:165", help="slices of lucchi_pp")
    parser.add_argument("--drop", action="store_true", help="drop objects; change no weights")
    parser.add_argument("--folder", type=Path)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        sets = sets_in(arguments.data)
        chosen = sets[arguments.set]
        marked = tuple(arguments.slices or SLICES[arguments.set])
        held = chosen.more or (chosen.raw, chosen.labels)
        raw, truth = (stacked(arguments.data / p, folder) for p in held)
        known = [stacked(arguments.data / p, folder) for p in (sets["lucchi_pp"].raw,)]
        known += [stacked(arguments.data / sets["lucchi_pp"].labels, folder)]
        volume, size = folder / f"{arguments.set}.zarr", chosen.voxel_size
        volseg.convert(raw, volume, voxel_size=size)

        def print_row(what: str, row: Mapping[str, Any]) -> None:
            print(json.dumps({"round": what, **row}), flush=True)

        def know(model: Path) -> dict[str, float]:
            first, stop = (int(n) for n in arguments.known.split(":"))
            if stop <= first:
                return {}
            looked = {"model": str(model), "roi": f"{first}:{stop},:,:", "views": "xy"}
            found = score((known[0], known[1]), sets["lucchi_pp"].voxel_size, **looked)
            return {"Jaccard of lucchi_pp": found["Jaccard"]}

        others = volume, truth, marked
        find_objects(volume, arguments.model, NAME)
        print_row("before", {**measure_others(*others), **know(arguments.model)})
        shown = base = NAME
        for number in range(1, arguments.rounds + 1):
            begun = time.monotonic(), time.process_time()
            clicks = click_on(volume, shown, truth, marked, folder / f"clicks-{number}.csv")
            options = TeachOptions(
                points=((clicks, None),),
                slices=marked,
                minutes=0 if arguments.drop else arguments.minutes,
                steps=None if arguments.drop else arguments.steps,
                strength=1.0,
                model=str(arguments.model),
            )
            report = teach(volume, options, NoProgress())
            spent = {
                "minutes": round((time.monotonic() - begun[0]) / 60, 1),
                "processor minutes": round((time.process_time() - begun[1]) / 60, 1),
                "steps": report.steps,
                "marks": [report.marked_no, report.marked_yes],
                "marked, before": np.round(report.before, 3).tolist(),
                "marked, after all of it": np.round(report.after, 3).tolist(),
            }
            with suppress(ParameterError):  # where nothing that is shown is marked none
                dropped = measure_applied(*others, base, marks=True)
                print_row(f"round {number}, marked dropped", {**spent, **dropped})
                shown = f"{base}-marked"
            for part in () if report.weights is None else arguments.strengths:
                model = folder / f"{arguments.set}-{number}-{part:g}.safetensors"
                keep_part(arguments.model, report.weights, part, model)
                find_objects(volume, model, TAUGHT)
                row = {"strength": part, **measure_others(*others, TAUGHT), **know(model)}
                print_row(f"round {number}, new weights", row)
                with suppress(ParameterError):  # where all are confirmed
                    confirmed = measure_applied(*others, NAME, confirmed_by=TAUGHT)
                    print_row(f"round {number}, confirmed", confirmed)
                    shown = base = f"{NAME}-confirmed"


if __name__ == "__main__":
    main()
