"""Probabilities and masks of other programs: which values they have, and what these stand for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError, command
from volseg.geometry.grid import roi_shape
from volseg.sources.open import reopen
from volseg.sources.stack import Selection, Stack, read_box
from volseg.sources.stamps import find_stamp
from volseg.types import FULL_PROBABILITY, Probabilities, Roi, Zyx

Rule = Literal["mask", "fractions", "bytes"]
RULES: dict[Rule, str] = {
    "mask": "a mask: 0 is background, all else foreground",
    "fractions": "probabilities from 0 to 1",
    "bytes": "probabilities of which 255 stands for 1",
}
TYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
SLACK = 1e-4
"""By how much a network's output may leave 0 to 1, where sums of a softmax are rounded."""
DIM = 128
"""Numbers that all lie below this are more likely labels or percents than bytes of a probability:
half of 255, the threshold of probabilities that come without one."""
ALIKE = 0.9
"""Share of neighbours of one value among those between none and all, above which bytes are labels:
of predictions it is 0.22 to 0.39, of objects that are numbered nearly 1."""
FAINT = 2
"""Bytes up to which flat background is predicted."""


@dataclass(frozen=True)
class ForeignVoxels:
    """Voxels of a source, read box by box from any thread; holds no open file.

    Attributes
    ----------
    layer : planes that are cheap to read together.
    paged : whole planes are read at a time.
    stamp : see `volseg.sources.stamps.find_stamp`.
    """

    path: Path
    selection: Selection
    shape: Zyx
    dtype: str
    layer: int
    paged: bool
    stamp: str

    def open(self) -> Stack:
        """Open the source, once per process."""
        return reopen(self.path, self.selection, TYPES, self.stamp)

    def layers(self, roi: Roi) -> Iterator[tuple[Roi, NDArray[Any]]]:
        """Read a box layer by layer."""
        stack = self.open()
        for z in range(roi[0].start, roi[0].stop, self.layer):
            box = slice(z, min(z + self.layer, roi[0].stop)), roi[1], roi[2]
            yield box, read_box(stack, box)


def open_foreign(path: Path, selection: Selection) -> ForeignVoxels:
    """Open a source of any form, of any type of numbers."""
    stamp = find_stamp(path)
    stack = reopen(path, selection, TYPES, stamp)
    _, y, x = stack.shape
    chunk = (1, y, x) if stack.array is None else stack.array.chunk
    paged = chunk[1:] == (y, x)
    layer = min(chunk[0], 64)
    return ForeignVoxels(path, selection, stack.shape, stack.dtype.name, layer, paged, stamp)


@dataclass(frozen=True)
class Values:
    """Values of some voxels.

    Attributes
    ----------
    lowest, highest : of all; NaN if one is no number.
    several : there are more than those two.
    checksum : of their bytes.
    between, alike : pairs of neighbours along x between none and all, and those of one value; only
        of bytes.
    """

    lowest: float
    highest: float
    several: bool
    checksum: int = 0
    between: int = 0
    alike: int = 0

    def __or__(self, other: Values) -> Values:
        """Join the values of two boxes."""
        ends = [self.lowest, self.highest, other.lowest, other.highest]
        several = self.several or other.several or len(set(ends)) > 2
        between, alike = self.between + other.between, self.alike + other.alike
        return Values(min(ends), max(ends), several, between=between, alike=alike)


def note_values(voxels: ForeignVoxels, roi: Roi) -> Values:
    """Note the values in a box."""
    checksum, found = 0, []
    for box, part in voxels.layers(roi):
        checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
        low, high = part.min(), part.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise SourceError(
                f"{voxels.path} holds values that are not finite in planes {box[0].start} to "
                f"{box[0].stop - 1}; replace them first"
            )
        several = bool(((part != low) & (part != high)).any())
        pairs = _count_pairs(part) if part.dtype == np.uint8 else (0, 0)
        found.append(Values(low.item(), high.item(), several, 0, *pairs))
    joined = found[0]
    for values in found[1:]:
        joined |= values
    return replace(joined, checksum=checksum)


def _count_pairs(part: NDArray[np.uint8]) -> tuple[int, int]:
    inner = (part > FAINT) & (part < FULL_PROBABILITY)
    pairs = inner[..., :-1] & inner[..., 1:]
    alike = pairs & (part[..., :-1] == part[..., 1:])
    return int(np.count_nonzero(pairs)), int(np.count_nonzero(alike))


def choose_rule(path: Path, dtype: str, values: Values) -> Rule:
    """Find what the values of a whole source stand for.

    Examples
    --------
    >>> choose_rule(Path("a.tif"), "uint8", Values(0, 1, False))
    'mask'
    >>> choose_rule(Path("a.tif"), "uint8", Values(0, 255, True))
    'bytes'
    >>> choose_rule(Path("a.tif"), "float32", Values(0.0, 0.5, False))
    'fractions'
    """
    low, high, kind = values.lowest, values.highest, np.dtype(dtype).kind
    if kind == "f" and low >= -SLACK and high <= 1 + SLACK:
        return "fractions"
    if low == 0 and not values.several:
        return "mask"
    numbered = values.alike > ALIKE * values.between
    if dtype == "uint8" and high >= DIM and values.several and not numbered:
        return "bytes"
    found = f"{path} holds {dtype} from {low:g} to {high:g}"
    if kind == "f":
        raise SourceError(
            f"{found}; probabilities are float from 0 to 1, or uint8: write them again as one of "
            f"both, scores of a network through its sigmoid or softmax"
        )
    labelled = command("stats", "VOLUME", "--labels", path)
    raise SourceError(
        f"{found}{', in more than two values' if values.several else ''}: this may be labels, "
        f"classes or probabilities of some scale. Write probabilities as float from 0 to 1, or "
        f"uint8 up to 255; a mask with 0 as background and one other value; labels are measured "
        f"as they are by `{labelled}`"
    )


def as_probabilities(values: NDArray[Any], rule: Rule) -> Probabilities:
    """Turn values into probabilities.

    Examples
    --------
    >>> as_probabilities(np.array([0, 0.25, 1.00001], "f4"), "fractions")
    array([  0,  64, 255], dtype=uint8)
    >>> as_probabilities(np.array([0, 3]), "mask")
    array([  0, 255], dtype=uint8)
    """
    if rule == "mask":
        return np.where(values > 0, np.uint8(FULL_PROBABILITY), np.uint8(0))
    if rule == "bytes":
        return np.asarray(values, np.uint8)
    scaled = np.rint(np.clip(values.astype(np.float32), 0, 1) * np.float32(FULL_PROBABILITY))
    return np.asarray(scaled, np.uint8)


def read_probabilities(voxels: ForeignVoxels, roi: Roi, rule: Rule) -> Probabilities:
    """Read a box as probabilities."""
    out = np.empty(roi_shape(roi), np.uint8)
    for box, part in voxels.layers(roi):
        at = box[0].start - roi[0].start
        out[at : at + len(part)] = as_probabilities(part, rule)
    return out


def check_shape(voxels: ForeignVoxels, volume: Path, shape: Zyx) -> None:
    """Check that a source has the voxels of a volume."""
    if voxels.shape == shape:
        return
    hint = ""
    if sorted(voxels.shape) == sorted(shape):
        hint = "; its axes may be in another order, which --axes names, slowest first"
    raise SourceError(
        f"{voxels.path} has the shape {voxels.shape} (z, y, x), {volume} {shape}; probabilities "
        f"are those of the whole volume, voxel by voxel{hint}"
    )
