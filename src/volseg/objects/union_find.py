"""Union-find: the one way in which things that touch are joined."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.voxels.compilation import compiled


@compiled
def find_root(parent: NDArray[Any], member: int) -> int:
    """Find the first member of a set, and shorten the way to it."""
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@compiled
def number_sets(parent: NDArray[Any], numbers: NDArray[Any]) -> int:
    """Give sets numbers from 1 in the order of their roots, and count them."""
    count = 0
    for member in range(len(parent)):
        if parent[member] == member:
            count += 1
            numbers[member] = count
        else:
            # the parent comes before, so it has its number
            numbers[member] = numbers[parent[member]]
    return count


@compiled
def _join_pairs(pairs: NDArray[np.int64], parent: NDArray[np.int64]) -> None:
    for k in range(len(pairs)):
        a, b = find_root(parent, pairs[k, 0]), find_root(parent, pairs[k, 1])
        parent[max(a, b)] = min(a, b)


def connected_groups(count: int, pairs: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Join what touches to groups, numbered from 0 in the order of their first members.

    Parameters
    ----------
    count : of members
    pairs : int64, shape (pairs, 2); members, counted from 0, that touch.

    Returns
    -------
    groups : how many there are
    group : int64, shape (count,); the group of each member.

    Examples
    --------
    >>> connected_groups(4, np.array([[3, 1]]))
    (3, array([0, 1, 2, 1]))
    """
    parent, numbers = np.arange(count), np.empty(count, np.int64)
    _join_pairs(np.ascontiguousarray(pairs, np.int64), parent)
    groups = number_sets(parent, numbers)
    return groups, numbers - 1
