"""Tables of objects in the form that ngio and Fractal know: feature tables, version 1, in Parquet.

Specification: https://fractal-analytics-platform.github.io/ngio/stable/table_specs/overview
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.storage.attributes import change_group, read_attributes, write_group
from volseg.storage.files import discard, write_file
from volseg.storage.ledger import locked
from volseg.storage.stores import is_zarr
from volseg.storage.volumes import PATIENCE, labels_path, scratch_path


def publish_table(table: Path) -> None:
    """List a table of objects, ``tables/<name>.parquet``, in the group of a volume's tables.

    The group of the table holds a copy of the file and says of which labels it is. A copy that is
    there is replaced; the list is changed last, so that it names whole tables only.

    Raises
    ------
    StorageError
        If something cannot be written.
    """
    name, tables = table.stem, table.parent
    place, labels = tables / name, labels_path(tables.parent, name)
    described: dict[str, Any] = {
        "type": "feature_table",
        "table_version": "1",
        "fractal_table_version": "1",
        "backend": "parquet",
        "index_key": "label",
        "index_type": "int",
        "instance_key": "label",
    }
    if is_zarr(labels):
        described["region"] = {"path": f"../labels/{name}"}
    write_file(place / "table.parquet", table.read_bytes())
    write_group(place, described)
    _list_table(tables, name, listed=True)


def withdraw_table(table: Path) -> None:
    """Remove what `publish_table` made of a table, if there is any: its labels will be others.

    Raises
    ------
    StorageError
        If it cannot be removed.
    """
    place = table.parent / table.stem
    if is_zarr(place):
        _list_table(table.parent, table.stem, listed=False)
        discard(place)


def _list_table(tables: Path, name: str, *, listed: bool) -> None:
    # two commands may measure labels of two names at once, and both change one list
    with locked(scratch_path(tables.parent) / "tables.lock", patience=PATIENCE):
        found = read_attributes(tables).get("tables")
        others = {str(n) for n in found if n != name} if isinstance(found, list) else set()
        change_group(tables, {"tables": sorted({*others, *([name] if listed else [])})})
