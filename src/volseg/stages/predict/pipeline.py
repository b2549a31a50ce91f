"""Evaluate tiles on one device: from what is stored to integer shares, all of it by PyTorch.

The same operations run on CPUs and GPUs. In each process one thread owns the device: a network uses
all cores, or the whole GPU, by itself. Threads of blocks read for it, and write what it returns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from volseg.engine.pool import Pool
from volseg.geometry.lattice import Tile
from volseg.models.compiled import OPENVINO
from volseg.models.devices import as_tensor
from volseg.types import Floats, Mask, Roi, Zyx
from volseg.voxels.background import fill_by_reflection
from volseg.voxels.blend import FULL, Shares, neighbouring_taps, shifted_diagonal
from volseg.voxels.intensity import LOOKED_UP_AT_ONCE, Tone, tone_table

Result = TypeVar("Result")
Matrices: TypeAlias = tuple[Floats, Floats, Floats]

OWNER = "volseg-network"
"""Name of the thread that owns a device."""
CPU = torch.device("cpu")
CODES = {1: torch.uint8, 2: torch.uint16}
"""Types of integers that are looked up, by their bytes."""
_owners: dict[str, Pool] = {}
_here = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_owners.clear)


def run_on(device: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in the thread that owns a device, and wait for what it returns."""
    if getattr(_here, "device", None) == device:
        return function(*arguments)
    # one step of the interpreter: a lock could be held by another thread while a process forks
    owner = _owners.setdefault(device, Pool(OWNER, 1))
    found: Future[Result] = owner.submit(_infer, device, function, *arguments)
    return found.result()


def _infer(device: str, function: Callable[..., Result], *arguments: Any) -> Result:
    _here.device = device
    with torch.inference_mode():
        return function(*arguments)


def torch_device(device: str) -> torch.device:
    """Find PyTorch's name of a device; OpenVINO takes what lies in the CPU's memory."""
    return CPU if device == OPENVINO else torch.device(device)


@dataclass(frozen=True)
class Context:
    """Voxels that tiles are cut from, on the device that evaluates them.

    Attributes
    ----------
    lacking : where there is no tissue; None if all is.
    """

    shown: Tensor
    lacking: Mask | None
    origin: Zyx

    def cut(self, indices: Sequence[NDArray[np.int64]]) -> Tensor | None:
        """Cut voxels out, and mirror what is around into what is no tissue; None if nothing is."""
        own = [i - o for i, o in zip(indices, self.origin, strict=True)]
        seen = self.shown
        for axis, index in enumerate(own):
            seen = _take(seen, index, axis)
        if self.lacking is None:
            return seen
        lacking = self.lacking[np.ix_(*own)]
        if not lacking.any():
            return seen
        if lacking.all():
            return None
        # what is no tissue is rare enough to be filled by NumPy
        return as_tensor(fill_by_reflection(seen.cpu().numpy(), lacking)).to(seen.device)


@dataclass(frozen=True)
class Reading:
    """Voxels as they were read, in memory that a GPU fetches from while it computes.

    Attributes
    ----------
    values : as they are stored, or what the network sees of them.
    tone : what it sees of those that are stored; None for the others.
    lacking, origin : see `Context`.
    """

    values: Tensor
    tone: Tone | None
    lacking: Mask | None
    origin: Zyx
    device: torch.device = CPU

    def send(self) -> Context:
        """Send them to their device; only there, intensities become what the network sees."""
        shown = _show(self.values, self.tone, self.device)
        return Context(shown, self.lacking, self.origin)


def stage(values: NDArray[Any], device: torch.device) -> Tensor:
    """Put values where a device can fetch them from."""
    given = as_tensor(values)
    return given.pin_memory() if device.type == "cuda" else given


def _send(values: NDArray[Any], device: torch.device) -> Tensor:
    """Send a small array to a device, which goes on meanwhile."""
    return stage(values, device).to(device, non_blocking=True)


def _show(given: Tensor, tone: Tone | None, device: torch.device) -> Tensor:
    """Map intensities as `Tone.__call__` does, to the same bytes on a CPU."""
    kind = given.numpy().dtype
    if tone is not None and not tone.linear:
        if kind.kind in "ui" and kind.itemsize in CODES:
            codes = given.view(CODES[kind.itemsize]).to(device, non_blocking=True)
            return _look_up(_send(tone_table(tone, kind.name), device), codes)
        given, tone = as_tensor(tone(given.numpy())), None
    seen = given.to(device, non_blocking=True).to(torch.float32)
    if tone is None:
        return seen
    low, high = tone.window
    scale = float(np.float32(2 / (high - low)))
    return (seen - float(np.float32(low))).mul_(scale).sub_(1)


