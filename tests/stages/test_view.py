"""`volseg view`: the pyramid that is read, the state of the viewer, and what a browser is sent."""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from volseg.api.layers import compose_layers, fill_viewer, napari_reader
from volseg.api.looking import view
from volseg.errors import ParameterError, ShapeError, VolumeError
from volseg.stages.view.plan import ViewOptions, plan_view
from volseg.stages.view.pyramids import Pyramid, pyramid_of
from volseg.stages.view.state import compose_link, compose_properties, compose_state
from volseg.storage.arrays import fit_spec
from volseg.storage.locations import parse_location
from volseg.storage.tables import write_table
from volseg.storage.volumes import (
    create_image,
    labels_path,
    open_image,
    probabilities_path,
    table_path,
)

ROOT = Path(__file__).parents[2]
SHAPE = (9, 40, 50)
BOX = (slice(2, 6), slice(10, 20), slice(30, 44))


@pytest.fixture
def raw():
    return np.random.default_rng(3).integers(0, 4000, SHAPE, dtype=np.uint16)


@pytest.fixture
def volume(tmp_path, raw):
    """A volume with probabilities, one object and its table."""
    path = tmp_path / "v.zarr"
    labels = np.zeros(SHAPE, np.uint32)
    labels[BOX] = 7
    whole = (slice(0, 9), slice(0, 40), slice(0, 50))
    for place, values in (
        (path, raw),
        (probabilities_path(path, "mitochondria"), (labels > 0).astype(np.uint8) * 200),
        (labels_path(path, "mitochondria"), labels),
    ):
        label = place.parent.name == "labels"
        spec = fit_spec(SHAPE, values.dtype.name)
        image = create_image(place, spec, (30.0, 5.0, 4.0), label=label, attributes={})
        image.levels[0].write(whole, values)
    columns = {"label": [7], "voxels": [560], "sphericity": [np.nan]}
    for axis, side in zip("zyx", BOX, strict=True):
        columns[f"centroid_{axis}"] = [(side.start + side.stop - 1) / 2]
        columns[f"bbox_{axis}_start"], columns[f"bbox_{axis}_stop"] = [side.start], [side.stop]
    table = {name: np.array(values) for name, values in columns.items()}
    path.joinpath("tables").mkdir()
    notes = {"labels": "labels/mitochondria"}
    write_table(table_path(path, "mitochondria"), table, {"voxels": "voxel"}, notes)
    return path


def test_a_box_comes_from_the_coarsest_level_that_divides_the_scale():
    fine = np.arange(7 * 8 * 9, dtype=np.uint16).reshape(7, 8, 9)
    coarse = np.full((4, 4, 5), 5, np.uint16)
    levels = ((fine, (1, 1, 1)), (coarse, (2, 2, 2)))
    pyramid = Pyramid(fine.shape, fine.dtype, levels, labels=False)
    assert (pyramid.read((1, 1, 1), (1, 2, 3), (3, 8, 9)) == fine[1:3, 2:8, 3:9]).all()
    assert (pyramid.read((2, 4, 2), (0, 0, 0), (4, 2, 5)) == 5).all()
    means = pyramid.read((1, 2, 2), (6, 3, 3), (7, 4, 5))
    # halves are rounded up
    assert means.tolist() == [
        [[int(fine[6, 6:, 6:8].mean() + 0.5), int(fine[6, 6:, 8:].mean() + 0.5)]]
    ]
    labels = Pyramid(fine.shape, np.dtype("u4"), levels[:1], labels=True)
    assert (labels.read((2, 2, 3), (0, 0, 0), (4, 4, 3)) == fine[::2, ::2, ::3]).all()
    assert labels.read((2, 2, 3), (0, 0, 0), (1, 1, 1)).dtype == np.uint32


def test_no_more_is_read_than_is_near_to_what_is_shown():
    array = np.zeros((400, 400, 400), np.uint8)
    alone = Pyramid(array.shape, array.dtype, ((array, (1, 1, 1)),), labels=False)
    assert alone.reach([(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)]) == 64
    with pytest.raises(ParameterError, match="no level close"):
        alone.read((8, 8, 8), (0, 0, 0), (1, 1, 1))
    for start, stop in (((0, 0, 0), (0, 1, 1)), ((-1, 0, 0), (1, 1, 1)), ((0, 0, 0), (9, 9, 401))):
        with pytest.raises(ParameterError, match="no box"):
            alone.read((1, 1, 1), start, stop)


