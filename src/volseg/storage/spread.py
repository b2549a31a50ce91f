"""Threads that compress, decompress and write beside the one that asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

SMALL = 1 << 20
"""Bytes below which other threads take longer to begin than the work takes."""


def spread(work: Callable[..., Any], *lists: Sequence[Any], size: int) -> Iterator[Any]:
    """Do work on the members of lists, by several threads if there are bytes enough."""
    return map(work, *lists) if size < SMALL else _threads().map(work, *lists)


def later(work: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    """Begin work; what is returned waits for its end, and raises what it raised."""
    return _threads().submit(work, *arguments).result


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(4, os.cpu_count() or 1), "volseg-chunks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # no thread lives on in a child
