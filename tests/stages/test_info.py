"""Info: what stands in a volume, from its metadata alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import zarr

from volseg.cli.info import _lines
from volseg.errors import VolumeError
from volseg.stages.info.run import info
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.storage.arrays import fit_spec
from volseg.storage.volumes import create_image, labels_path, probabilities_path

SHAPE = (40, 150, 160)
SIZE = (50.0, 5.0, 4.0)


def make(path, dtype="uint8", label=False, **attributes):
    return create_image(path, fit_spec(SHAPE, dtype), SIZE, label=label, attributes=attributes)


def test_an_image_and_what_is_in_it(tmp_path):
    volume = tmp_path / "vol.zarr"
    image = make(volume, histogram={"values": [0, 1], "counts": [1, 3]}, version="1.2.3")
    make(probabilities_path(volume, "m"), threshold=0.5)
    make(labels_path(volume, "m"), "uint32", label=True)
    make(labels_path(volume, "n"), "uint64", label=True)
    (volume / "tables").mkdir()
    (volume / "tables" / "m.parquet").touch()
    found = info(volume)
    assert (found["shape"], found["dtype"], found["voxel_size"]) == ([*SHAPE], "uint8", [*SIZE])
    assert found["levels"] == [[*level.shape] for level in image.levels]
    assert found["volseg"] == {"version": "1.2.3"}
    assert (found["findings"], found["notes"]) == (None, [])
    assert found["probabilities"]["m"]["volseg"] == {"threshold": 0.5}
    assert {n: d["dtype"] for n, d in found["labels"].items()} == {"m": "uint32", "n": "uint64"}
    assert found["tables"] == ["m"]
    assert found["saturated"] == [0.25, 0.0]
    assert "  saturated: 25.00% of the voxels are black, 0.00% white" in _lines(volume, found)
    assert not any("saturated" in n for n in _lines(volume, found | {"saturated": [0.0, 0.00004]}))
    assert json.loads(json.dumps(found)) == found


def test_levels_that_lie_elsewhere_are_told(tmp_path, toy_model):
    """As of programs that write a translation for level 0 alone."""
    volume = tmp_path / "vol.zarr"
    make(volume)
    group = zarr.open_group(volume)
    ome = group.attrs["ome"]
    first, *coarser = ome["multiscales"][0]["datasets"]
    first["coordinateTransformations"][1]["translation"] = [9e3, 0, 0]
    for level in coarser:
        del level["coordinateTransformations"][1]
    group.attrs["ome"] = ome
    found = info(volume)
    (note,) = found["notes"]
    paths = ", ".join(level["path"] for level in coarser)
    assert note.startswith("coarser levels that are not used")
    assert f"elsewhere than that of level 0: {paths}; if" in note
    assert len(found["levels"]) == 1
    assert note in plan_prediction(volume, PredictOptions(model=str(toy_model))).notes


def test_results_say_how_they_were_made(tmp_path):
    volume = tmp_path / "vol.zarr"
    make(volume)
    run = {"threshold_of_255": 128}
    noted = {"run": run, "model": {"name": "emnet"}, "objects": 7, "complete": True}
    make(labels_path(volume, "m"), "uint32", label=True, **noted)
    found = info(volume)
    assert "date" not in found
    made = found["labels"]["m"]
    assert (made["model"], made["threshold"], made["objects"]) == ("emnet", 0.5, 7)
    made_at = datetime.fromisoformat(made["date"])
    assert abs((datetime.now(UTC) - made_at).total_seconds()) < 600
    (line,) = (line for line in _lines(volume, found) if "labels/m" in line)
    assert line.startswith(
        f"  labels/m: 7 objects by emnet, threshold 0.5, {made['date'][:10]}; 40 x"
    )


def test_a_plain_array_of_others(tmp_path):
    zarr.create_array(tmp_path / "a", shape=SHAPE, chunks=(8, 16, 16), dtype="uint16")
    found = info(tmp_path / "a")
    assert (found["shape"], found["chunk"], found["dtype"]) == ([*SHAPE], [8, 16, 16], "uint16")
    assert found["voxel_size"] is None
    assert (found["probabilities"], found["labels"], found["tables"]) == ({}, {}, [])


def test_voxels_are_not_read(tmp_path):
    """All of them may be damaged, and it still says what is there."""
    image = make(tmp_path / "v")
    box = tuple(slice(0, n) for n in SHAPE)
    image.levels[0].write(box, np.ones(SHAPE, np.uint8))
    for file in (tmp_path / "v" / "0" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert info(tmp_path / "v")["shape"] == [*SHAPE]


def test_what_is_no_volume_is_named(tmp_path):
    with pytest.raises(VolumeError, match="there is nothing at"):
        info(tmp_path / "nowhere")