def test_the_state_has_layers_units_and_the_middle(volume):
    scene = plan_view(volume, ViewOptions(truth="mitochondria"))
    state = compose_state(scene, {name: name for name in scene.layers})
    assert list(state["dimensions"]) == ["x", "y", "z"]
    assert np.allclose([n for n, _ in state["dimensions"].values()], [4e-9, 5e-9, 30e-9])
    assert {unit for _, unit in state["dimensions"].values()} == {"m"}
    assert state["position"] == [25, 20, 4.5]
    layers = {layer["name"]: layer for layer in state["layers"]}
    assert list(layers) == ["raw", "probabilities", "objects", "truth"]
    assert [layer["type"] for layer in layers.values()] == ["image"] * 2 + ["segmentation"] * 2
    assert layers["objects"]["segments"] == ["7"]
    assert layers["objects"]["segmentDefaultColor"] != layers["truth"]["segmentDefaultColor"]
    low, high = layers["raw"]["shaderControls"]["normalized"]["range"]
    assert 0 <= low < 100 < 3900 < high <= 4000
    assert json.loads(json.dumps(state)) == state


def test_an_object_is_in_the_middle_and_chosen(volume):
    scene = plan_view(volume, ViewOptions(at=7))
    state = compose_state(scene, {name: name for name in scene.layers})
    assert state["position"] == [37, 15, 4]
    objects = next(layer for layer in state["layers"] if layer["name"] == "objects")
    assert objects["segments"] == ["7"]
    # 42 voxels of 4 nm and 30 of 5 nm are less than 12 of 30 nm
    assert state["crossSectionScale"] * 400 == pytest.approx(12 * 30 / 4)


def test_without_a_voxel_size_units_are_voxels(tmp_path):
    create_image(tmp_path / "v.zarr", fit_spec(SHAPE, "uint8"), None, attributes={})
    scene = plan_view(tmp_path / "v.zarr", ViewOptions())
    assert list(scene.layers) == ["raw"]
    state = compose_state(scene, {"raw": "raw"})
    assert state["dimensions"] == {"x": [1, ""], "y": [1, ""], "z": [1, ""]}


def test_what_does_not_fit_is_refused(volume, tmp_path):
    with pytest.raises(ParameterError, match="no object 8 of mitochondria: they are 7 to 7"):
        plan_view(volume, ViewOptions(at=8))
    create_image(tmp_path / "t.zarr", fit_spec((9, 40, 51), "uint8"), None, attributes={})
    with pytest.raises(ShapeError, match="truth"):
        plan_view(volume, ViewOptions(truth=str(tmp_path / "t.zarr")))
    with pytest.raises(VolumeError, match="no labels/nuclei"):
        plan_view(volume, ViewOptions(name="nuclei"))
    table_path(volume, "mitochondria").unlink()
    with pytest.raises(VolumeError, match="volseg stats"):
        plan_view(volume, ViewOptions(at=7))


def test_a_table_of_other_labels_is_not_shown(volume):
    table = table_path(volume, "mitochondria")
    columns = {"label": np.array([1])}
    write_table(table, columns, {}, {"labels": "others"})
    scene = plan_view(volume, ViewOptions())
    assert not scene.tables
    assert "other labels" in scene.notes[0]


def test_the_table_becomes_properties_that_json_can_hold(volume):
    scene = plan_view(volume, ViewOptions())
    found = json.loads(json.dumps(compose_properties(scene.tables["objects"]), allow_nan=False))
    assert found["inline"]["ids"] == ["7"]
    values = {p["id"]: p["values"] for p in found["inline"]["properties"]}
    assert values == {"voxels": [560.0], "sphericity": ["NaN"]}


def test_the_missing_extra_is_named(volume, monkeypatch):
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    monkeypatch.delitem(sys.modules, "volseg.stages.view.serve", raising=False)
    with pytest.raises(ParameterError, match=re.escape("pip install 'volseg[view]'")):
        view(volume)


@pytest.fixture
def served(volume):
    pytest.importorskip("neuroglancer")
    shown = view(volume, at=7)
    yield shown
    shown.stop()


