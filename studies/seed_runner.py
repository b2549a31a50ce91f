"""Train and score the configurations of a study, by volseg's Python API.

Each of `seed000.py` to `seed004.py` makes the tables and figures of one document:

    python studies/seed003.py                     # a rehearsal on blobs
    python studies/seed003.py --budget cpu --data annotated --output s3
    python studies/seed003.py --budget gpu --data annotated --output s3

``annotated`` holds lucchi_pp/, ncmir/, isbi2012/ and dsb2018/, which are not part of the project.
The same command goes on where it was stopped: a training resumes, and what is scored is not scored
again. ``--workers N`` runs N configurations at a time on Dask, in processes; ``--scheduler`` on
a cluster that is running. ``--only NAME`` runs some of them. The report is ``OUTPUT/report.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask
import numpy as np
from seed_data import Data, converted, located, region, slug, truth_of

import volseg


@dataclass(frozen=True)
class Budget:
    """The length and size of a training.

    Attributes
    ----------
    steps : of each configuration; the same for all.
    shrink, cut : widths are divided by the first, sides of patches by the second.
    scored, held : million voxels of each part that are scored, and that validate, at most.
    validations : of each training.
    window : slices to train on before those that validate, slices to test, and pixels of a side,
        about the middle, of what is cut out of a stack before anything else; None takes all of it.
    """

    name: str
    steps: int
    shrink: int
    cut: int
    scored: float
    held: float
    validations: int
    window: tuple[int, int, int] | None = None


BUDGETS = {
    "toy": Budget("toy", 2, 8, 8, 0.01, 0.01, 1),
    "cpu": Budget("cpu", 150, 8, 4, 2.5, 0.6, 3, (24, 8, 384)),
    "gpu": Budget("gpu", 20_000, 1, 1, 1000, 1000, 10),
}


@dataclass(frozen=True)
class Case:
    """A configuration to train and score.

    Attributes
    ----------
    options : keywords of `volseg.train`.
    recipe : settings of a recipe, groups as nested mappings.
    rules : keywords of `volseg.label_array`.
    superpixels : of each slice, that are averaged before anything else; 0 for none.
    """

    name: str
    data: Data
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    superpixels: int = 0


NOTHING: dict[str, float] = {
    "flip_probability": 0.0,
    "turn_probability": 0.0,
    "rotate_probability": 0.0,
    "zoom_probability": 0.0,
    "shift_probability": 0.0,
    "elastic_probability": 0.0,
    "section_probability": 0.0,
    "fault_probability": 0.0,
    "intensity_probability": 0.0,
}
"""No augmentation at all."""

ALL = {"min_size": 0, "min_probability": 0.0}
"""The documents score masks, from which nothing is dropped."""
FLAT = re.compile("unet2d.*|attention-unet(-grid)?")
"""Names of networks of slices."""


def toml(settings: Mapping[str, Any], table: str = "recipe") -> str:
    """Write a recipe."""
    lines = [f"[{table}]"]
    groups = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            groups.append(toml(value, f"{table}.{key}"))
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join([*lines, "", *groups])


def shrunk(options: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """Divide widths and patches as the budget says, by what networks can take."""
    made = dict(options)
    name = made["architecture"]
    least = 8 if name.startswith("emnet") else 2
    made["width"] = max(made["width"] // budget.shrink, least)
    if name == "unet2d-valid":  # unpadded: 184 pixels of a side are context alone
        made["patch"] = (1, 188, 188) if budget.name == "toy" else (1, 316, 316)
    elif budget.cut > 1:
        z, *sides = made["patch"]
        least_side = 32 if budget.name == "toy" else 64 if z == 1 else 48
        made["patch"] = (
            z if z == 1 else max(z // 2 // 8 * 8, 8),
            *(max(side // budget.cut // 16 * 16, least_side) for side in sides),
        )
    if budget.name == "toy":
        made["batch"] = min(made.get("batch", 1), 2)
    return made


def train_and_score(case: Case, budget: Budget, folder: Path) -> dict[str, Any]:
    """Train a configuration and score it on training and test slices, unless that is done."""
    words = json.dumps([asdict(case), asdict(budget)], sort_keys=True, default=str)
    mark = hashlib.sha256(words.encode()).hexdigest()
    home = folder / "cases" / case.name
    kept = home / "result.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if result["mark"] == mark:
            return result
    home.mkdir(parents=True, exist_ok=True)
    recipe = home / "recipe.toml"
    recipe.write_text(toml(case.recipe), encoding="utf-8")
    data = averaged(case, folder) if case.superpixels else case.data
    volume = converted(data, folder)
    begun = time.monotonic()
    trained = volseg.train(
        volume,
        labels=[data.labels],
        roi=region(data.train),
        validation=region(first_of(data.validation, volume, budget.held)),
        images=data.images,
        output=home / "run",
        config=recipe,
        **{
            "steps": budget.steps,
            "validate_every": budget.steps // budget.validations,
            **shrunk(case.options, budget),
        },
    )
    seconds = time.monotonic() - begun
    card = json.loads(Path(trained.weights).with_suffix(".json").read_text(encoding="utf-8"))
    result = {
        "mark": mark,
        "name": case.name,
        "parameters": card["parameters"],
        "seconds": seconds,
        "best": dict(trained.best),
        "weights": str(trained.weights),
    }
    for part in ("train", "test"):
        result[part] = score(case, data, str(trained.weights), part, budget, folder)
    part = home / "result.part.json"  # a kill leaves no torn result for the next run
    part.write_text(json.dumps(result, indent=1, default=float), encoding="utf-8")
    part.replace(kept)
    return result


def first_of(part: tuple[int, int], volume: Path, most: float) -> tuple[int, int]:
    """Take the first slices of a part that hold so many million voxels at most, two at least."""
    _, y, x = volseg.open(volume).shape
    return part[0], min(part[1], part[0] + max(int(most * 1e6 / (y * x)), 2))


def averaged(case: Case, folder: Path) -> Data:
    """Average raw over the superpixels of each slice (SLIC)."""
    from dataclasses import replace

    import tifffile
    from skimage.segmentation import slic

    path = folder / "data" / f"{case.name}-superpixels.tif"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = tifffile.imread(case.data.raw)
        for plane in raw:
            parts = slic(
                plane,
                case.superpixels,
                compactness=0.1,
                max_num_iter=4,
                channel_axis=None,
                start_label=0,
            )
            sums = np.bincount(parts.ravel(), plane.ravel())
            plane[:] = (sums / np.bincount(parts.ravel()))[parts]
        part = path.with_suffix(".part.tif")  # a kill leaves no torn file for the next run
        tifffile.imwrite(part, raw, photometric="minisblack")
        part.replace(path)
    return replace(case.data, name=f"{case.data.name}-{case.name}", raw=str(path))


def score(
    case: Case, data: Data, weights: str, part: str, budget: Budget, folder: Path
) -> dict[str, Any]:
    """Segment some slices and compare them with the truth; keep a picture's worth of them."""
    volume = converted(data, folder)
    chosen = first_of(getattr(data, part), volume, budget.scored)
    raw = volseg.open(volume).raw[chosen[0] : chosen[1]]
    if data.images:  # each is seen by its own brightness
        name = slug(f"{case.name} {part}")
        volseg.segment(volume, name=name, model=weights, roi=region(chosen), overwrite=True)
        found = volseg.open(volume).probabilities[name][chosen[0] : chosen[1]]
    else:
        views = {"views": "xy"} if FLAT.fullmatch(case.options["architecture"]) else {}
        found = volseg.predict_array(raw, voxel_size=data.voxel_size, model=weights, **views)
    truth = truth_of(data, chosen)
    stacks = zip(found[:, None], truth[:, None], strict=True) if data.images else [(found, truth)]
    compared = []
    labels = []
    for probabilities, known in stacks:
        labels.append(volseg.label_array(probabilities, model=weights, **{**ALL, **case.rules}))
        compared.append(volseg.compare_arrays(known, labels[-1]))
    np.savez_compressed(
        folder / "cases" / case.name / f"{part}.npz",
        raw=raw[-1],
        truth=truth[-1],
        probabilities=found[-1],
        labels=labels[-1][-1],
    )
    return pooled(compared, found, truth)


