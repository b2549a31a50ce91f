"""How the loops over voxels that NumPy has no words for are compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def forget_stale(package: Path) -> None:
    """Remove what numba keeps of a package if any source has changed since.

    Numba looks at a function's own file alone, and compiled functions use others, and constants.
    """
    sources = [(f, f.stat()) for f in sorted(package.glob("*/*.py"))]
    found = [(f.parent.name, f.name, s.st_size, s.st_mtime_ns) for f, s in sources]
    state = sha256(repr(found).encode()).hexdigest()
    noted = package / "__pycache__" / "compiled.sha256"
    with suppress(OSError):  # where nothing can be written, nothing changes either
        if not noted.exists() or noted.read_text(encoding="ascii") != state:
            for index in package.glob("*/__pycache__/*.nbi"):
                index.unlink(missing_ok=True)
            noted.write_text(state, encoding="ascii")


forget_stale(Path(__file__).parents[1])


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
