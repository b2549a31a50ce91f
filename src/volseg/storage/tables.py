"""Tables as Parquet, with units in the columns' metadata, or CSV; and for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from pyarrow import csv, parquet
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from volseg.errors import ParameterError, StorageError, VolumeError, command
from volseg.storage.attributes import change_group, read_attributes
from volseg.storage.files import discard, replacing, write_file
from volseg.storage.ledger import locked
from volseg.storage.locations import check_writable, folder_of, refuse_folder
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr
from volseg.storage.volumes import PATIENCE, labels_path, scratch_path, table_path

FORMATS = (".parquet", ".csv", ".tsv")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Of columns, in tables of text."""
ROWS = 1 << 16
"""Rows of a chunk, at most."""


def check_table_path(path: Path) -> None:
    """Refuse a table's path before any work is done."""
    if path.suffix.lower() not in FORMATS:
        raise ParameterError(
            f"a table ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, found {path.name!r}"
        )
    check_writable(path)
    if as_remote(path) is None:
        folder_of(path)
        refuse_folder(path)


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
    """Read a table that `write_table` wrote as Parquet."""
    try:
        # `parquet.read_table` takes a third of a second, in which it imports pandas
        return parquet.ParquetFile(pa.BufferReader(_hand_over(path.read_bytes()))).read()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is damaged'}"
        ) from error


def _hand_over(content: bytes) -> pa.Buffer:
    """Copy content into Arrow's own memory.

    Arrow's threads let go of what they read when they like: of memory that is Python's, they need
    Python for it, and where that has ended, the whole process ends by a signal.
    """
    held = pa.allocate_buffer(len(content))
    memoryview(held).cast("B")[:] = content
    return held


def read_columns(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str], dict[str, str]]:
    """Read columns, their units, and the notes of a table that `write_table` wrote as Parquet."""
    table = read_table(path)
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    units = {f.name: f.metadata[b"unit"].decode() for f in table.schema if f.metadata}
    notes = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return columns, units, notes


def read_measured(
    volume: Path, name: str, identity: str
) -> tuple[dict[str, NDArray[Any]], dict[str, str], dict[str, str]]:
    """Read the table of the objects of a result as `read_columns` does, if it is of these labels.

    Parameters
    ----------
    identity : of the labels, see `volseg.sources.labels.LabelSource`
    """
    table, measure = table_path(volume, name), command("stats", volume, name=name)
    if not table.is_file():
        raise VolumeError(f"{volume} has no tables/{table.name}; run `{measure}` first")
    found = read_columns(table)
    if found[2].get("labels") != identity:
        raise VolumeError(
            f"{table} was measured on other labels than {labels_path(volume, name)}; run "
            f"`{measure}`"
        )
    return found


def shown_type(values: NDArray[Any]) -> str:
    """Choose the type in which neuroglancer, which has 32 bits, is given a column of numbers.

    Counts stay exact where 32 bits hold them: of floats, 24 bits are.

    Examples
    --------
    >>> shown_type(np.array([7, 2**32 - 1])), shown_type(np.array([7, 2**32]))
    ('uint32', 'float32')
    """
    whole = values.dtype.kind in "iu" and values.size > 0
    held = whole and values.min() >= 0 and values.max() < 1 << 32
    return "uint32" if held else "float32"


def publish_table(table: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """List a table of objects, ``tables/<name>.parquet``, in the group of a volume's tables.

    As ngio and Fractal know it: a feature table, version 1, as AnnData. Specifications:
    https://fractal-analytics-platform.github.io/ngio/stable/table_specs/overview and
    https://anndata.readthedocs.io/en/stable/fileformat-prose.html

    The group of the table holds it as AnnData and says of which labels it is. One that is there is
    taken from the list and replaced; the list is changed last, so that it names whole tables only.
    """
    name, tables = table.stem, table.parent
    place, labels = tables / name, labels_path(tables.parent, name)
    described: dict[str, Any] = {
        **_encoded("anndata", "0.1.0"),
        "type": "feature_table",
        "table_version": "1",
        "fractal_table_version": "1",
        "backend": "anndata",
        "index_key": "label",
        "index_type": "int",
        "instance_key": "label",
    }
    if is_zarr(labels):
        described["region"] = {"path": f"../labels/{name}"}
    entries: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(entries), attributes=described)
    _fill_anndata(group, columns)
    withdraw_table(table)
    discard(place)  # what an interrupted run left is no group, perhaps
    for entry, content in entries.items():
        # many small files, which another `stats` would write again: none is waited for
        write_file(place / entry, content.to_bytes(), durable=False)
    _list_table(tables, name, listed=True)


def _fill_anndata(group: zarr.Group, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a table as AnnData: real numbers as ``X``, whole ones and truths as ``obs``."""
    names = np.array([str(label) for label in columns["label"]], np.dtypes.StringDType())
    real = [name for name, values in columns.items() if values.dtype.kind == "f"]
    whole = [name for name in columns if name not in {*real, "label"}]
    values = [columns[name].astype(np.float64) for name in real]
    _add_array(group, "X", np.stack(values, axis=1) if real else np.zeros((len(names), 0)))
    observed = group.create_group("obs", attributes=_frame("label", whole))
    _add_array(observed, "label", names, "string-array")
    for name in whole:
        _add_array(observed, name, columns[name])
    variables = group.create_group("var", attributes=_frame("_index", []))
    _add_array(variables, "_index", np.array(real, np.dtypes.StringDType()), "string-array")
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        group.create_group(name, attributes=_encoded("dict", "0.1.0"))


def _add_array(group: zarr.Group, name: str, values: NDArray[Any], kind: str = "array") -> None:
    chunks = tuple(max(min(n, ROWS), 1) for n in values.shape)
    group.create_array(name, data=values, chunks=chunks, attributes=_encoded(kind, "0.2.0"))


def _frame(index: str, columns: list[str]) -> dict[str, Any]:
    return {"_index": index, "column-order": columns, **_encoded("dataframe", "0.2.0")}


def _encoded(kind: str, version: str) -> dict[str, Any]:
    return {"encoding-type": kind, "encoding-version": version}


def withdraw_table(table: Path) -> None:
    """Remove what `publish_table` made of a table, if there is any: its labels will be others."""
    place = table.parent / table.stem
    if (place / "zarr.json").exists():  # one request, where others ask many
        _list_table(table.parent, table.stem, listed=False)
        discard(place)


def _list_table(tables: Path, name: str, *, listed: bool) -> None:
    # two commands may measure labels of two names at once, and both change one list
    with locked(scratch_path(tables.parent) / "tables.lock", patience=PATIENCE):
        found = read_attributes(tables).get("tables")
        others = {str(n) for n in found if n != name} if isinstance(found, list) else set()
        change_group(tables, {"tables": sorted({*others, *([name] if listed else [])})})