def pooled(compared: Sequence[Any], found: Any, truth: Any) -> dict[str, Any]:
    """Add up the scores of several images: voxels and objects of all, means over IoU per image."""
    voxels = {
        key: sum(getattr(one.foreground, key) for one in compared)
        for key in ("both", "predicted_only", "truth_only", "neither")
    }
    both, more, missed, rest = voxels.values()
    objects = {
        key: sum(getattr(one.objects, key) for one in compared)
        for key in ("truth", "predicted", "matched")
    }
    levels = np.arange(0, 257)
    inside = np.histogram(found[truth > 0], levels)[0][::-1].cumsum()
    outside = np.histogram(found[truth == 0], levels)[0][::-1].cumsum()
    return {
        **objects,
        "dice": ratio(2 * both, 2 * both + more + missed),
        "jaccard": ratio(both, both + more + missed),
        "precision": ratio(both, both + more),
        "recall": ratio(both, both + missed),
        "accuracy": ratio(both + rest, sum(voxels.values())),
        "map_precision": float(np.nanmean([one.mean.precision for one in compared])),
        "curve_recall": (inside / max(inside[-1], 1)).round(4).tolist(),
        "curve_precision": (inside / np.maximum(inside + outside, 1)).round(4).tolist(),
        "curve_false": (outside / max(outside[-1], 1)).round(4).tolist(),
    }


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where there is nothing."""
    return part / whole if whole else float("nan")


@dataclass(frozen=True)
class Study:
    """What a run of a study knows.

    Attributes
    ----------
    data : finds a data set, real or rehearsed, and cuts it as the budget says.
    uncut : finds all of it.
    """

    seed: str
    budget: Budget
    folder: Path
    data: Callable[[Data], Data]
    uncut: Callable[[Data], Data]
    workers: int
    scheduler: str | None
    only: tuple[str, ...]

    def run(self, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
        """Train and score configurations on Dask; return results by name."""
        wanted = [case for case in cases if not self.only or case.name in self.only]
        for case in wanted:  # volumes have one writer
            if not case.superpixels:
                converted(case.data, self.folder)
        tasks = [dask.delayed(train_and_score)(case, self.budget, self.folder) for case in wanted]
        if self.scheduler:
            from distributed import Client

            with Client(self.scheduler):
                done = dask.compute(*tasks)
        else:
            how = "sync" if self.workers == 1 else "processes"
            # dask hands out six tasks at a time unless told, so that two workers are one
            alone = {"num_workers": self.workers, "chunksize": 1}
            done = dask.compute(*tasks, scheduler=how, **alone)
        return {result["name"]: result for result in done}


def begin(seed: str, arguments: Sequence[str] | None = None, **other: Budget) -> Study:
    """Read the command line of a study, which may have other budgets by the same names."""
    parser = argparse.ArgumentParser(description=f"Make the tables and figures of document {seed}.")
    parser.add_argument("--budget", choices=BUDGETS, default="toy")
    parser.add_argument("--data", type=Path, help="folder of annotated data; needed but for a toy")
    parser.add_argument("--output", type=Path, help="folder of results; needed but for a toy")
    parser.add_argument("--workers", type=int, default=1, help="configurations at a time")
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    parser.add_argument("--only", action="append", default=[], help="run these configurations")
    given = parser.parse_args(arguments)
    if given.budget != "toy" and (given.data is None or given.output is None):
        parser.error("give --data, the folder of annotated data, and --output")
    folder = (given.output or Path(tempfile.mkdtemp(prefix=f"seed{seed}-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    budget = (BUDGETS | other)[given.budget]
    return Study(
        seed,
        budget,
        folder,
        lambda data: located(data, given.data and given.data.resolve(), folder, budget.window),
        lambda data: located(data, given.data and given.data.resolve(), folder),
        given.workers,
        given.scheduler,
        tuple(given.only),
    )


def hardware() -> str:
    """Name the processor and the GPU."""
    import torch

    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{len(names)} x {names[0]}" if names else platform.processor() or "unknown CPU"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor}, {gpu}"


def shown(value: Any) -> str:
    """Write a cell of a table; what there is not is a dash."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a Markdown table."""
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(shown, row)) + " |" for row in rows]
    return "\n".join([*lines, ""])