def _look_up(table: Tensor, codes: Tensor) -> Tensor:
    found = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    flat, values = found.reshape(-1), codes.reshape(-1)
    # indices take four bytes each
    for start in range(0, len(values), LOOKED_UP_AT_ONCE):
        part = slice(start, start + LOOKED_UP_AT_ONCE)
        torch.index_select(table, 0, values[part].int(), out=flat[part])
    return found


def along_axes(block: Tensor, matrices: Matrices) -> Tensor:
    """Apply one matrix along each of the last three axes: (..., z, y, x) -> (..., rows of each).

    A row has one entry or two neighbouring ones: those of an interpolation, or of a window.
    """
    for axis, matrix in enumerate(matrices):
        block = along_axis(block, matrix, axis - 3)
    return block


def along_axis(block: Tensor, matrix: Floats, axis: int) -> Tensor:
    """Apply a matrix along one of the last three axes, counted from the end."""
    shape = [-1 if a == axis else 1 for a in range(-3, 0)]
    diagonal = shifted_diagonal(matrix)
    if diagonal is not None:
        first, weights = diagonal
        seen = block.narrow(axis, first, len(weights))
        return seen * _send(weights, block.device).reshape(shape)
    below, *pair = neighbouring_taps(matrix)
    low, high = (_send(w, block.device).reshape(shape) for w in pair)
    next_to = np.minimum(below + 1, matrix.shape[1] - 1)
    found = _take(block, below, axis) * low
    return torch.addcmul(found, _take(block, next_to, axis), high)


def _take(values: Tensor, index: NDArray[np.int64], axis: int) -> Tensor:
    """Take voxels along an axis; what lies in order is not copied."""
    if len(index) and (np.diff(index) == 1).all():
        return values.narrow(axis, int(index[0]), len(index))
    return values.index_select(axis, _send(index, values.device))


def weigh(maps: Tensor, matrices: Matrices, lattices: Sequence[int]) -> Tensor:
    """Weigh a tile's probabilities, and round them to integer shares, int32.

    Parameters
    ----------
    maps : float32, shape (maps, z, y, x)
    lattices : how many share a voxel, of each map; 0 where this one has no share
    """
    weighted = along_axes(maps, matrices)
    for each, count in zip(weighted, lattices, strict=True):
        if count == 0:
            each.zero_()
        elif count > 1:
            each.div_(count)
    return weighted.mul_(FULL).round_().to(torch.int32)


@dataclass(frozen=True)
class Sums:
    """Shares of a block's tiles, summed up on the device.

    Attributes
    ----------
    regions, totals : what each block is handed, and its sum so far: int32, shape (maps, z, y, x).
    flawed : for each tile, whether one of its probabilities is not finite.
    """

    regions: Mapping[Zyx, Roi]
    totals: Mapping[Zyx, Tensor]
    flawed: dict[Tile, Tensor]


def fetch(sums: Sums) -> Callable[[], tuple[dict[Zyx, Shares], list[Tile]]]:
    """Begin to copy sums from the device, and return what waits for them.

    Returns
    -------
    callable
        It returns the shares, maps one below the other, and the tiles that are not finite.
    """
    flags = torch.stack(list(sums.flawed.values())) if sums.flawed else torch.zeros(0)
    # NumPy's uint16 in PyTorch's int16, which all devices know
    sent = [flags, *(total.to(torch.int16) for total in sums.totals.values())]
    if flags.device.type == "cuda":
        here = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in sent]
        for place, found in zip(here, sent, strict=True):
            place.copy_(found, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
    else:
        here, copied = [t.cpu() for t in sent], None

    def wait() -> tuple[dict[Zyx, Shares], list[Tile]]:
        if copied is not None:
            copied.synchronize()
        flagged, *totals = (t.numpy() for t in here)
        stacked = (t.view(np.uint16).reshape(-1, *t.shape[2:]) for t in totals)
        found = dict(zip(sums.totals, stacked, strict=True))
        return found, [tile for tile, bad in zip(sums.flawed, flagged, strict=True) if bad]

    return wait
