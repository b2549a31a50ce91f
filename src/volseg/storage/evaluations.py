"""Evaluations on disk: a folder with JSON and a table, each written completely or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.scores.mistakes import ErrorCounts, ObjectErrors, WrongObjects
from volseg.storage.files import write_file
from volseg.storage.tables import write_table

FILE = "evaluation.json"
ERRORS = "errors.parquet"


def check_folder(folder: Path) -> None:
    """Refuse a folder before any work is done.

    Raises
    ------
    ParameterError
        If it is a file, or cannot be made because its parent is missing.
    """
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{folder} is a file; give a folder to write {FILE} in")
    if not folder.resolve().parent.is_dir():
        raise ParameterError(f"there is no folder {folder.resolve().parent} to make {folder} in")


def write_evaluation(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write a report as JSON; one that is there is replaced.

    Parameters
    ----------
    folder : is made if it is missing
    report : what JSON knows, without NaN

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    path = folder / FILE
    write_file(path, json.dumps(report, indent=1, allow_nan=False).encode() + b"\n")
    return path


def write_errors(folder: Path, errors: ObjectErrors) -> Path:
    """Write one row per object that something is wrong with; a table that is there is replaced.

    Parameters
    ----------
    folder : exists
    errors : all are written, however many

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    kinds = [field.name for field in dataclasses.fields(ErrorCounts)]
    parts = [_columns(kind, getattr(errors, kind)) for kind in kinds]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    places = ("voxels", "centroid", "bbox")
    units = {name: "voxel" for name in columns if name.startswith(places)}
    write_table(folder / ERRORS, columns, units, {})
    return folder / ERRORS


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
