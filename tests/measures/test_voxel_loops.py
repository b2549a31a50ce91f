"""Runs of any brick, whatever its labels' type and width."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.measures.voxel_loops import RUN, START, STOP, WORD, Y, Z, count_bits, list_runs


def list_all(labels, runs, keys, slots):
    """List runs; return how many slots are given, and how many runs there are."""
    planes = labels.reshape(len(labels), -1)
    words = -(-planes.shape[1] // WORD) + 1
    space = np.full(words * WORD, 255, np.uint8), np.zeros(words, np.uint64)
    used = np.zeros(1, np.int64)
    count = list_runs(runs, (keys, slots, used), space, planes, labels.shape[2])
    return used[0], count


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 150)),
    dtype=st.sampled_from(["uint32", "uint64"]),
    length=st.integers(1, 80),
    seed=st.integers(0, 2**32 - 1),
)
def test_runs_are_the_stretches_of_one_label(shape, dtype, length, seed):
    rng = np.random.default_rng(seed)
    # whole stretches of labels that differ in their high bits alone
    few = rng.choice(np.array([0, 0, 1, 2**31], dtype), -(-np.prod(shape) // length))
    labels = np.repeat(few, length)[: np.prod(shape)].reshape(shape)
    runs = np.zeros((labels.size, RUN), np.int32)
    keys, slots = np.zeros(1024, np.uint64), np.zeros(1024, np.int32)
    used, count = list_all(labels, runs, keys, slots)
    assert used == len(np.unique(labels[labels > 0]))
    known = np.zeros(used + 1, dtype)
    known[slots[slots > 0]] = keys[slots > 0]
    drawn = np.zeros(shape, dtype)
    for run in runs[:count]:
        stretch = drawn[run[Z], run[Y], run[START] : run[STOP]]
        assert stretch.size
        assert not stretch.any()
        stretch[:] = known[run[0]]
        # it cannot be any longer
        row = labels[run[Z], run[Y]]
        assert run[START] == 0 or row[run[START] - 1] != row[run[START]]
        assert run[STOP] == len(row) or row[run[STOP] - 1] != row[run[STOP]]
    np.testing.assert_array_equal(drawn, labels)


def test_a_table_that_is_too_small_is_said():
    labels = np.arange(1, 601, dtype=np.uint32).reshape(1, 6, 100)
    runs = np.zeros((labels.size, RUN), np.int32)
    keys, slots = np.zeros(1024, np.uint64), np.zeros(1024, np.int32)
    assert list_all(labels, runs, keys, slots) == (512, -1)
    keys, slots = np.zeros(2048, np.uint64), np.zeros(2048, np.int32)
    assert list_all(labels, runs, keys, slots) == (600, 600)


@given(st.integers(0, 2**64 - 1))
def test_bits_are_those_that_python_counts(word):
    assert count_bits(np.uint64(word)) == word.bit_count()
