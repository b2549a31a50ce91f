"""Arrays in, arrays out: the numbers of the commands, and blocks that leave no trace."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import volseg
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.api.scratch import write_array
from volseg.errors import ShapeError
from volseg.fields import plain
from volseg.models.maps import build_maps
from volseg.storage.cards import update_card

SHAPE = (14, 40, 36)
SIZE = (5.0, 5.0, 5.0)


def smooth(seed, shape=SHAPE):
    raw = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2)
    return ((raw - raw.min()) / np.ptp(raw) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def segmented(toy_model, tmp_path_factory):
    volume = write_raw(tmp_path_factory.mktemp("arrays") / "vol.zarr", smooth(4))
    volseg.segment(volume, model=str(toy_model), block=(8, 32, 32))
    return volume


def test_predict_array_gives_the_numbers_of_segment(segmented, toy_model):
    found = volseg.predict_array(smooth(4), voxel_size=SIZE, model=str(toy_model))
    stored = volseg.open(segmented).probabilities["mitochondria"][...]
    np.testing.assert_array_equal(found, stored)


def test_predict_array_refuses_a_network_of_several_classes_before_it_works(tmp_path):
    maps = [asdict(m) for m in build_maps(["cells", "gaps"])]
    model = write_weights(tmp_path, "unet2d", (2, 32, 32), (0, 16, 16), maps=maps)
    with pytest.raises(volseg.InputError, match="knows cells, gaps, and an array holds one class"):
        volseg.predict_array(None, voxel_size=SIZE, model=str(model))


@settings(max_examples=5)
@given(
    threshold=st.sampled_from([0.3, 0.5, 0.6]),
    min_size=st.sampled_from([0, 30]),
    connectivity=st.sampled_from([6, 26]),
)
def test_label_array_gives_the_numbers_of_label(segmented, threshold, min_size, connectivity):
    rules = {"threshold": threshold, "min_size": min_size, "connectivity": connectivity}
    report = volseg.label(segmented, min_probability=0, overwrite=True, block=(8, 32, 32), **rules)
    opened = volseg.open(segmented)
    probabilities = opened.probabilities["mitochondria"]
    found = volseg.label_array(probabilities, **rules)
    np.testing.assert_array_equal(found, opened.labels["mitochondria"][...])
    assert found.max() == report.objects
    floats = np.asarray(probabilities) / 255
    np.testing.assert_array_equal(volseg.label_array(floats, **rules), found)


def test_label_array_takes_the_rules_of_a_model(segmented, toy_model):
    volseg.label(segmented, overwrite=True)
    opened = volseg.open(segmented)
    found = volseg.label_array(opened.probabilities["mitochondria"], model=str(toy_model))
    np.testing.assert_array_equal(found, opened.labels["mitochondria"][...])


def test_label_array_takes_a_median_where_segment_does(toy_model, tmp_path):
    update_card(toy_model, {"median_nm": 20.0})
    try:
        for order, taken in ((smooth(9), True), (smooth(9, (90, *SHAPE[1:]))[::10], False)):
            volume = tmp_path / f"{taken}.zarr"
            tifffile.imwrite(tmp_path / "a.tif", order, photometric="minisblack")
            volseg.convert(tmp_path / "a.tif", volume, voxel_size=SIZE)
            volseg.segment(volume, model=str(toy_model), device="cpu")
            opened = volseg.open(volume)
            found, want = opened.probabilities["mitochondria"], opened.labels["mitochondria"][...]
            asked = {"model": str(toy_model), "voxel_size": SIZE}
            np.testing.assert_array_equal(volseg.label_array(found, raw=order, **asked), want)
            # of slices that continue one another, images=True is what takes none
            unseen = volseg.label_array(found, images=taken, **asked)
            assert (unseen != want).any()
        with pytest.raises(ShapeError, match="raw has the shape"):
            volseg.label_array(found, raw=order[1:], **asked)
    finally:
        update_card(toy_model, {"median_nm": 0.0})


def test_measure_array_gives_the_numbers_of_stats(segmented, tmp_path):
    labels = np.asarray(volseg.open(segmented).labels["mitochondria"])
    expected = volseg.stats(segmented)
    found = volseg.measure_array(labels, voxel_size=SIZE, raw=smooth(4))
    assert found.summary == expected.summary
    shared = set(found.columns)
    assert shared == {name for name in expected.columns if "probability" not in name}
    for name in shared:
        np.testing.assert_array_equal(found.columns[name], expected.columns[name], err_msg=name)
    unknown = volseg.measure_array(labels)
    assert "volume_nm3" not in unknown.columns
    assert unknown.columns["voxels"].sum() == np.count_nonzero(labels)


def test_compare_arrays_gives_the_numbers_of_evaluate(segmented, tmp_path):
    labels = np.asarray(volseg.open(segmented).labels["mitochondria"])
    truth = np.roll(labels, 1, axis=2)
    found = volseg.compare_arrays(truth, labels, voxel_size=SIZE)
    expected = volseg.evaluate(segmented, truth=write_array(tmp_path / "truth", truth))
    assert 0 < found.foreground.jaccard < 1
    named = {"volume", "truth", "prediction", "seconds", "notes", "curves"}
    numbers = [
        {name: value for name, value in plain(seen).items() if name not in named}
        for seen in (found, expected)
    ]
    assert numbers[0] == numbers[1]
    masks = volseg.compare_arrays(truth > 0, labels > 0)
    assert [note.startswith(("truth", "prediction")) for note in masks.notes] == [True, True]


def test_arrays_that_cannot_be_used_are_refused():
    cube = np.zeros((4, 4, 4), np.uint8)
    for call, message in (
        (lambda: volseg.measure_array(cube[0]), "three axes"),
        (lambda: volseg.label_array(cube), "give a threshold"),
        (lambda: volseg.label_array(cube + 2.0, threshold=0.5), "floats from 0 to 1"),
        (lambda: volseg.label_array(cube, threshold=0.5, split="centerline"), "centerlines need"),
        (lambda: volseg.compare_arrays(cube, cube[:2]), "shape"),
        (lambda: volseg.predict_array(cube.astype("c8"), voxel_size=None), "holds numbers"),
    ):
        with pytest.raises(volseg.InputError, match=message):
            call()


def test_arrays_of_others_stand_for_what_files_of_them_do(segmented, tmp_path):
    rng = np.random.default_rng(2)
    for values in (rng.random(SHAPE) * 1.0001, rng.random(SHAPE) > 0.6):
        tifffile.imwrite(tmp_path / "p.tif", values.astype("f4" if values.dtype != bool else "u1"))
        given = {"probabilities": tmp_path / "p.tif", "name": "of-others", "overwrite": True}
        volseg.label(segmented, threshold=0.5, **given)
        found = volseg.label_array(values, threshold=0.5, voxel_size=SIZE)
        np.testing.assert_array_equal(found, volseg.open(segmented).labels["of-others"][...])
        assert found.any()
    with pytest.warns(UserWarning, match="given as mask > 0"):
        assert not volseg.label_array(np.ones((4, 16, 16), np.uint8), threshold=0.5).any()


def blurred(block):
    return ndimage.uniform_filter(block.astype(np.float32), 3, mode="nearest")


def total(block):
    return int(block.sum())


@settings(max_examples=8)
@given(block=st.tuples(*(st.integers(3, n) for n in SHAPE)))
def test_a_local_function_gives_the_same_in_any_blocks(segmented, block):
    whole = blurred(smooth(4))
    found = volseg.map_blocks(blurred, segmented, block, (1, 1, 1), dtype="float32")
    np.testing.assert_array_equal(found, whole)


def test_results_are_written_or_collected(segmented, tmp_path):
    raw = volseg.open(segmented).raw
    stored = volseg.map_blocks(
        blurred, raw, (8, 32, 32), (1, 1, 1), dtype="float32", output=tmp_path / "blurred.zarr"
    )
    np.testing.assert_array_equal(stored[...], blurred(smooth(4)))
    sums = volseg.map_blocks(total, volseg.open(segmented), (7, 40, 36))
    assert sums == [int(smooth(4)[:7].sum()), int(smooth(4)[7:].sum())]
    with pytest.raises(volseg.InputError, match="needs a dtype"):
        volseg.map_blocks(total, raw, (8, 8, 8), output=tmp_path / "none")
    with pytest.raises(volseg.InputError, match="returned"):
        volseg.map_blocks(np.sum, raw, (8, 8, 8), dtype="float32")


def brighter(block):
    return block.astype(np.int64) + 200


def halved(block):
    return block / 2


@pytest.mark.parametrize("output", [None, "made"])
def test_what_a_type_cannot_hold_is_refused_and_not_wrapped(segmented, tmp_path, output):
    whole, place = smooth(4), None if output is None else tmp_path / output
    for function in (brighter, halved):
        with pytest.raises(volseg.VolsegError, match="uint8 cannot hold; give another dtype"):
            volseg.map_blocks(
                function,
                segmented,
                (8, 32, 32),
                dtype="uint8",
                output=place and f"{place}-{function.__name__}",
            )
    found = volseg.map_blocks(brighter, segmented, (8, 32, 32), dtype="uint16", output=place)
    np.testing.assert_array_equal(found[...], whole.astype(np.int64) + 200)
    found = volseg.map_blocks(halved, segmented, (8, 32, 32), dtype="float32")
    np.testing.assert_array_equal(found, whole / np.float32(2))


def enormous(block):
    return block * 1e39


def fails(block):
    raise ValueError(f"a block of {block.shape}")


@pytest.mark.parametrize(
    ("function", "keywords", "words"),
    [
        (fails, {}, "a block of"),
        (halved, {"dtype": "uint8"}, "cannot hold"),
        (enormous, {"dtype": "float32"}, "float32 cannot hold"),
        (blurred, {"block": (0, 32, 32)}, "must be positive"),
        (blurred, {"cluster_config": "nodes.toml"}, "give both"),
    ],
)
def test_an_array_that_is_not_complete_is_not_left(segmented, tmp_path, function, keywords, words):
    where = {"block": (8, 32, 32), "dtype": "float32", "output": tmp_path / "made", **keywords}
    with pytest.raises(volseg.VolsegError, match=words):
        volseg.map_blocks(function, segmented, **where)
    assert not list(tmp_path.iterdir())


def test_arrays_are_not_taken_for_the_names_of_files(segmented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    volume, array = volseg.open(segmented), np.zeros((4, 4, 4), np.uint8)
    for call, found in (
        (lambda: volseg.map_blocks(total, array, (4, 4, 4)), "ndarray"),
        (lambda: volseg.stats(volume, name="mitochondria"), "Volume"),
        (lambda: volseg.verify(array), "ndarray"),
        (lambda: volseg.open(volume.raw), "ImageArray"),
        (lambda: volseg.convert(array, "new.zarr"), "ndarray"),
        (lambda: volseg.run(array), "ndarray"),
        (lambda: volseg.run(segmented, truth=array), "ndarray"),
        (lambda: volseg.report(segmented, truth=array), "ndarray"),
        (lambda: volseg.evaluate(segmented, truth=array), "ndarray"),
        (lambda: volseg.evaluate(segmented, truth="labels.tif", mask=array), "ndarray"),
        (lambda: volseg.segment(segmented, mask=array), "ndarray"),
        (lambda: volseg.view(segmented, truth=array), "ndarray"),
        (lambda: volseg.export(segmented, output=array), "ndarray"),
        (lambda: volseg.teach(segmented, painted=array), "ndarray"),
        (lambda: volseg.train(segmented, labels=array, output="made", steps=1), "ndarray"),
        (lambda: volseg.train(data=[(segmented, array)], output="made", steps=1), "ndarray"),
    ):
        with pytest.raises(volseg.InputError, match=f"expected a path or a URL, found {found}"):
            call()
    assert not list(tmp_path.iterdir())
