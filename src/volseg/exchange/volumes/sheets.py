"""Tables for people and spreadsheets: CSV, TSV, and Excel with a sheet of units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from volseg.errors import ParameterError, require
from volseg.storage.files import drafting
from volseg.storage.tables import read_columns, write_table

MOST_ROWS = (1 << 20) - 1
"""Of a sheet of Excel, below its head."""
LARGEST = 10**15 - 1
"""Whole number that Excel keeps to the last digit: it has floats, of which it takes 15 digits."""


def write_sheet(table: Path, path: Path, title: str) -> int:
    """Write a table of Parquet in the form that the suffix names; return its rows."""
    columns, units, notes = read_columns(table)
    rows = len(next(iter(columns.values())))
    if path.suffix.lower() != ".xlsx":
        write_table(path, columns, units, notes)
        return rows
    if rows > MOST_ROWS:
        raise ParameterError(
            f"{table} has {rows} rows, a sheet of Excel {MOST_ROWS} at most; write .csv or .tsv"
        )
    _write_excel(path, title, columns, units, notes)
    return rows


def _write_excel(
    path: Path,
    title: str,
    columns: Mapping[str, Any],
    units: Mapping[str, str],
    notes: Mapping[str, str],
) -> None:
    require("xlsxwriter", "formats", f"{path.name} needs XlsxWriter, .csv and .tsv do not")
    import xlsxwriter

    with (
        drafting(path, parents=False) as draft,
        draft.open("wb") as file,
        xlsxwriter.Workbook(file, {"constant_memory": True, "in_memory": False}) as book,
    ):
        bold, sheet = book.add_format({"bold": True}), book.add_worksheet(title)
        sheet.freeze_panes(1, 1)
        sheet.write_row(0, 0, columns, bold)
        columns = {name: _exact(column) for name, column in columns.items()}
        for k, row in enumerate(zip(*columns.values(), strict=True), 1):
            for column, value in enumerate(row):
                found = value.item() if isinstance(value, np.generic) else value
                if isinstance(found, str):
                    sheet.write_string(k, column, found)  # not to become a number again
                elif found == found:  # what is not a number stays empty
                    sheet.write(k, column, found)
        told = book.add_worksheet("units")
        told.write_row(0, 0, ("column", "unit"), bold)
        for k, name in enumerate(columns, 1):
            told.write_row(k, 0, (name, units.get(name, "")))
        for k, (key, value) in enumerate(notes.items(), len(columns) + 2):
            told.write_row(k, 0, (key, str(value)))


def _exact(column: Any) -> Any:
    """Return a column of which Excel would lose digits as text: labels of others may have 18."""
    values = np.asarray(column)
    if values.dtype.kind not in "iu" or not values.size:
        return column
    fits = int(values.min()) >= -LARGEST and int(values.max()) <= LARGEST
    return column if fits else [str(value) for value in values.tolist()]
