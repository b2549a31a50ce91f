"""Hand-overs are there completely or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.errors import StorageError
from volseg.storage.chunks import pack
from volseg.storage.scratch import HandoverStore

A, B = (0, 0, 0), (0, 1, 2)


def test_a_hand_over_comes_back_and_goes_away(tmp_path):
    store = HandoverStore(tmp_path)
    shares = np.random.default_rng(0).integers(0, 65281, (3, 4, 5)).astype(np.uint16)
    store.save(A, B, shares)
    assert store.exists(A, B)
    assert not store.exists(B, A)
    assert (store.load(A, B, (3, 4, 5)) == shares).all()
    store.discard([A], B)
    assert not store.exists(A, B)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_hand_over_is_removed_and_reported(tmp_path):
    store = HandoverStore(tmp_path)
    store.save(A, B, np.ones((3, 4, 5), np.uint16))
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StorageError, match="same command again"):
        store.load(A, B, (3, 4, 5))
    assert not store.exists(A, B)


def test_a_missing_hand_over_is_reported(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        HandoverStore(tmp_path).load(A, B, (1, 1, 1))


@pytest.mark.parametrize("size", [64, 5000])
def test_what_a_power_cut_may_leave_is_never_read_as_something_else(tmp_path, size):
    """Of noise, which is stored as it is, a lost part would else read as zeros."""
    store = HandoverStore(tmp_path)
    shares = np.random.default_rng(0).integers(0, 2**16, (1, 1, size)).astype(np.uint16)
    store.save((0, 0, 0), (1, 0, 0), shares)
    (file,) = (p for p in tmp_path.rglob("from-*"))
    good = file.read_bytes()
    for start in range(0, len(good), 61):
        file.write_bytes(good[:start] + bytes(len(good) - start))
        with pytest.raises(StorageError, match="damaged"):
            store.load((0, 0, 0), (1, 0, 0), shares.shape)


def test_a_hand_over_of_a_former_version_is_read(tmp_path):
    store = HandoverStore(tmp_path)
    shares = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    store.save((0, 0, 0), (1, 0, 0), shares)
    (file,) = (p for p in tmp_path.rglob("from-*"))
    file.write_bytes(pack(shares.data))
    np.testing.assert_array_equal(store.load((0, 0, 0), (1, 0, 0), shares.shape), shares)
