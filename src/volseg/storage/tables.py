"""Tables as Parquet with units in the columns' metadata, or CSV; evaluations: JSON and a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from volseg.errors import ParameterError, StorageError
from volseg.storage.files import replacing, write_file
from volseg.storage.locations import check_writable
from volseg.storage.remote import as_remote

if TYPE_CHECKING:  # statistics have no use for scores, nor for their compiled loops
    from volseg.scores.mistakes import ObjectErrors, WrongObjects

FORMATS = (".parquet", ".csv", ".tsv")


SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Of columns, in tables of text."""


def check_table_path(path: Path) -> None:
    """Refuse a table's path before any work is done.

    Raises
    ------
    ParameterError
        If its suffix names no format, or its folder is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise ParameterError(
            f"a table ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, found {path.name!r}"
        )
    check_writable(path)
    if as_remote(path) is None and not path.resolve().parent.is_dir():
        raise ParameterError(f"there is no folder {path.resolve().parent} to write {path.name} in")


def write_table(
    path: Path,
    columns: Mapping[str, NDArray[Any]],
    units: Mapping[str, str],
    notes: Mapping[str, str],
) -> None:
    """Write a table, completely or not at all; a table that is there is replaced.

    Parameters
    ----------
    path : ends in ``.parquet``, ``.csv`` or ``.tsv``
    columns : by name, all of one length
    units : of columns; Parquet keeps them as each field's ``unit``, text has no place for them
    notes : Parquet keeps them as the table's metadata

    Raises
    ------
    ParameterError
        If the suffix names no format.
    StorageError
        If it cannot be written.
    """
    check_table_path(path)
    fields, arrays = [], []
    for name, column in columns.items():
        array = _arrow(column)
        metadata = {"unit": units[name]} if name in units else None
        fields.append(pa.field(name, array.type, metadata=metadata))
        arrays.append(array)
    table = pa.table(arrays, schema=pa.schema(fields, metadata=dict(notes)))
    with replacing(path, parents=False) as file:
        _encode(table, path.suffix, file)


def _arrow(column: NDArray[Any]) -> pa.Array:
    """Turn a column into Arrow's; `pyarrow.array` takes a second, in which it imports pandas."""
    if column.dtype.kind not in "biuf":
        return pa.array(column)
    bits = np.packbits(column, bitorder="little") if column.dtype.kind == "b" else column
    content = pa.py_buffer(np.ascontiguousarray(bits))
    kind = pa.from_numpy_dtype(column.dtype)
    return pa.Array.from_buffers(kind, len(column), [None, content])


def _encode(table: pa.Table, suffix: str, target: Any) -> None:
    if suffix.lower() in SEPARATORS:
        separator = SEPARATORS[suffix.lower()]
        csv.write_csv(table, target, csv.WriteOptions(delimiter=separator))
    else:
        parquet.write_table(table, target, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read a table that `write_table` wrote as Parquet.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    try:
        return parquet.read_table(pa.BufferReader(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is damaged'}"
        ) from error


def read_columns(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str], dict[str, str]]:
    """Read columns, their units, and the notes of a table that `write_table` wrote as Parquet.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    table = read_table(path)
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    units = {f.name: f.metadata[b"unit"].decode() for f in table.schema if f.metadata}
    notes = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return columns, units, notes


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
    from volseg.scores.mistakes import ErrorCounts

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
