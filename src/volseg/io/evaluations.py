"""Evaluations on disk: a folder with one JSON file, written completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from volseg.errors import ParameterError, StorageError

FILE = "evaluation.json"


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
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    text = json.dumps(report, indent=1, allow_nan=False)
    try:
        folder.mkdir(exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path