def cut_to(budget: Budget) -> str:
    """Say what is cut out of stacks."""
    if budget.window is None:
        return ""
    train, test, side = budget.window
    return (
        f"stacks cut to {side} pixels a side, {train} slices to train on and {test} to test "
        f"(unrelated images keep all); "
    )


def finish(
    study: Study, title: str, parts: Sequence[str], pictures: Sequence[Path], why: str
) -> Path:
    """Write the report of a study."""
    words = shlex.join(["python", f"studies/seed{study.seed}.py", *sys.argv[1:]])
    toy = (
        "**This is a rehearsal on blobs, of two steps: its numbers mean nothing.**\n\n"
        if study.budget.name == "toy"
        else ""
    )
    made = (
        f"{toy}`{words}`, budget {study.budget.name}: {study.budget.steps} steps each, "
        f"widths divided by {study.budget.shrink} and sides of patches by {study.budget.cut}, "
        f"{study.budget.validations} validations of the first {study.budget.held} million voxels "
        f"of their part, scores of the first {study.budget.scored} million; {cut_to(study.budget)}"
        f"volseg {volseg.__version__}, {hardware()}, {datetime.now(UTC):%Y-%m-%d}\n"
    )
    figures = [f"![{path.stem}]({path.relative_to(study.folder)})\n" for path in pictures]
    text = "\n".join(
        [
            f"# {title}\n",
            made,
            *parts,
            *figures,
            f"## Why the numbers differ\n\n{why}\n",
        ]
    )
    report = study.folder / "report.md"
    report.write_text(text, encoding="utf-8")
    print(text, file=sys.stdout)
    print(f"{report}", file=sys.stderr)
    return report
