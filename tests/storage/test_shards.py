"""Shards made piece by piece are what other readers of Zarr expect."""

from __future__ import annotations

import dataclasses
import itertools

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import StorageError
from volseg.geometry.grid import Grid, full_roi
from volseg.storage.arrays import ArraySpec, create_array, open_array
from volseg.storage.chunks import LZ4, ZSTD
from volseg.storage.shard_reading import ChunkReader, stores_chunks
from volseg.storage.shards import encode_chunks, write_shard

sides = st.tuples(*[st.integers(1, 9)] * 3)


def write_all(array, whole):
    """Write an array shard by shard and chunk by chunk."""
    for shard in Grid(array.shape, array.shard).blocks():
        chunks = encode_chunks(whole[shard.core], array, (0, 0, 0))
        write_shard(array, shard.index, chunks)()


@given(
    shape=sides,
    chunk=st.tuples(*[st.integers(1, 4)] * 3),
    multiple=st.tuples(*[st.integers(1, 3)] * 3),
    dtype=st.sampled_from(["uint8", "int8", "int16", "uint32", "uint64", "float16", "float32"]),
    compression=st.sampled_from([ZSTD, LZ4]),
    sparse=st.sampled_from([0, 0.01, 0.9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_zarr_python_reads_what_was_written(
    shape, chunk, multiple, dtype, compression, sparse, seed, tmp_path_factory
):
    shard = tuple(c * m for c, m in zip(chunk, multiple, strict=True))
    array = create_array(
        tmp_path_factory.mktemp("shards") / "a", ArraySpec(shape, dtype, chunk, shard, compression)
    )
    assert open_array(array.path) == array
    rng = np.random.default_rng(seed)
    bits = f"u{np.dtype(dtype).itemsize}"  # negative numbers, NaN and -0.0 among them
    whole = rng.integers(0, np.iinfo(bits).max, shape, bits, endpoint=True)
    whole *= rng.random(shape) < 0.1
    whole |= (rng.random(shape) < sparse) * whole.dtype.type(1 << 8 * whole.itemsize - 1)
    whole = whole.view(dtype)
    write_all(array, whole)
    np.testing.assert_array_equal(array[:], whole)
    np.testing.assert_array_equal(zarr.open_array(array.path)[:], whole)
    assert stores_chunks(array)
    read = ChunkReader(array)
    for block in Grid(shape, chunk).blocks():
        found = read(block.core)
        expected = whole[block.core]
        if found is None:
            assert not expected.any()
        else:
            np.testing.assert_array_equal(found, expected)
            last = tuple(slice(s.stop - 1, s.stop) for s in block.core)
            np.testing.assert_array_equal(read(last), whole[last])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("value", [-1, -0.0])
def test_a_chunk_whose_largest_number_is_zero_is_kept(tmp_path, dtype, value):
    array = create_array(tmp_path / "a", ArraySpec((4, 8, 8), dtype, (4, 4, 4), (4, 8, 8)))
    whole = np.zeros((4, 8, 8), dtype)
    whole[1, 2, 3] = whole[3, 7, 7] = value
    array.write(full_roi(array.shape), whole)
    assert array[:].tobytes() == whole.tobytes()
    assert zarr.open_array(array.path)[:].tobytes() == whole.tobytes()


def test_zeros_take_the_place_of_what_stood_in_a_shard(tmp_path):
    array = create_array(tmp_path / "a", ArraySpec((8, 8, 8), "uint8", (4, 4, 4), (4, 8, 8)))
    write_all(array, np.ones((8, 8, 8), np.uint8))
    array.write(full_roi(array.shape), np.zeros((8, 8, 8), np.uint8))
    assert not array[:].any()
    assert not zarr.open_array(array.path)[:].any()


def test_a_failure_waits_for_the_other_shards(tmp_path):
    array = create_array(tmp_path / "a", ArraySpec((16, 4, 4), "uint8", (4, 4, 4), (4, 4, 4)))
    (tmp_path / "a" / "c").mkdir()
    (tmp_path / "a" / "c" / "0").write_text("in the way of the first shard")
    with pytest.raises(StorageError, match="cannot write"):
        array.write(full_roi(array.shape), np.ones((16, 4, 4), np.uint8))
    assert all((tmp_path / "a" / "c" / str(k) / "0" / "0").is_file() for k in (1, 2, 3))


def test_what_is_empty_takes_no_room(tmp_path):
    array = create_array(tmp_path / "a", ArraySpec((8, 8, 8), "uint32", (4, 4, 4), (8, 8, 8)))
    write_all(array, np.zeros((8, 8, 8), np.uint32))
    assert not (tmp_path / "a" / "c").exists()
    assert not array[:].any()


@pytest.mark.parametrize("compression", [ZSTD, LZ4])
def test_every_damaged_byte_is_noticed(tmp_path, compression):
    spec = ArraySpec((4, 8, 8), "uint32", (4, 4, 4), (4, 8, 8), compression)
    array = create_array(tmp_path / "a", spec)
    whole = np.random.default_rng(0).integers(1, 99, (4, 8, 8)).astype(np.uint32)
    write_all(array, whole)
    file = tmp_path / "a" / "c" / "0" / "0" / "0"
    good = file.read_bytes()
    for position in itertools.chain(range(0, len(good), 37), [len(good) - 1]):
        bad = bytearray(good)
        bad[position] ^= 1
        file.write_bytes(bad)
        with pytest.raises(StorageError):
            array[:]
        read = ChunkReader(array)
        with pytest.raises(StorageError, match="checksum"):
            [read(c.core) for c in Grid(array.shape, array.chunk).blocks()]
    for length in (0, 3, 30, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(StorageError, match=r"cut off|checksum"):
            ChunkReader(array)(Grid(array.shape, array.chunk).block((0, 0, 0)).core)


@pytest.mark.parametrize("entry", [(10, 2**40), (2**63, 10), (2**64 - 2, 2**64 - 1), (0, 3)])
def test_an_index_that_lies_is_noticed(entry, tmp_path):
    array = create_array(tmp_path / "a", ArraySpec((4, 4, 4), "uint32", (4, 4, 4), (4, 4, 4)))
    write_all(array, np.ones((4, 4, 4), np.uint32))
    file = tmp_path / "a" / "c" / "0" / "0" / "0"
    index = np.array(entry, "<u8").tobytes()
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    file.write_bytes(file.read_bytes()[:-20] + index + checksum)
    with pytest.raises(StorageError, match=r"beyond|checksum"):
        ChunkReader(array)(full_roi(array.shape))


def test_arrays_of_another_form_are_told_apart(tmp_path):
    kinds = {
        "plain": {"chunks": (4, 4, 4)},
        "gzip": {"chunks": (4, 4, 4), "shards": (8, 8, 8), "compressors": zarr.codecs.GzipCodec()},
        "filled": {"chunks": (4, 4, 4), "shards": (8, 8, 8), "fill_value": 7},
        "old": {"chunks": (4, 4, 4), "zarr_format": 2},
    }
    for name, settings in kinds.items():
        zarr.create_array(tmp_path / name, shape=(8, 8, 8), dtype="uint8", **settings)
        assert not stores_chunks(open_array(tmp_path / name))


def test_a_folder_that_is_gone_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a").write_text("a file, where a folder should be")
    array = create_array(tmp_path / "b", ArraySpec((4, 4, 4), "uint8", (4, 4, 4), (4, 4, 4)))
    moved = dataclasses.replace(array, path=tmp_path / "a")
    with pytest.raises(StorageError, match=str(tmp_path / "a")):
        write_all(moved, np.ones((4, 4, 4), np.uint8))
