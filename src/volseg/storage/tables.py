"""Tables of objects: Parquet with units in the columns' metadata, and CSV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from volseg.errors import ParameterError, StorageError
from volseg.storage.files import replacing
from volseg.storage.locations import check_writable
from volseg.storage.remote import as_remote

FORMATS = (".parquet", ".csv")


def check_table_path(path: Path) -> None:
    """Refuse a table's path before any work is done.

    Raises
    ------
    ParameterError
        If its suffix names no format, or its folder is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise ParameterError(f"a table ends in {' or '.join(FORMATS)}, found {path.name!r}")
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
    path : ends in ``.parquet`` or ``.csv``
    columns : by name, all of one length
    units : of columns; Parquet keeps them as each field's ``unit``, CSV has no place for them
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
    if suffix.lower() == ".csv":
        csv.write_csv(table, target)
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
        raise StorageError(f"cannot read {path}: {error}") from error