def fetch(served, path):
    with urllib.request.urlopen(served.url.split("/v/")[0] + path, timeout=30) as answer:
        return answer.read()


def key_of(served, layer):
    """Find the name under which the server has a layer."""
    (found,) = (entry for entry in served.state["layers"] if entry["name"] == layer)
    return re.search(r"python://volume/([^'\"]+)", str(found["source"]))[1]


def test_a_browser_is_sent_what_is_stored(served, raw):
    assert served.url.startswith("http://127.0.0.1:")
    assert b"neuroglancer" in fetch(served, "/v/" + served.url.split("/v/")[1])
    key = key_of(served, "raw")
    info = json.loads(fetch(served, f"/neuroglancer/info/{key}"))
    assert (info["shape"], info["dataType"]) == (list(SHAPE), "uint16")
    sent = zlib.decompress(fetch(served, f"/neuroglancer/npz/{key}/1,1,1/2,3,4/9,30,50"))
    assert (np.load(io.BytesIO(sent), allow_pickle=False) == raw[2:9, 3:30, 4:50]).all()


def test_a_browser_is_sent_the_table_and_a_mesh(served):
    token = served.url.rstrip("/").rpartition("/")[2]
    table = json.loads(fetch(served, f"/volseg/{token}/objects/info"))
    assert table["@type"] == "neuroglancer_segment_properties"
    mesh = fetch(served, f"/neuroglancer/mesh/{key_of(served, 'objects')}/7")
    count = int.from_bytes(mesh[:4], "little")
    corners = np.frombuffer(mesh[4 : 4 + 12 * count], "f4").reshape(-1, 3)
    sides = np.array([[s.start for s in BOX], [s.stop for s in BOX]]) * [30e-9, 5e-9, 4e-9]
    assert np.allclose([corners.min(axis=0), corners.max(axis=0)], sides, atol=1e-10)


def test_a_wrong_request_gets_a_status(served):
    for path in (
        f"/neuroglancer/npz/{key_of(served, 'raw')}/1,1,1/0,0,0/10,40,50",
        f"/neuroglancer/raw/{key_of(served, 'raw')}/1,1,1/0,0,0/9,40,50",
        f"/neuroglancer/mesh/{key_of(served, 'objects')}/8",
        "/volseg/other/objects/info",
    ):
        with pytest.raises(urllib.error.HTTPError):
            fetch(served, path)


def test_levels_that_are_no_whole_parts_are_left_out(volume):
    image = open_image(volume)
    assert [f for _, f in pyramid_of(image).levels] == [(1, 1, 1)]
    odd = replace(image, levels=image.levels * 2, factors=(*image.factors, (1.0, 1.5, 1.5)))
    assert len(pyramid_of(odd).levels) == 1


def test_a_link_names_the_places_of_all_layers(volseg, volume):
    options = ViewOptions(at=7)
    scene = plan_view(volume, options)
    far = replace(scene, path=parse_location("https://data.org/a b/v.zarr"))
    url = compose_link(far, options)
    assert url.startswith("https://neuroglancer-demo.appspot.com/#!%7B")
    state = json.loads(urllib.parse.unquote(url.partition("#!")[2]))
    sources = {layer["name"]: layer["source"] for layer in state["layers"]}
    assert sources == {
        "raw": "zarr3://https://data.org/a%20b/v.zarr",
        "probabilities": "zarr3://https://data.org/a%20b/v.zarr/probabilities/mitochondria",
        "objects": "zarr3://https://data.org/a%20b/v.zarr/labels/mitochondria",
    }
    # in a volume that it reads itself, neuroglancer counts from the middle of the first voxel
    assert state["position"] == [36.5, 14.5, 3.5]
    elsewhere = replace(far, corner=(99.5, -0.5, 7.5))
    url = compose_link(elsewhere, options)
    state = json.loads(urllib.parse.unquote(url.partition("#!")[2]))
    assert state["position"] == [44.5, 14.5, 103.5]
    done = volseg("view", volume, "--link")
    assert (done.exit_code, "to which no link leads" in done.output) == (2, True)


