"""Write an evaluation: JSON and a table for programs, curves for people."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError, StorageError
from volseg.fields import plain
from volseg.scores.curves import LEVELS, Curves
from volseg.scores.mistakes import ErrorCounts, ObjectErrors, WrongObjects
from volseg.stages.evaluate.run import Evaluation
from volseg.storage.files import write_file
from volseg.storage.locations import folder_of
from volseg.storage.plots import Panel, can_draw, draw_panels
from volseg.storage.tables import write_table

FILE = "evaluation.json"


def check_folder(folder: Path) -> None:
    """Refuse a folder before any work is done."""
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{folder} is a file; give a folder to write {FILE} in")
    folder_of(folder)


def write_results(result: Evaluation, folder: Path) -> list[Path]:
    """Write ``evaluation.json``, ``errors.parquet`` and, with matplotlib, ``curves.png``.

    The table has every object with a mistake, the report the largest only. The folder is made if
    it is missing. Returns what was written.
    """
    content = json.dumps(plain(result), indent=1, allow_nan=False).encode() + b"\n"
    stood = folder.exists()
    try:
        write_file(folder / FILE, content)
    except StorageError:
        with suppress(OSError):  # nothing is in it
            if not stood:
                folder.rmdir()
        raise
    written = [folder / FILE, _write_errors(folder / "errors.parquet", result.errors)]
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


def _write_errors(path: Path, errors: ObjectErrors) -> Path:
    """Write one row per object that something is wrong with, however many there are."""
    kinds = [field.name for field in dataclasses.fields(ErrorCounts)]
    parts = [_columns(kind, getattr(errors, kind)) for kind in kinds]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    places = ("voxels", "centroid", "bbox")
    units = {name: "voxel" for name in columns if name.startswith(places)}
    write_table(path, columns, units, {})
    return path


def _columns(kind: str, wrong: WrongObjects) -> dict[str, NDArray[Any]]:
    objects = wrong.objects
    others = np.empty(len(wrong), object)
    for k, held in enumerate(wrong.held.lists()):
        others[k] = held  # at once, lists of one length would become a matrix
    return {
        "kind": np.full(len(wrong), kind),
        "label": objects.labels,
        "voxels": objects.voxels,
        **{f"centroid_{axis}": wrong.centroids[:, k] for k, axis in enumerate("zyx")},
        **{f"bbox_{axis}_start": objects.starts[:, k] for k, axis in enumerate("zyx")},
        **{f"bbox_{axis}_stop": objects.stops[:, k] for k, axis in enumerate("zyx")},
        "best_iou": wrong.best_iou,
        "others": others,
    }
