"""The log of a training run: a row of a CSV file for each validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volseg.errors import StorageError
from volseg.storage.files import write_file


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append to a CSV log, with a header where the file is new.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    try:
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            if new:
                writer.writeheader()
            writer.writerow(row)
    except OSError as error:
        raise StorageError(f"cannot write the log {path}: {error.strerror}") from error


def trim_log(path: Path, step: int) -> None:
    """Drop the rows of a CSV log that lie after a step: a resumed run writes them again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [r for r in rows if (r.get("step") or "").isdigit() and int(r["step"]) <= step]
    if len(kept) == len(rows):
        return
    if not kept:
        path.unlink()
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, kept[0].keys())
    writer.writeheader()
    writer.writerows(kept)
    write_file(path, text.getvalue().encode())
