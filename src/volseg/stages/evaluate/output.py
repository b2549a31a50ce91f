"""Write an evaluation: JSON for programs, curves for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.scores.curves import LEVELS, Curves
from volseg.stages.evaluate.run import Evaluation
from volseg.storage.plots import Panel, can_draw, draw_panels
from volseg.storage.tables import write_errors, write_evaluation


def write_results(result: Evaluation, report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``evaluation.json``, ``errors.parquet`` and, with matplotlib, ``curves.png``.

    The table has every object with a mistake, a report the largest only.

    Parameters
    ----------
    result : Evaluation
    report : the same, reduced to what JSON knows
    folder : is made if it is missing

    Returns
    -------
    what was written

    Raises
    ------
    StorageError
        If something cannot be written.
    """
    written = [write_evaluation(folder, report), write_errors(folder, result.errors)]
    if can_draw():
        written.append(folder / "curves.png")
        draw_panels(written[-1], list(_panels(result)))
    return written


def _panels(result: Evaluation) -> Iterator[Panel]:
    curves = result.curves
    if curves is not None:
        recall, precision, fpr = curves.recall, curves.precision, curves.false_positive_rate
        title = f"precision and recall, area {curves.pr_area:.3f}"
        mark = _best(curves, recall, precision)
        yield Panel(title, "recall", "precision", recall, precision, mark)
        title, mark = f"ROC, area {curves.roc_area:.3f}", _best(curves, fpr, recall)
        yield Panel(title, "false positive rate", "recall", fpr, recall, mark)
    thresholds = np.array([s.threshold for s in result.mean.at])
    found = np.array([s.average_precision for s in result.mean.at])
    title = f"objects, mean {result.mean.average_precision:.3f}"
    yield Panel(title, "IoU", "average precision", thresholds, found)


def _best(
    curves: Curves, across: NDArray[np.float64], up: NDArray[np.float64]
) -> tuple[float, float, str] | None:
    """Find the point of the best threshold on a curve; None where there is none."""
    if math.isnan(curves.best_threshold):
        return None
    k = round(curves.best_threshold * (LEVELS - 1))
    return float(across[k]), float(up[k]), f"best threshold {curves.best_threshold:.2f}"
