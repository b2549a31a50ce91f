"""Pieces are there completely or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.errors import StorageError
from volseg.storage.handovers import Pieces

A, B = (0, 0, 0), (0, 1, 2)


def test_a_piece_comes_back_and_goes_away(tmp_path):
    pieces = Pieces(tmp_path)
    shares = np.random.default_rng(0).integers(0, 65281, (3, 4, 5)).astype(np.uint16)
    pieces.save(A, B, shares)
    assert pieces.exists(A, B)
    assert not pieces.exists(B, A)
    assert (pieces.load(A, B, (3, 4, 5)) == shares).all()
    pieces.discard([A], B)
    assert not pieces.exists(A, B)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_piece_is_removed_and_reported(tmp_path):
    pieces = Pieces(tmp_path)
    pieces.save(A, B, np.ones((3, 4, 5), np.uint16))
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StorageError, match="same command again"):
        pieces.load(A, B, (3, 4, 5))
    assert not pieces.exists(A, B)


def test_a_missing_piece_is_reported(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        Pieces(tmp_path).load(A, B, (1, 1, 1))