def test_napari_gets_layers_in_nm_with_the_table_of_objects(volume, raw):
    layers = {words["name"]: (data, words, kind) for data, words, kind in compose_layers(volume)}
    assert list(layers) == ["v", "v probabilities mitochondria", "v mitochondria"]
    data, words, kind = layers["v mitochondria"]
    assert (kind, words["scale"], words["units"]) == ("labels", (30, 5, 4), ("nm",) * 3)
    # the row of an object is its label, as napari's widget wants it
    assert words["features"]["index"].tolist() == [-1] * 7 + [7]
    assert words["features"]["voxels"].tolist() == [0] * 7 + [560]
    assert data[BOX].compute().min() == 7
    assert (layers["v"][0].compute() == raw).all()
    assert layers["v"][2] == "image"


def test_rows_of_labels_that_are_large_stay_as_they_are(volume, monkeypatch):
    monkeypatch.setattr("volseg.api.layers.FEATURE_ROWS", 7)
    features = compose_layers(volume)[-1][1]["features"]
    assert (features["index"].tolist(), features["voxels"].tolist()) == ([7], [560])


@pytest.mark.filterwarnings("ignore")
def test_a_click_in_napari_itself_chooses_the_object_and_shows_its_row(volume):
    components = pytest.importorskip("napari.components")
    viewer = components.ViewerModel()
    fill_viewer(viewer, volume, "mitochondria", (4, 15, 37))
    assert [layer.name for layer in viewer.layers] == [
        "v",
        "v probabilities mitochondria",
        "v mitochondria",
    ]
    layer, place = viewer.layers["v mitochondria"], (120.0, 75.0, 148.0)
    assert (layer.visible, tuple(viewer.dims.point)) == (True, place)
    assert tuple(str(unit) for unit in layer.units) == ("nanometer",) * 3
    shown = {"view_direction": None, "dims_displayed": [1, 2]}
    assert "label: 7, voxels: 560" in layer.get_status(place, world=True, **shown)["value"]
    for at, chosen in ((place, 7), ((0.0, 0.0, 0.0), 7)):  # the background chooses nothing
        event = SimpleNamespace(position=at, **shown)
        for callback in layer.mouse_drag_callbacks:
            callback(layer, event)
        assert layer.selected_label == chosen
    assert layer.features.iloc[layer.selected_label]["voxels"] == 560


@pytest.mark.filterwarnings("ignore")
def test_napari_finds_volumes_and_the_sample_by_the_manifest(volume):
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(str(resources.files("volseg") / "napari.yaml"))
    plugins = npe2.PluginManager()
    plugins.register(manifest)
    plugins.activate("volseg")
    (reader,) = plugins.iter_compatible_readers([str(volume)])
    found = reader.exec(kwargs={"path": [str(volume)], "stack": False}, _registry=plugins.commands)
    assert len(found([str(volume)], stack=False)) == 3
    ((plugin, (sample,)),) = plugins.iter_sample_data()
    (raw, words, _), (truth, _, kind) = sample.open(_registry=plugins.commands)
    assert (plugin, raw.shape, truth.max(), kind) == ("volseg", (32, 384, 384), 1, "labels")
    assert words["scale"] == (5, 5, 5)


def test_the_manifest_of_napari_offers_the_reader(volseg, volume, tmp_path, monkeypatch):
    yaml = pytest.importorskip("yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, file = project["entry-points"]["napari.manifest"]["volseg"].partition(":")
    found = resources.files(module).joinpath(file).read_text()
    manifest = yaml.safe_load(found)
    (reader,) = manifest["contributions"]["readers"]
    (sample,) = manifest["contributions"]["sample_data"]
    command, offered = manifest["contributions"]["commands"]
    assert (manifest["name"], sample["command"]) == (project["name"], offered["id"])
    assert offered["python_name"] == "volseg.api.layers:napari_sample"
    assert (manifest["name"], reader["command"]) == (project["name"], command["id"])
    place, _, name = command["python_name"].partition(":")
    assert getattr(importlib.import_module(place), name) is napari_reader
    read = napari_reader(str(volume))
    assert len(read([str(volume)])) == 3
    assert napari_reader([str(tmp_path / "nothing.zarr")]) is None
    monkeypatch.setitem(sys.modules, "napari", None)
    done = volseg("view", volume, "--napari")
    assert (done.exit_code, "pip install 'napari[all]'" in done.output) == (2, True)
    assert volseg("view", volume, "--napari", "--link").exit_code == 2
