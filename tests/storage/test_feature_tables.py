"""Feature tables: what ngio looks for, beside volseg's own files."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet

from toy_volumes import write_labels, write_raw
from volseg.storage.attributes import read_attributes
from volseg.storage.feature_tables import publish_table, withdraw_table
from volseg.storage.tables import write_table
from volseg.storage.volumes import table_path


def test_tables_are_listed_with_their_labels_and_replaced(tmp_path):
    raw = np.zeros((4, 16, 16), np.uint8)
    volume = write_raw(tmp_path / "v.zarr", raw + 1)
    write_labels(volume, raw.astype(np.uint32), (5.0, 5.0, 5.0))
    (volume / "tables").mkdir()
    for name, value in (("mitochondria", 3), ("theirs", 4), ("mitochondria", 5)):
        columns = {"label": np.array([value]), "voxels": np.array([8])}
        write_table(table_path(volume, name), columns, {}, {})
        publish_table(table_path(volume, name))
    assert read_attributes(volume / "tables") == {"tables": ["mitochondria", "theirs"]}
    described = read_attributes(volume / "tables" / "mitochondria")
    assert described["region"] == {"path": "../labels/mitochondria"}
    assert (described["type"], described["backend"]) == ("feature_table", "parquet")
    assert "region" not in read_attributes(volume / "tables" / "theirs")
    copy = pyarrow.parquet.read_table(volume / "tables" / "mitochondria" / "table.parquet")
    assert copy.column("label").to_pylist() == [5]
    withdraw_table(table_path(volume, "mitochondria"))
    withdraw_table(table_path(volume, "never published"))
    assert read_attributes(volume / "tables") == {"tables": ["theirs"]}
    assert not (volume / "tables" / "mitochondria").exists()
