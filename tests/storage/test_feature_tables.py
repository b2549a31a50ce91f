"""Feature tables: what ngio looks for, beside volseg's own files."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from toy_volumes import write_labels, write_raw
from volseg.storage import tables
from volseg.storage.attributes import read_attributes
from volseg.storage.tables import publish_table, withdraw_table, write_table
from volseg.storage.volumes import table_path


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_tables_are_listed_with_their_labels_and_replaced(tmp_path, monkeypatch):
    raw = np.zeros((4, 16, 16), np.uint8)
    volume = write_raw(tmp_path / "v.zarr", raw + 1)
    write_labels(volume, raw.astype(np.uint32), (5.0, 5.0, 5.0))
    (volume / "tables").mkdir()
    for name, value in (("mitochondria", 3), ("theirs", 4), ("mitochondria", 5)):
        columns = {
            "label": np.array([value, value + 4]),
            "voxels": np.array([8, 9]),
            "sphericity": np.array([0.5, np.nan]),
            "touches_border": np.array([True, False]),
        }
        write_table(table_path(volume, name), columns, {}, {})
        publish_table(table_path(volume, name), columns)
    assert read_attributes(volume / "tables") == {"tables": ["mitochondria", "theirs"]}
    described = read_attributes(volume / "tables" / "mitochondria")
    assert described["region"] == {"path": "../labels/mitochondria"}
    assert (described["type"], described["backend"]) == ("feature_table", "anndata")
    assert "region" not in read_attributes(volume / "tables" / "theirs")
    kept = zarr.open_group(volume / "tables" / "mitochondria", mode="r")
    assert kept["obs/label"][:].tolist() == ["5", "9"]
    assert kept["obs"].attrs["column-order"] == ["voxels", "touches_border"]
    assert kept["obs/touches_border"][:].tolist() == [True, False]
    assert kept["var/_index"][:].tolist() == ["sphericity"]
    np.testing.assert_array_equal(kept["X"][:], [[0.5], [np.nan]])
    with monkeypatch.context() as patch:
        patch.setattr(tables, "write_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            publish_table(table_path(volume, "mitochondria"), columns)
    assert read_attributes(volume / "tables") == {"tables": ["theirs"]}
    publish_table(table_path(volume, "mitochondria"), columns)
    assert read_attributes(volume / "tables") == {"tables": ["mitochondria", "theirs"]}
    withdraw_table(table_path(volume, "mitochondria"))
    withdraw_table(table_path(volume, "never published"))
    assert read_attributes(volume / "tables") == {"tables": ["theirs"]}
    assert not (volume / "tables" / "mitochondria").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [0, 3])
def test_other_programs_read_them(tmp_path, count):
    ngio, anndata = pytest.importorskip("ngio"), pytest.importorskip("anndata")
    raw = np.zeros((4, 16, 16), np.uint8)
    volume = write_raw(tmp_path / "v.zarr", raw + 1)
    write_labels(volume, raw.astype(np.uint32), (5.0, 5.0, 5.0))
    (volume / "tables").mkdir()
    columns = {
        "label": np.arange(1, count + 1),
        "voxels": np.arange(count) + (1 << 53),
        "sphericity": np.linspace(0, 1, count),
        "touches_border": np.arange(count) % 2 == 0,
    }
    write_table(table_path(volume, "mitochondria"), columns, {}, {})
    publish_table(table_path(volume, "mitochondria"), columns)
    container = ngio.open_ome_zarr_container(str(volume))
    assert container.list_tables() == ["mitochondria"]
    table = container.get_table("mitochondria")
    assert table.reference_label == "mitochondria"
    frame = table.dataframe.reset_index()
    assert set(frame) == set(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(frame[name], values)
    found = anndata.read_zarr(volume / "tables" / "mitochondria")
    assert found.shape == (count, 1)
    assert found.obs_names.tolist() == [str(n) for n in columns["label"]]
