"""Volumes as Python sees them: slices as NumPy cuts them, Dask arrays, results by name."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import volseg
from toy_volumes import write_raw

SHAPE = (10, 40, 36)


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def volume(raw, tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("opened") / "vol.zarr", raw)


def picks(length):
    integers = st.integers(-length, length - 1)
    return integers | st.slices(length)


@given(
    key=st.tuples(*map(picks, SHAPE))
    | st.tuples(picks(SHAPE[0]))
    | st.just(...)
    | st.tuples(st.just(...), picks(SHAPE[2]))
    | picks(SHAPE[0])
)
def test_slices_are_those_of_numpy(volume, raw, key):
    found = volseg.open(volume).raw[key]
    np.testing.assert_array_equal(found, raw[key])
    assert found.shape == raw[key].shape


@pytest.mark.parametrize("key", [(0, 0, 0, 0), 10, -11, None, [1, 2], 1.5, "z", True])
def test_other_indices_are_refused(volume, key):
    with pytest.raises(IndexError):
        volseg.open(volume).raw[key]


def test_a_dask_array_reads_when_it_is_computed(volume, raw):
    array = volseg.open(str(volume)).raw.dask
    assert (array.shape, array.dtype) == (SHAPE, np.uint8)
    assert array.chunksize == (8, 32, 32)
    with dask.config.set(scheduler="sync"):
        assert float(array.mean().compute()) == raw.mean()
        np.testing.assert_array_equal(array[3, ::2].compute(), raw[3, ::2])


def test_levels_and_sizes(volume, raw, tmp_path):
    opened = volseg.open(volume)
    assert (opened.shape, opened.dtype, opened.voxel_size) == (SHAPE, np.uint8, (5.0, 5.0, 5.0))
    large = write_raw(tmp_path / "large.zarr", np.tile(raw, (4, 4, 4)), (32, 64, 64))
    coarse = volseg.open(large).raw.levels[1]
    assert coarse.shape == (20, 80, 72)
    assert coarse.voxel_size == (10.0, 10.0, 10.0)
    assert np.asarray(opened.raw).sum() == raw.sum()
    assert (len(opened.raw), opened.raw.ndim, opened.raw.nbytes) == (10, 3, raw.nbytes)
    assert "10 x 40 x 36 uint8, voxels of 5 x 5 x 5 nm" in repr(opened)
    assert "10 x 40 x 36 uint8" in repr(opened.raw)


def test_results_by_name(volume, toy_model, tmp_path):
    opened = volseg.open(volume)
    assert list(opened.labels) == []
    with pytest.raises(KeyError, match="labels/mitochondria, only: nothing"):
        opened.labels["mitochondria"]
    report = volseg.segment(volume, model=str(toy_model), min_probability=0, block=(8, 32, 32))
    measured = volseg.stats(volume, output=tmp_path / "objects.csv")
    assert list(opened.labels) == list(opened.probabilities) == ["mitochondria"]
    labels = opened.labels["mitochondria"]
    assert labels[...].max() == report.label.objects > 0
    assert labels.attributes["objects"] == report.label.objects
    assert "mitochondria" in opened.tables
    table = opened.tables["mitochondria"].to_pandas()
    assert list(table["label"]) == measured.columns["label"].tolist()
    assert table["voxels"].sum() == np.count_nonzero(labels[...])
    assert len((tmp_path / "objects.csv").read_text().splitlines()) == len(table) + 1
    assert "labels: mitochondria" in repr(opened)
    assert volseg.verify(volume, model=str(toy_model)).ok
    seen = volseg.evaluate(volume, truth="mitochondria", output=tmp_path / "scores")
    assert seen.foreground.jaccard == 1
    assert (tmp_path / "scores" / "evaluation.json").is_file()


def test_no_volume_is_an_error_of_volseg(tmp_path):
    with pytest.raises(volseg.InputError, match="there is nothing at"):
        volseg.open(tmp_path / "none.zarr")
