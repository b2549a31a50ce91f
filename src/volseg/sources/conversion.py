"""Types of voxels that volumes do not have, as those that they have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import Boxes, Stack
from volseg.types import Roi, Zyx

CONVERTED = {
    "bool": ("uint8", "0 and 1"),
    "int8": ("uint8", "to which 128 is added, so that -128 becomes 0"),
    "float16": ("float32", "which holds all its values"),
    "float64": ("float32", "with 7 digits"),
    **dict.fromkeys(
        ("int32", "uint32", "int64", "uint64"),
        ("float32", "with 7 digits: whole numbers above 16777216 are rounded"),
    ),
}
"""By type, the one that a volume has instead, and what becomes of the values."""


def as_volume_type(stack: Stack, types: tuple[str, ...]) -> Stack:
    """Convert voxels, as they are read, where they are of a type that is not taken."""
    found = stack.dtype.name
    if found in types:
        return stack
    name, how = CONVERTED.get(found, ("", ""))
    where = stack.files[0] if len(stack.files) == 1 else stack.files[0].parent
    if name not in types:
        raise SourceError(
            f"{where} holds {found}; expected {', '.join(types)}: convert its pages to one of "
            f"them, for example in ImageJ with Image > Type"
        )
    dtype = np.dtype(name)
    told = f"{where} holds {found}, converted to {name}, {how}"
    return change_values(stack, dtype, lambda values: _convert(values, dtype), told)


def change_values(
    stack: Stack, dtype: np.dtype[Any], change: Callable[[NDArray[Any]], NDArray[Any]], warning: str
) -> Stack:
    """Change all values of a stack as they are read, and tell so."""
    array = stack.array

    def read_page(z: int, out: NDArray[Any]) -> None:
        page = np.empty(out.shape, stack.dtype)
        stack.read_page(z, page)
        out[...] = change(page)

    return replace(
        stack,
        dtype=dtype,
        read_page=read_page,
        array=None if array is None else _Changed(array, change),
        warnings=(*stack.warnings, warning),
    )


@dataclass(frozen=True)
class _Changed:
    """Boxes of other values."""

    array: Boxes
    change: Callable[[NDArray[Any]], NDArray[Any]]

    @property
    def chunk(self) -> Zyx:
        """A shape that is cheap to read."""
        return self.array.chunk

    def __getitem__(self, roi: Roi) -> NDArray[Any]:
        return self.change(self.array[roi])


def _convert(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if values.dtype == np.int8:
        return values.view(np.uint8) ^ 128
    with np.errstate(over="ignore"):  # what is not finite is told of
        return values.astype(dtype)
