"""Everything that ten minutes of one data-centre GPU are for, in one call.

    make gpu DATA=packed OUT=results

Runs the tests that need a GPU, measures `segment` against the bare network and training with and
without its loader, trains the two generalists (unet2d, then emnet) and scores them on what was held
out. Writes weights, cards, logs and ``report.jsonl`` to OUT after every step, so that a call that
is cut off leaves what it had. ``packed`` is what `pack_data.py` makes.

Without DATA it rehearses all of that at toy size, on any machine: thin networks, a few steps, the
crop that ships with the project.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import leave_one_out
import numpy as np
import tifffile
import torch
from annotated import SETS, pairs_of
from leave_one_out import RECIPE, print_scores, train_on

from volseg.engine.memory import keep_freed_memory
from volseg.models.devices import choose_device
from volseg.stages.train.data import open_training_data
from volseg.stages.train.loop import hold_sources, take_step
from volseg.stages.train.recipe import build_config
from volseg.stages.train.state import start_run, training_precision
from volseg.training.loader import load_batches

ROOT = Path(__file__).parents[1]
CROP = ROOT / "examples" / "crop"
BUDGET = 530.0
"""Seconds of the whole call."""
FOR_SCORES = 45.0
"""Seconds that are kept for scoring, and for what comes after."""
PARTS = {"unet2d": 0.62, "emnet": 0.38}
"""Parts of the training time."""
RECIPES: dict[str, dict[str, Any]] = {
    "unet2d": {**RECIPE, "patch": (1, 512, 512), "batch": 16, "validate_every": 1000},
    "emnet": {
        **RECIPE,
        "architecture": "emnet-single",
        "width": 32,
        "patch": (32, 128, 128),
        "batch": 8,
        "validate_every": 500,
    },
}
TOY: dict[str, dict[str, Any]] = {
    "unet2d": {"width": 2, "patch": (1, 64, 64), "batch": 2},
    "emnet": {"width": 8, "patch": (12, 32, 32), "batch": 1},
}


class Report:
    """Steps of the call, each a line of ``report.jsonl`` as soon as it ends."""

    def __init__(self, folder: Path) -> None:
        self.path, self.begun = folder / "report.jsonl", time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return BUDGET - (time.monotonic() - self.begun)

    def add(self, step: str, **found: Any) -> None:
        """Write and print a line."""
        line = json.dumps({"step": step, "at": round(BUDGET - self.left, 1), **found})
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def make_toy(folder: Path) -> Path:
    """Write the crop in the places of all data sets, with a few of its slices."""
    raw, labels = (tifffile.imread(CROP / name)[:, :96, :96] for name in ("raw.tif", "labels.tif"))
    for name, known in SETS.items():
        (folder / name).mkdir(parents=True)
        for pair in (known.raw, known.labels), *([known.more] if known.more else []):
            for path, pixels in zip(pair, (raw, labels), strict=True):
                tifffile.imwrite(folder / path, pixels, photometric="minisblack")
    changes = {name: {"voxel_size": [5.0] * 3} for name in SETS}
    for name in ("lucchi_pp", "vnc"):
        changes[name]["validation"] = "26:32,:,:"
    (folder / "sets.json").write_text(json.dumps(changes), encoding="utf-8")
    return folder


def run_tests(report: Report) -> None:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-n", "0", "tests"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
        report.add("tests", status=done.returncode, said=last)
    except subprocess.TimeoutExpired:
        report.add("tests", status="took more than 60 s")


def measure_segment(report: Report, folder: Path, *, toy: bool) -> None:
    """Measure prediction with everything included, against the bare network and its floors."""
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *(["--toy"] if toy else [])]
    command = [*script, "--output", str(folder / "gpu.jsonl"), "--budget", "130"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
        report.add("segment", said=(done.stdout or done.stderr).strip()[-4000:])
    except subprocess.TimeoutExpired:
        report.add("segment", said="took more than 150 s")


def measure_training(
    report: Report, name: str, recipe: dict[str, Any], data: Path, scratch: Path
) -> None:
    """Measure the loader alone, the network alone, and both."""
    config = build_config({**recipe, "steps": 1000})
    device = choose_device("auto")
    dimensions = 2 if config.patch[0] == 1 else 3
    names = [n for n in SETS if dimensions == 2 or not SETS[n].images]
    opened = open_training_data(pairs_of(data, names, scratch), config)
    sources = hold_sources(opened.training, device)
    run = start_run(config, None, device, training_precision(config, device))
    rates = {}
    batches = load_batches(sources, config, 0, 4, centerline=False, device=device)
    given = next(batches)
    for what, steps in (("loader", 8), ("network", 8), ("both", 8)):
        begun = time.monotonic()
        for _ in range(steps):
            batch = given if what == "network" else next(batches)
            if what != "loader":
                take_step(run, batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        voxels = steps * config.batch * int(np.prod(config.patch))
        rates[what] = round(voxels / (time.monotonic() - begun) / 1e6, 2)
    batches.close()
    report.add("training speed", network=name, million_voxels_per_second=rates)


def main() -> None:
    """Run all steps in turn; one that fails is told, and the next one begins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="packed data; without, a rehearsal at toy size")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    toy = arguments.data is None
    arguments.output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    report = Report(arguments.output)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    report.add("begin", device=name, torch=torch.__version__, toy=toy)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        data = make_toy(scratch / "data") if toy else arguments.data
        recipes = {n: {**r, **(TOY[n] if toy else {})} for n, r in RECIPES.items()}
        if toy:
            leave_one_out.RECIPE["validate_every"] = 4
        else:
            run_tests(report)
        measure_segment(report, arguments.output, toy=toy)
        for network, recipe in recipes.items():
            measure_training(report, network, recipe, data, scratch)
        training = report.left - FOR_SCORES * len(recipes)
        for network, recipe in recipes.items():
            length = {"steps": 4} if toy else {"minutes": PARTS[network] * training / 60}
            used = [n for n in SETS if network == "unet2d" or not SETS[n].images]
            run = scratch / network
            trained = train_on(
                data, used, run, {**recipe, **length}, name=f"{network}-general", workers=8
            )
            for file in (trained.weights, trained.weights.with_suffix(".json"), run / "log.csv"):
                shutil.copy(file, arguments.output / f"{network}-{file.name}")
            report.add("trained", network=network, steps=trained.step, best=dict(trained.best))
            print_scores(trained.weights, data, "none", scratch)
    report.add("end")


if __name__ == "__main__":
    main()
