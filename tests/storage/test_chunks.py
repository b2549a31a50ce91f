"""What is packed comes back, and what is not whole is an error of one kind."""

from __future__ import annotations

import numpy as np
import pytest
from numcodecs import zstd

from toy_hostile import STREAMED, zstd_bomb
from volseg.storage.chunks import (
    LZ4,
    ZSTD,
    claimed_size,
    most_bytes,
    pack,
    packer,
    unpack,
    unpacker,
)


def test_what_is_packed_comes_back():
    noise = np.random.default_rng(0).integers(0, 9, 5000).astype(np.uint16)
    for content in (b"", b"x" * 100, noise.data):
        packed, whole = pack(content), bytes(content)
        assert pack(content) == packed
        assert bytes(unpack(packed)) == bytes(unpack(packed, len(whole))) == whole


def test_frames_that_do_not_say_their_size():
    assert claimed_size(STREAMED) is None
    assert bytes(unpack(STREAMED, 1000)) == b"a" * 1000
    assert 1000 <= most_bytes(STREAMED) <= 1 << 17
    for size in (10, 2000):
        with pytest.raises(ValueError, match=r"decompressed|not 2000"):
            unpack(STREAMED, size)


def test_frames_say_their_size():
    for size in (1, 200, 255, 256, 257, 65535, 65791, 65792, 1 << 20):
        packed = pack(bytes(size))
        assert claimed_size(packed) == most_bytes(packed) == size


def test_a_frame_is_not_believed_to_be_huge():
    # eight bytes of size: the frame claims 2**60
    packed = bytes.fromhex("28b52ffd") + b"\xe0" + (2**60).to_bytes(8, "little") + b"\x01\x00\x00"
    assert claimed_size(packed) == 2**60
    with pytest.raises(ValueError, match="something else than 512 bytes"):
        unpack(packed, 512)


def test_a_bomb_is_known_by_the_number_of_its_blocks():
    bomb = zstd_bomb(1 << 30)
    assert len(bomb) < 40_000
    assert claimed_size(bomb) is None
    assert most_bytes(bomb) >= 1 << 30
    with pytest.raises(ValueError, match="decompressed"):
        unpack(bomb, 512)
    hidden = pack(b"first") + bomb
    assert most_bytes(hidden) >= 1 << 30, "a bomb behind another frame"
    assert most_bytes(b"\x51\x2a\x4d\x18\x02\0\0\0ab" + pack(b"123")) == 3
    assert zstd.decompress(zstd_bomb(1 << 18)) == bytes(1 << 18)


def test_damage_is_a_value_error():
    packed = pack(np.random.default_rng(0).integers(0, 9, 5000).tobytes())
    for bad in (b"", b"nonsense", packed[:20], packed[: len(packed) // 2], packed + packed):
        with pytest.raises(ValueError, match=r"decompressed|bytes"):
            unpack(bad, 40000)


@pytest.mark.parametrize("compression", [ZSTD, LZ4])
@pytest.mark.parametrize("kind", ["u1", "<u4", "<u8"])
def test_chunks_come_back(compression, kind):
    chunk = np.random.default_rng(0).integers(0, 3, 6000).astype(kind)
    again = unpacker(compression, chunk.nbytes)
    for content in (chunk, np.zeros_like(chunk)):
        packed = packer(compression, chunk.itemsize)(content.data)
        # as they lie in a shard: a part of what was read
        assert bytes(again(memoryview(b"." + packed + b".")[1:-1])) == content.tobytes()


@pytest.mark.parametrize("compression", [ZSTD, LZ4])
def test_damaged_chunks_are_a_value_error(compression):
    chunk = np.random.default_rng(0).integers(0, 3, 6000).astype("<u4")
    packed, again = packer(compression, 4)(chunk.data), unpacker(compression, chunk.nbytes)
    for bad in (b"", b"nonsense", packed[:16], packed[:20], packed[:-1], packed + b"."):
        with pytest.raises(ValueError, match=r"decompressed|bytes"):
            again(bad)
    for size in (0, 100, 2 * chunk.nbytes):
        with pytest.raises(ValueError, match=r"decompressed|bytes"):
            unpacker(compression, size)(packed)


def test_a_frame_of_lz4_is_not_believed_whatever_it_says():
    chunk = np.random.default_rng(0).integers(0, 3, 6000).astype("<u4")
    packed, again = packer(LZ4, 4)(chunk.data), unpacker(LZ4, chunk.nbytes)
    chance = np.random.default_rng(1)
    refused = 0
    for _ in range(2000):
        bad = bytearray(packed)
        for place in chance.integers(0, len(bad) if chance.random() < 0.5 else 40, 3):
            bad[place] = chance.integers(256)
        try:
            # what a checksum did not stop may hold anything, but as much as it should
            assert len(again(bytes(bad))) == chunk.nbytes
        except ValueError:
            refused += 1
    assert refused > 100


def test_chunks_of_another_form_are_not_made():
    for make in (packer, unpacker):
        with pytest.raises(ValueError, match="zstd or lz4, found None"):
            make(None, 4)
