"""Figures of the studies: curves over steps, masks beside the truth, scores over fractions."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from seed_runner import Study

mpl.use("Agg")
from matplotlib import pyplot as plt


def save(study: Study, figure: Any, name: str) -> Path:
    """Write a figure into the study's folder."""
    path = study.folder / f"{name}.png"
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def curves(study: Study, names: Sequence[str], columns: Sequence[str], name: str) -> Path:
    """Draw columns of the logs over steps, a panel for each configuration."""
    figure, panels = plt.subplots(
        1, len(names), figsize=(4 * len(names), 3), squeeze=False, sharey=True
    )
    for axes, case in zip(panels[0], names, strict=True):
        with (study.folder / "cases" / case / "run" / "log.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for column in columns:
            if rows and rows[0].get(column):
                steps = [float(row["step"]) for row in rows]
                axes.plot(steps, [float(row[column]) for row in rows], ".-", label=column)
        axes.set(title=case, xlabel="step")
        axes.legend(fontsize=8)
    return save(study, figure, name)


def masks(study: Study, names: Sequence[str], name: str, part: str = "test") -> Path:
    """Draw raw, truth, prediction, difference and objects of a slice, a row each."""
    figure, panels = plt.subplots(len(names), 5, figsize=(13, 2.8 * len(names)), squeeze=False)
    for row, case in zip(panels, names, strict=True):
        kept = np.load(study.folder / "cases" / case / f"{part}.npz")
        truth, found = kept["truth"] > 0, kept["labels"] > 0
        off = np.zeros((*truth.shape, 3))
        off[truth & found] = (1, 1, 1)
        off[truth & ~found] = (0.84, 0.37, 0)
        off[found & ~truth] = (0, 0.45, 0.7)
        overlay = np.repeat(kept["raw"][..., None] / max(kept["raw"].max(), 1), 3, axis=-1)
        overlay[found] = 0.6 * overlay[found] + 0.4 * np.array((1, 0.55, 0))
        objects = np.where(kept["labels"] > 0, kept["labels"] % 19 + 1, 0)
        for axes, picture, title in zip(
            row,
            (kept["raw"], truth, overlay, off, objects),
            (case, "truth", "found", "missed orange, false blue", "objects"),
            strict=True,
        ):
            axes.imshow(picture, cmap="nipy_spectral" if title == "objects" else "gray")
            axes.set_title(title, fontsize=8)
            axes.axis("off")
    return save(study, figure, name)


def lines(
    study: Study,
    series: Mapping[str, Sequence[tuple[float, float]]],
    labels: tuple[str, str],
    name: str,
) -> Path:
    """Draw a score over something, a line for each series."""
    figure, axes = plt.subplots(figsize=(5, 3.5))
    for label, points in series.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=label)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.legend()
    return save(study, figure, name)


def trade_offs(study: Study, results: Mapping[str, Mapping[str, Any]], name: str) -> Path:
    """Draw precision against recall, and ROC."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    for case, result in results.items():
        scores = result["test"]
        left.plot(scores["curve_recall"], scores["curve_precision"], label=case)
        right.plot([0, *scores["curve_false"]], [0, *scores["curve_recall"]], label=case)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="false positive rate", ylabel="recall", xlim=(0, 1), ylim=(0, 1.02))
    left.legend(fontsize=8)
    return save(study, figure, name)
