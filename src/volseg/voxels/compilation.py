"""Compilation of loops over voxels to machine code, which is kept on disk.

Loading numba takes longer than most commands, so it is loaded only to compile. Machine code that is
kept needs llvmlite alone. It holds everything it uses: compiled functions fill in the arrays that
they are given, allocate nothing and raise nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from types import CodeType, FunctionType
from typing import Any, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
Kinds = tuple[Any, ...]
"""Types of arguments: ``dtype.str, axes`` of an array, ``class, length`` of a tuple, or ``int``."""

ENTRY = "entry"
"""The symbol of the machine code that is called."""
UNUSED = (
    r"Py\w+|NRT_Free|NRT_MemInfo_call_dtor|"
    r"numba_(?:gil_ensure|gil_release|unpickle|do_raise|runtime_build_excinfo_struct)"
)
"""Symbols of what numba does to raise and to free memory."""
DIGEST = 32
_ORIGINALS: dict[Any, FunctionType] = {}
_ENTRIES: dict[Any, dict[Kinds, Callable[..., Any]]] = {}
_LOCK = Lock()


def compiled(function: Function) -> Function:
    """Compile a function of contiguous arrays, integers and tuples of them at its first call.

    Python's lock is released while it runs. It returns an integer or nothing, unless only compiled
    functions call it.
    """

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return bind(call)(*arguments)

    _ORIGINALS[call] = cast(FunctionType, function)
    _ENTRIES[call] = {}
    return cast(Function, call)


def bind(function: Callable[..., Any], *first: Any) -> Callable[..., Any]:
    """Look at the first arguments of a compiled function once, for many calls with others behind.

    Arrays cost a microsecond or two each to look at.
    """
    entries = _ENTRIES[function]
    first_kinds: list[Any] = []
    first_values: list[int] = []
    for argument in first:
        _flatten(argument, first_kinds, first_values)

    def call(*last: Any) -> Any:
        kinds, values = first_kinds.copy(), first_values.copy()
        for argument in last:
            _flatten(argument, kinds, values)
        key = tuple(kinds)
        entry = entries.get(key)
        if entry is None:
            with _LOCK:
                entry = entries.get(key)
                if entry is None:
                    arguments = *first, *last
                    entry = _find_entry(_ORIGINALS[function], arguments, key, len(values))
                    entries[key] = entry
        return entry(*values)

    return call


def _flatten(argument: Any, kinds: list[Any], values: list[int]) -> None:
    """List an argument's types, and the integers that are passed for it: addresses and lengths."""
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError(f"compiled functions take contiguous arrays, found {argument.strides}")
        kinds += argument.dtype.str, argument.ndim
        values.append(argument.ctypes.data)
        values += argument.shape
    elif isinstance(argument, tuple):
        kinds += type(argument), len(argument)
        for part in argument:
            _flatten(part, kinds, values)
    else:
        kinds.append(int)
        values.append(int(argument))


def _find_entry(
    function: FunctionType, arguments: tuple[Any, ...], kinds: Kinds, count: int
) -> Callable[..., Any]:
    """Load a function's machine code for some types; compile and keep it if there is none."""
    named = [k.__name__ if isinstance(k, type) else k for k in kinds]
    target = _hash(named, *_processor())
    name = f"{function.__name__}-{target}"
    current = f"{name}-{_hash(*_ingredients(function))}.o"
    places = [Path(function.__code__.co_filename).parent / "__pycache__"]
    with suppress(RuntimeError):  # a user without a home
        places.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volseg")
    code = next(filter(None, (_read(place / current) for place in places)), None)
    if code is None:
        code = _compile(function, arguments)
        for place in places:
            with suppress(OSError):
                _keep(code, place, name, current)
                break
    result = ctypes.c_int64 if _returns(function) else None
    return ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * count)(_load(code, current))


def _returns(function: FunctionType) -> bool:
    """Tell whether a function returns an integer, or nothing."""
    return function.__annotations__["return"] not in (None, "None")


def _hash(*parts: Any) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:16]


@cache
def _processor() -> tuple[str, str, str, str]:
    """Identify the processor, and the library that makes machine code for it."""
    import llvmlite
    from llvmlite import binding

    binding.initialize_native_target()
    features = binding.get_host_cpu_features().flatten()
    triple = binding.get_process_triple()
    return triple, binding.get_host_cpu_name(), features, llvmlite.__version__


