"""Compilation of loops over voxels by numba, which is loaded at the first call of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial, wraps
from hashlib import sha256
from pathlib import Path
from threading import RLock
from types import FunctionType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

ROOMS = ("geometry", "measures", "objects", "voxels")
"""Rooms that compiled functions stand in, and the only ones that these import from."""

_ORIGINALS: dict[Any, FunctionType] = {}
_DISPATCHERS: dict[Any, Callable[..., Any]] = {}
_LOCK = RLock()
_WAITING: list[Callable[[], None]] = []
"""Are called when a function is compiled that numba does not have on disk."""


def compiled(function: Function) -> Function:
    """Compile a function at its first call, without Python's lock, and keep it on disk."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return (_DISPATCHERS.get(call) or _dispatcher(call))(*arguments)

    _ORIGINALS[call] = cast(FunctionType, function)
    return cast(Function, call)


def bind(function: Callable[..., Any], *first: Any) -> Callable[..., Any]:
    """Fix the first arguments of a compiled function."""
    return partial(_dispatcher(function), *first)


@contextmanager
def telling(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell``, at most once, before a function is compiled that is not on disk yet.

    It may be called from any thread of this process; those of others do not tell.
    """
    _WAITING.append(tell)
    try:
        yield
    finally:
        with suppress(ValueError):  # it was called
            _WAITING.remove(tell)


def forget_stale(package: Path) -> None:
    """Remove what numba keeps of a package if a source that could matter has changed since.

    Numba looks at a function's own file alone, and compiled functions use others, and constants.
    """
    watched = [*package.glob("*.py"), *(f for r in ROOMS for f in package.glob(f"{r}/*.py"))]
    sources = [(f, f.stat()) for f in sorted(watched)]
    found = [(f.parent.name, f.name, s.st_size, s.st_mtime_ns) for f, s in sources]
    state = sha256(repr(found).encode()).hexdigest()
    noted = package / "__pycache__" / "compiled.sha256"
    with suppress(OSError):  # where nothing can be written, nothing changes either
        if not noted.exists() or noted.read_text(encoding="ascii") != state:
            for index in package.glob("*/__pycache__/*.nbi"):
                index.unlink(missing_ok=True)
            noted.parent.mkdir(exist_ok=True)
            noted.write_text(state, encoding="ascii")


@cache
def _njit() -> Callable[..., Any]:
    """Load numba; drop what it keeps of other sources."""
    import numba
    from numba.core import event

    class Told(event.Listener):
        def on_start(self, _: Any) -> None:
            with suppress(IndexError):
                while True:
                    _WAITING.pop()()

        def on_end(self, _: Any) -> None:
            pass

    event.register("numba:compile", Told())  # type: ignore[no-untyped-call]
    forget_stale(Path(__file__).parents[1])
    return cast(Callable[..., Any], numba.njit)


def _dispatcher(call: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function to numba, after the compiled functions that it calls; once."""
    with _LOCK:
        found = _DISPATCHERS.get(call)
        if found is None:
            original = _ORIGINALS[call]
            for name in original.__code__.co_names:
                value = original.__globals__.get(name)
                if isinstance(value, FunctionType) and value in _ORIGINALS:
                    original.__globals__[name] = _dispatcher(value)
            try:
                found = _njit()(nogil=True, cache=True)(original)
            except RuntimeError:  # no place on disk to keep it
                found = _njit()(nogil=True)(original)
            _DISPATCHERS[call] = found
        return found
