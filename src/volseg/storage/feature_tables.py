"""Tables of objects in the form that ngio and Fractal know: feature tables, version 1, as AnnData.

Specifications: https://fractal-analytics-platform.github.io/ngio/stable/table_specs/overview and
https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from volseg.storage.attributes import change_group, read_attributes
from volseg.storage.files import discard, write_file
from volseg.storage.ledger import locked
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr
from volseg.storage.tables import read_columns
from volseg.storage.volumes import PATIENCE, labels_path, scratch_path

ROWS = 1 << 16
"""Rows of a chunk, at most."""


def publish_table(table: Path) -> None:
    """List a table of objects, ``tables/<name>.parquet``, in the group of a volume's tables.

    The group of the table holds it as AnnData and says of which labels it is. One that is there is
    taken from the list and replaced; the list is changed last, so that it names whole tables only.

    Raises
    ------
    StorageError
        If something cannot be written.
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
    _fill_anndata(group, read_columns(table)[0])
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
    """Remove what `publish_table` made of a table, if there is any: its labels will be others.

    Raises
    ------
    StorageError
        If it cannot be removed.
    """
    place = table.parent / table.stem
    if ((as_remote(place) or place) / "zarr.json").exists():  # one request, where others ask many
        _list_table(table.parent, table.stem, listed=False)
        discard(place)


def _list_table(tables: Path, name: str, *, listed: bool) -> None:
    # two commands may measure labels of two names at once, and both change one list
    with locked(scratch_path(tables.parent) / "tables.lock", patience=PATIENCE):
        found = read_attributes(tables).get("tables")
        others = {str(n) for n in found if n != name} if isinstance(found, list) else set()
        change_group(tables, {"tables": sorted({*others, *([name] if listed else [])})})
