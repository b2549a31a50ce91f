"""Intensities of volumes that others wrote: counted to the voxel, however the volume is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from toy_elsewhere import write_elsewhere
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.engine.run import same_workers
from volseg.errors import VolumeError
from volseg.stages.survey import intensities
from volseg.stages.survey.intensities import BLOCK_VOXELS, plan_blocks, with_survey
from volseg.storage.arrays import StoredArray
from volseg.storage.attributes import read_histogram
from volseg.storage.volumes import open_image
from volseg.voxels.histogram import count_intensities

ENGINE = EngineOptions(workers=2)
sizes = st.tuples(*3 * [st.integers(1, 3000)])


def counted(image):
    return with_survey(image, ENGINE, NoProgress())


def make(path, raw, chunks):
    zarr.create_array(path, data=raw, chunks=chunks)
    return open_image(path)


@pytest.fixture(scope="module")
def cluster():
    with same_workers(ENGINE):
        yield


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.usefixtures("cluster")
def test_any_blocks_give_the_same(tmp_path, monkeypatch, dtype):
    raw = np.random.default_rng(2).normal(40, 12, (13, 21, 34)).astype(dtype)
    counts, values = count_intensities(raw)
    seen = counts > 0
    found = []
    for number, chunks in enumerate([raw.shape, (5, 4, 30), (1, 21, 34)]):
        image = make(tmp_path / str(number), raw, chunks)
        for voxels in (1, 1000, BLOCK_VOXELS):
            monkeypatch.setattr(intensities, "BLOCK_VOXELS", voxels)
            found.append(counted(image).attributes)
    ours = read_histogram(tmp_path, found[0]["histogram"])
    np.testing.assert_array_equal(ours, (counts[seen], values[seen]))
    assert all(other == found[0] for other in found)
    assert counted(make(tmp_path / "other", raw[::-1] + 1, (5, 5, 5))).attributes != found[0]


@given(shape=sizes, chunk=sizes)
def test_blocks_are_whole_chunks_of_bounded_size(shape, chunk):
    array = StoredArray("x", shape, np.dtype("uint8"), chunk, chunk)
    grid = plan_blocks(array)
    assert not any(b % c for b, c in zip(grid.size, chunk, strict=True))
    assert math.prod(grid.size) <= max(BLOCK_VOXELS, math.prod(chunk))


def test_a_histogram_that_is_there_is_kept(tmp_path):
    raw = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    image = counted(make(tmp_path / "a", raw, raw.shape))
    assert counted(image) is image


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, "float32", r"values that are not finite, in block 0,0,0 .*; replace them first"),
        (7, "int32", r"holds int32; expected uint8, uint16, int16, float32: write it again"),
        (0.5, "float64", r"holds float64; expected"),
    ],
)
def test_what_networks_are_not_given_is_refused(tmp_path, value, dtype, message):
    raw = np.zeros((3, 4, 5), dtype)
    raw[1, 2, 3] = value
    with pytest.raises(VolumeError, match=message):
        counted(open_image(write_elsewhere(tmp_path / "v", raw, "0.4")))