def _ingredients(function: FunctionType) -> Iterator[Any]:
    """List the code, constants and compiled functions that a function is made of."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
        constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
        yield code.co_code, code.co_varnames, code.co_names, constants
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and value in _ORIGINALS:
                yield from _ingredients(_ORIGINALS[value])
            else:
                yield name, getattr(value, "__name__", value)


def _read(path: Path) -> bytes | None:
    """Read machine code, if it is there and whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code = content[DIGEST:]
    return code if sha256(code).digest() == content[:DIGEST] else None


def _keep(code: bytes, place: Path, name: str, current: str) -> None:
    """Write machine code in one step, and remove what older sources gave for the same types."""
    place.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=place, prefix=name, delete=False) as file:
        file.write(sha256(code).digest() + code)
    Path(file.name).replace(place / current)
    for old in place.glob(f"{name}-*.o"):
        if old.name != current:
            old.unlink(missing_ok=True)


@cache
def _engine() -> Any:
    from llvmlite import binding

    return binding.create_lljit_compiler()


def _load(code: bytes, name: str) -> int:
    """Load machine code; return the address of its entry."""
    from llvmlite import binding

    builder = binding.JITLibraryBuilder().add_object_img(code).export_symbol(ENTRY)
    library = builder.add_current_process().link(_engine(), f"{name}-{len(_KEPT)}")
    _KEPT.append(library)  # it is unloaded with its last reference
    return int(library[ENTRY])


_KEPT: list[Any] = []


def _compile(function: FunctionType, arguments: tuple[Any, ...]) -> bytes:
    """Make machine code of a function for arguments of these types."""
    import numba
    from llvmlite import binding

    names: dict[str, Any] = {"carray": numba.carray}  # type: ignore[attr-defined]
    parameters: list[Any] = []
    call = ", ".join(_rebuild(a, parameters, names, numba) for a in arguments)
    listed = ", ".join(f"a{k}" for k in range(len(parameters)))
    names["function"] = _dispatcher(function, {}, numba.njit(error_model="numpy"))
    entry = eval(f"lambda {listed}: function({call})", names)  # noqa: S307 - of names made here
    result = numba.int64 if _returns(function) else numba.void
    made = numba.cfunc(result(*parameters), error_model="numpy")(entry)
    # nothing is raised or freed, so the code need not refer to numba
    text = made.inspect_llvm().replace(made.native_name, ENTRY)
    text = re.sub(
        rf"^declare ([^@]*@(?:{UNUSED})\([^)]*\)).*$",
        r"define \1 {\n call void @llvm.trap()\n unreachable\n}",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(
        r"^(@Py\w+ =) external global (\w+)", r"\1 internal global \2 0", text, flags=re.MULTILINE
    )
    if "@llvm.trap()" in text and "declare void @llvm.trap()" not in text:
        text += "\ndeclare void @llvm.trap()\n"
    triple, cpu, features, _ = _processor()
    machine = binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )
    binding.initialize_native_asmprinter()
    return bytes(machine.emit_object(binding.parse_assembly(text)))


def _rebuild(argument: Any, parameters: list[Any], names: dict[str, Any], numba: Any) -> str:
    """Write the expression that rebuilds an argument from addresses and lengths."""
    if isinstance(argument, np.ndarray):
        first = len(parameters)
        kind = numba.from_dtype(argument.dtype)
        parameters += [numba.types.CPointer(kind), *[numba.int64] * argument.ndim]
        lengths = "".join(f"a{k}, " for k in range(first + 1, len(parameters)))
        return f"carray(a{first}, ({lengths}))"
    if isinstance(argument, tuple):
        parts = "".join(_rebuild(p, parameters, names, numba) + ", " for p in argument)
        if type(argument) is tuple:
            return f"({parts})"
        names[type(argument).__name__] = type(argument)
        return f"{type(argument).__name__}({parts})"
    parameters.append(numba.int64)
    return f"a{len(parameters) - 1}"


def _dispatcher(
    function: FunctionType, known: dict[FunctionType, Any], njit: Callable[..., Any]
) -> Any:
    """Give a function to numba, after all compiled functions that it calls."""
    if function not in known:
        used = dict(function.__globals__)
        for name in function.__code__.co_names:
            value = used.get(name)
            if isinstance(value, FunctionType) and value in _ORIGINALS:
                used[name] = _dispatcher(_ORIGINALS[value], known, njit)
        known[function] = njit(FunctionType(function.__code__, used, function.__name__))
    return known[function]
