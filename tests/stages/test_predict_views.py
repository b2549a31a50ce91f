"""Views: which slices a network of slices sees of a volume, flat ones above all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from toy_predictions import exact_options, read_map
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.defaults import NAME
from volseg.engine.progress import NoProgress
from volseg.models.inference import Predictor
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.predict.lattice import DEPTH, choose_views
from volseg.stages.predict.network import PredictOptions, settle_model
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import update_attributes
from volseg.storage.cards import load_card
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path

CUBES = (5.0, 5.0, 5.0)
CARD = load_card("unet2d")


def noise(shape):
    return np.random.default_rng(3).integers(1, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "size", "views"),
    [
        ((DEPTH, DEPTH, DEPTH), CUBES, "ortho"),
        ((DEPTH - 1, 900, 900), CUBES, "xy"),
        ((1, 900, 900), CUBES, "xy"),
        ((900, DEPTH - 1, 900), CUBES, "xz"),
        ((900, 900, DEPTH - 1), CUBES, "yz"),
        ((5, 5, 900), CUBES, "xy"),
        ((900, 9, 5), CUBES, "yz"),
        ((4, 4, 4), CUBES, "xy"),
        ((DEPTH, 900, 900), (2.5, 2.5, 2.5), "xy"),
        ((2 * DEPTH, 900, 900), (2.5, 2.5, 2.5), "ortho"),
        ((-(-DEPTH // 2), 900, 900), (10.0, 10.0, 10.0), "ortho"),
        ((900, 5, 900), (50.0, 5.0, 5.0), "xy"),
        ((900, 5, 900), None, "xy"),
        ((900, 900, 900), (5.4, 5.0, 5.0), "ortho"),
        ((900, 900, 900), (24.0, 20.0, 20.0), "xy"),
    ],
)
def test_slices_are_seen_along_axes_where_they_are_wide_enough(shape, size, views):
    found, words = choose_views(shape, size, CARD)
    assert found == views
    cubes = size is not None and max(size) < 1.1 * min(size)
    assert (f"narrower than {DEPTH}" in words) == (views != "ortho" and cubes)


@given(st.tuples(*[st.integers(1, 200)] * 3))
def test_a_single_view_is_the_one_of_the_widest_slices(shape):
    views, _ = choose_views(shape, CUBES, CARD)
    narrowest = {"xy": min(shape[1:]), "xz": min(shape[0], shape[2]), "yz": min(shape[:2])}
    if views == "ortho":
        assert min(shape) >= DEPTH
    else:
        assert min(shape) < DEPTH
        assert narrowest[views] == max(narrowest.values())


def test_what_is_asked_for_is_taken(tmp_path):
    volume = open_image(write_raw(tmp_path / "vol.zarr", np.zeros((2, 40, 40), np.uint8)))
    chosen, notes = settle_model(volume, PredictOptions(views="ortho"))
    assert (chosen.views, len(notes)) == ("ortho", 1)
    chosen, (note,) = settle_model(volume, PredictOptions())
    assert chosen.views == "xy"
    assert "slices along z alone" in note
    chosen, notes = settle_model(volume, PredictOptions(model="unet2d"))
    assert (chosen.views, notes) == ("xy", ())


def test_what_an_earlier_version_began_along_other_axes_is_gone_on_with(tmp_path):
    """Until 2026-11-30, voxels counted as cubes whose sides differ by a fifth."""
    volume = write_raw(
        tmp_path / "vol.zarr", np.zeros((40, 40, 40), np.uint8), voxel_size=(5.8, 5.0, 5.0)
    )
    image = open_image(volume)
    assert settle_model(image, PredictOptions())[0].views == "xy"
    for known, views in (([False, False, "ortho"], "ortho"), ([True, True, "xy"], "xy"), (7, "xy")):
        path = probabilities_path(volume, NAME)
        if not path.exists():
            create_image(path, fit_spec((40, 40, 40), "uint8"), None, attributes={})
        update_attributes(path, {"complete": False, "run": {"averaged": known}})
        chosen, (note,) = settle_model(image, PredictOptions())
        assert (chosen.views, "as the result that stands" in note) == (views, views == "ortho")
        assert settle_model(image, PredictOptions(overwrite=True))[0].views == "xy"
        assert settle_model(image, PredictOptions(name="other"))[0].views == "xy"
        assert settle_model(image, PredictOptions(views="xz"))[0].views == "xz"


@pytest.mark.parametrize(("views", "axes"), [("xz", (1, 0, 2)), ("yz", (2, 0, 1))])
def test_slices_along_one_axis_are_those_of_the_turned_volume(views, axes, tmp_path):
    model = write_weights(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16), 4)
    raw = np.random.default_rng(3).integers(0, 256, (70, 40, 60), dtype=np.uint8)
    turned = write_raw(tmp_path / "turned.zarr", np.ascontiguousarray(raw.transpose(axes)))
    predict(plan_prediction(turned, exact_options(model)), NoProgress())
    volume = write_raw(tmp_path / "vol.zarr", raw)
    for block, workers in (((8, 32, 32), 1), ((16, 64, 32), 2)):
        options = exact_options(model, block, workers, views=views, overwrite=True)
        predict(plan_prediction(volume, options), NoProgress())
        np.testing.assert_array_equal(read_map(volume).transpose(axes), read_map(turned))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_thin_crop_is_segmented_as_well_as_by_one_view(depth, crop, tmp_path, monkeypatch):
    evaluated, evaluate = [], Predictor._evaluate
    monkeypatch.setattr(
        Predictor,
        "_evaluate",
        lambda self, batch, taken: evaluated.append(batch.numel()) or evaluate(self, batch, taken),
    )
    part = np.s_[8 : 8 + depth, 100:220, 100:220]
    raw, truth = (tifffile.imread(crop / f"{name}.tif")[part] for name in ("raw", "labels"))
    volume, found, work = write_raw(tmp_path / "vol.zarr", raw), {}, {}
    options = PredictOptions(device="cpu", precision="float32", overwrite=True)
    for views in ("xy", None):
        evaluated.clear()
        asked = SegmentOptions(predict=replace(options, model=views and "unet2d", views=views))
        segment(plan_segmentation(volume, asked), NoProgress())
        image = open_image(labels_path(volume, "mitochondria"))
        mask = image.levels[0][:, :, :] > 0
        found[views] = (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum()
        work[views] = sum(evaluated)
    assert found[None] >= found["xy"] - 0.01
    assert found[None] > 0.85
    assert work[None] <= 3.5 * max(work["xy"], 1)
    assert image.attributes["model"]["name"] == "unet2d"


@pytest.mark.parametrize(
    ("views", "tile"),
    [("ortho", (128, 128, 128)), ("yz", (96, 96, 4))],
)
def test_verify_finds_the_tiles_of_a_small_volume_again(views, tile, tmp_path):
    """Where one tile holds an axis whole, what is recorded is smaller than what was asked for."""
    model = write_weights(tmp_path, "unet2d", (8, 96, 96), (0, 48, 48), 2)
    volume = write_raw(tmp_path / "v.zarr", noise((8, 160, 160)), shard=(8, 64, 64))
    options = PredictOptions(str(model), tile=tile, views=views, device="cpu", precision="float32")
    predict(plan_prediction(volume, options), NoProgress())
    report = verify(volume, VerifyOptions(model=str(model), sample=1), NoProgress())
    assert report.findings == ()
    (again,) = report.sampled
    assert (again.largest, again.allowed.largest) == (0, 0)


@pytest.mark.parametrize("size", [CUBES, None])
def test_a_cards_sizes_are_volumes_where_voxels_have_a_size_and_zoomed_elsewhere(size, tmp_path):
    """Of voxels that are taken as twice as large, an eighth of as many fill the same object."""
    sizes = {"min_size": 805, "min_probability": 0.7, "faint_size": 8050}
    model = write_weights(tmp_path, "unet2d", (8, 64, 64), (0, 16, 16), 2, **sizes)
    volume = write_raw(tmp_path / "v.zarr", noise((4, 64, 64)), voxel_size=size)
    found = {}
    for zoom in (1.0, 2.0, 0.5):
        options = PredictOptions(str(model), f"zoom{zoom}".replace(".", "-"), views="xy", zoom=zoom)
        plan = plan_segmentation(volume, SegmentOptions(predict=options))
        header = plan.labellings[0].header
        found[zoom] = header["min_size"], header["faint_size"]
        segment(plan, NoProgress())
        again = plan_labels(volume, options.name, LabelOptions())
        assert again.header == plan.labellings[0].header
    zoomed = {1.0: (805, 8050), 2.0: (101, 1007), 0.5: (6440, 64400)}
    assert found == (zoomed if size is None else dict.fromkeys(zoomed, zoomed[1.0]))


def test_a_zoom_decides_in_which_slices_a_network_sees_enough(tmp_path):
    """Of voxels that are taken as half as large, twice as many are wide enough."""
    volume = write_raw(tmp_path / "v.zarr", np.zeros((40, 200, 200), np.uint8))
    image = open_image(volume)
    views = [settle_model(image, PredictOptions(zoom=zoom))[0].views for zoom in (1.0, 0.5)]
    assert views == ["ortho", "xy"]
