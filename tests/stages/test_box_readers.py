"""Boxes read in raster order are those of the array, whatever its chunks."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from volseg.geometry.grid import Grid, full_roi, grow
from volseg.stages.stats.tasks import SlabReader, brick_of, open_reader
from volseg.storage.arrays import ArraySpec, create_array, open_array
from volseg.storage.shard_reading import ChunkReader

sides = st.tuples(*[st.integers(1, 9)] * 3)


class Counted:
    """An array that knows how many slices of it were read."""

    def __init__(self, array):
        self.array, self.slices = array, 0

    def __getitem__(self, roi):
        self.slices += roi[0].stop - roi[0].start
        return self.array[roi]


@given(shape=sides, block=sides, brick=sides, depth=st.integers(1, 9))
def test_any_boxes_of_any_block(shape, block, brick, depth):
    whole = np.arange(np.prod(shape)).reshape(shape)
    for region in Grid(shape, block).blocks():
        read = SlabReader(whole, depth, grow(region.core, (1, 1, 1), shape))
        for box in Grid(shape, brick).blocks(region.core):
            inside = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(box.core, region.core, strict=True)
            )
            np.testing.assert_array_equal(read(inside), whole[inside])


def test_slices_that_are_stored_together_are_read_once():
    source = Counted(np.zeros((20, 8, 8)))
    read = SlabReader(source, 10, full_roi((20, 8, 8)))
    for box in Grid((20, 8, 8), (5, 4, 4)).blocks():
        read(box.core)
    assert source.slices == 20


@pytest.mark.parametrize("limit", [None, ("LARGEST_PIECE", 63), ("LONGEST_SIDE", 3)])
def test_small_chunks_of_volsegs_are_read_one_by_one(tmp_path, limit, monkeypatch):
    array = create_array(tmp_path / "a", ArraySpec((8, 8, 8), "uint8", (4, 4, 4), (8, 8, 8)))
    if limit:
        name, most = limit
        monkeypatch.setattr(f"volseg.stages.stats.tasks.{name}", most)
    brick = brick_of(array)
    kind = type(open_reader(array, array, brick, full_roi(array.shape)))
    assert (kind, brick) == ((SlabReader, (32, 64, 64)) if limit else (ChunkReader, (4, 4, 4)))


def test_other_arrays_are_read_slab_by_slab(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(8, 8, 8), chunks=(4, 4, 4), dtype="uint8")
    array = open_array(tmp_path / "a")
    assert isinstance(open_reader(array, array, (4, 4, 4), full_roi(array.shape)), SlabReader)
