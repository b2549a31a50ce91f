"""Hand-overs are there completely or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.errors import StorageError
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
