"""How the loops over voxels that NumPy has no words for are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile with numba, without Python's lock, kept on disk where there is a place for it."""
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(Function, numba.njit(nogil=True)(function))


@compiled
def wake(number: int) -> int:
    """Return a number. The first call of any compiled function loads most of numba."""
    return number


# here nobody waits for it: in a worker, the other threads would
wake(0)
