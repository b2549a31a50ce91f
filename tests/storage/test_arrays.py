"""Arrays in storage: what was written is what is read, by others too, and damage is noticed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ConflictError, ShapeError, StorageError, VolumeError
from volseg.geometry.grid import full_roi
from volseg.storage.arrays import ArraySpec, create_array, open_array

SHAPE = (19, 37, 41)
SPEC = ArraySpec(SHAPE, "uint16", (4, 8, 8), (8, 16, 16))


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 2**16, SHAPE, np.uint16)


@pytest.fixture(scope="module")
def stored(content, tmp_path_factory):
    array = create_array(tmp_path_factory.mktemp("array") / "a", SPEC)
    array.write(full_roi(SHAPE), content)
    return array


def bounds(n):
    return st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda b: b[0] < b[1])


@given(box=st.tuples(*[bounds(n) for n in SHAPE]))
def test_any_box_is_read_as_written(stored, content, box):
    roi = tuple(slice(*b) for b in box)
    np.testing.assert_array_equal(stored[roi], content[roi])


def test_zarr_python_reads_the_same(stored, content):
    other = zarr.open_array(stored.path, mode="r")
    assert (other.shards, other.chunks) == (SPEC.shard, SPEC.chunk)
    np.testing.assert_array_equal(other[:], content)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("leading", [(), (1,), (1, 1)])
def test_arrays_of_others_are_read_as_zyx(tmp_path, content, zarr_format, leading):
    other = zarr.create_array(
        tmp_path / "a",
        shape=(*leading, *SHAPE),
        chunks=(*leading, 8, 16, 16),
        dtype="uint16",
        zarr_format=zarr_format,
    )
    other[...] = content.reshape(*leading, *SHAPE)
    found = open_array(tmp_path / "a")
    assert (found.shape, found.chunk) == (SHAPE, (8, 16, 16))
    np.testing.assert_array_equal(found[2:9, :, 3:], content[2:9, :, 3:])


def test_a_stored_array_travels_to_other_processes(stored, content):
    again = pickle.loads(pickle.dumps(stored))  # noqa: S301 - our own
    np.testing.assert_array_equal(again[3:4], content[3:4])


def test_unwritten_voxels_are_zero_and_take_no_space(tmp_path):
    array = create_array(tmp_path / "a", SPEC)
    array.write((slice(0, 8), slice(0, 16), slice(0, 16)), np.zeros((8, 16, 16), np.uint16))
    assert not array[full_roi(SHAPE)].any()
    assert not [p for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != "zarr.json"]


def test_a_flipped_byte_is_noticed_and_located(tmp_path, content):
    array = create_array(tmp_path / "a", SPEC)
    array.write(full_roi(SHAPE), content)
    shard = next(p for p in sorted(Path(array.path).rglob("*")) if p.name == "1")
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 255
    shard.write_bytes(damaged)
    with pytest.raises(StorageError, match=r"cannot read .*a at 0:19,0:37,0:41"):
        array[full_roi(SHAPE)]


def test_what_does_not_fit_is_refused(tmp_path, stored):
    with pytest.raises(ShapeError, match="does not fit"):
        stored.write((slice(0, 8), slice(0, 16), slice(0, 16)), np.zeros((8, 16, 15), np.uint16))
    with pytest.raises(ConflictError, match="exists already"):
        create_array(stored.path, SPEC)
    with pytest.raises(VolumeError, match="no Zarr array"):
        open_array(tmp_path / "nothing")
    with pytest.raises(ShapeError, match="whole chunks"):
        ArraySpec(SHAPE, "uint8", (4, 8, 8), (9, 16, 16))
    zarr.create_array(tmp_path / "flat", shape=(5, 6), dtype="uint8")
    with pytest.raises(VolumeError, match="expected three axes"):
        open_array(tmp_path / "flat")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / ".zarray").write_text('{"zarr_format": 2')
    with pytest.raises(VolumeError, match=r"cannot be read|not a Zarr array"):
        open_array(tmp_path / "torn")
