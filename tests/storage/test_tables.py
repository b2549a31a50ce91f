"""Tables: what is written is read, and no thread of Arrow's is left with memory of Python's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from volseg.errors import StorageError
from volseg.storage import tables
from volseg.storage.tables import read_columns, read_table, write_table

COLUMNS = {"label": np.array([1, 2**64 - 1], np.uint64), "volume_nm3": np.array([np.nan, 1e300])}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, COLUMNS, {"volume_nm3": "nm^3"}, {"labels": "abc"})
    columns, units, notes = read_columns(path)
    assert (units, notes) == ({"volume_nm3": "nm^3"}, {"labels": "abc"})
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(columns[name], values)
        assert columns[name].dtype == values.dtype


def test_threads_that_read_a_table_hold_no_memory_of_python(tmp_path, monkeypatch):
    # they give it back when they like, and the process ends by a signal where Python has ended
    path = tmp_path / "a.parquet"
    write_table(path, COLUMNS, {}, {})
    content, read = bytearray(path.read_bytes()), []

    class Watched(tables.parquet.ParquetFile):
        def read(self, *given, **more):
            content.append(0)  # a BufferError, while anybody holds it
            read.append(True)
            return super().read(*given, **more)

    monkeypatch.setattr(Path, "read_bytes", lambda _: content)
    monkeypatch.setattr(tables.parquet, "ParquetFile", Watched)
    assert read_table(path).column_names == list(COLUMNS)
    assert read == [True]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"label,voxels\n1,2\n"])
def test_a_damaged_table_is_named(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"cannot read .*a\.parquet: it is damaged"):
        read_table(path)
