"""Evaluate tiles with a trained network: fast, on any device, averaged over flips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypedDict, Unpack, cast

import numpy as np
import torch
from torch import Tensor, nn

from volseg.errors import BlockError, ModelError, ParameterError, ShapeError
from volseg.models.devices import computing_in
from volseg.models.emnet import EMNet
from volseg.models.folding import fold_norms
from volseg.models.parts import Dimensions
from volseg.models.registry import TURNED, Architecture, find_architecture, turned
from volseg.types import Floats, Roi, Zyx

MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Channels last is what convolutions of few channels are fast in."""
SLICES = 8
"""Slices that a 2D network sees at once, at most: what bounds its memory."""
UNALLOCATED = ("can't allocate memory", "MPS backend out of memory")
"""Messages of PyTorch when memory is full on CPUs and MPS; it has no exception of its own there."""


@dataclass(frozen=True)
class Look:
    """One way to look at a tile: turned axes, some of them flipped; costs no memory.

    What is added to the look of a result is added to the result, so nothing is ever turned back.

    Examples
    --------
    >>> total = np.zeros((1, 2, 3))
    >>> Look((0, 2, 1), flips=(1,))(total)[0, 0] += 7
    >>> total[0]
    array([[0., 0., 7.],
           [0., 0., 7.]])
    """

    axes: Zyx
    flips: tuple[int, ...] = ()

    def __call__(self, tile: Floats) -> Floats:
        """Return a view of a tile."""
        return np.flip(tile.transpose(self.axes), self.flips)


@dataclass
class SliceBatch:
    """Number of slices that fit into a device's memory."""

    slices: int = SLICES


@dataclass(frozen=True)
class Predictor:
    """A network that is ready to evaluate tiles, one at a time.

    Tiles are never batched with others, so a tile's result cannot depend on which others it was
    evaluated with. A 2D network sees a tile's own slices in batches, of half the size where the
    memory is too small, and each slice by itself in the end. On a CPU that changes no bit, but for
    a slice by itself in float32, whose sums are rounded otherwise: by less than 1e-6. Tiles are
    never made smaller: what lies at their borders, and so the result, depends on their size.

    Attributes
    ----------
    network, device, precision : what evaluates, where, and in which type.
    dimensions : whether the network sees slices or volumes.
    margin : voxels per side by which an input exceeds its tile: (z, y, x) of a volume; for slices
        the first is along their normal.
    tta : average over all flips: 8 of a volume, 4 of a slice.
    rotations : with ``tta``, average over rotations by 90 degrees in (y, x), or in a slice, too.
    centerline : also return what the network says of centerlines.
    batch : how many slices are evaluated at once; once made smaller, it stays so.
    """

    network: nn.Module
    device: torch.device
    precision: torch.dtype
    dimensions: Dimensions = 3
    margin: Zyx = (0, 0, 0)
    tta: bool = False
    rotations: bool = False
    centerline: bool = False
    batch: SliceBatch = field(default_factory=SliceBatch, compare=False)

    def __post_init__(self) -> None:
        if self.rotations and not self.tta:
            raise ParameterError("rotations extend test-time augmentation: ask for tta as well")
        if self.centerline and getattr(self.network, "centerline", None) is None:
            raise ModelError(f"{type(self.network).__name__} here gives a mask, and no centerlines")

    @torch.inference_mode()
    def __call__(self, tile: Floats, needed: Roi | None = None, axis: int = 0) -> Floats:
        """Map normalised raw to probabilities.

        Parameters
        ----------
        tile : float32, shape (z + 2 * mz, y + 2 * my, x + 2 * mx)
            With the margin (mz, my, mx).
        needed : region of the tile whose probabilities are used, all of it by default
            Networks of slices leave out batches of slices that do not reach into it, so the rest
            of what is returned means nothing. The batches that are evaluated are those of the
            whole tile, so not a bit in the region depends on this.
        axis : along which a network of slices looks

        Returns
        -------
        float32, shape (z, y, x), or with ``centerline`` (2, z, y, x)
            Of the mask, and of centerlines.

        Raises
        ------
        ShapeError
            If the network takes no input of that size.
        BlockError
            If one tile, or one slice of it, does not fit into memory.
        """
        margin = turned(self.margin, axis)
        sizes = tuple(n - 2 * m for n, m in zip(tile.shape, margin, strict=True))
        if min(sizes) < 1:
            raise ShapeError(
                f"a tile's input must exceed its margins of {margin} voxels per side, found "
                f"{tile.shape}"
            )
        maps = 2 if self.centerline else 1
        total, looks = np.zeros((maps, *sizes), np.float32), self.looks(axis)
        used = slice(0, sizes[axis]) if needed is None else needed[axis]
        for look in looks:
            self._add(look(tile), [look(m) for m in total], margin[axis], used)
        total /= len(looks)
        return total if self.centerline else total[0]

    def looks(self, axis: int = 0) -> list[Look]:
        """List the ways to look at a tile whose results are averaged."""
        if not self.tta:
            return [Look(TURNED[axis])]
        normal, rows, columns = TURNED[axis]
        ways = [(normal, rows, columns)]
        if self.rotations:
            # a transposition and two flips make all rotations by 90 degrees
            ways.append((normal, columns, rows))
        flipped = range(3 - self.dimensions, 3)
        flips = [f for n in range(self.dimensions + 1) for f in combinations(flipped, n)]
        return [Look(way, f) for way in ways for f in flips]

    def _add(self, tile: Floats, totals: list[Floats], margin: int, used: slice) -> None:
        """Evaluate one view of a tile, and add the result to one total for each map."""
        if self.dimensions == 3:
            maps = self._fitting(tile[None, None])
            if maps is None:
                raise BlockError(self._advise("a tile", tile.shape))
            for total, found in zip(totals, maps, strict=True):
                total[...] += found[0, 0]
            return
        depth, start = len(totals[0]), used.start // self.batch.slices * self.batch.slices
        slices = tile[margin : margin + depth]
        while start < used.stop:
            batch = slice(start, min(start + self.batch.slices, depth))
            maps = self._fitting(slices[batch, None])
            if maps is None:
                if batch.stop - start == 1:
                    raise BlockError(self._advise("a slice", tile.shape[1:]))
                self.batch.slices = (batch.stop - start + 1) // 2
                continue
            for total, found in zip(totals, maps, strict=True):
                total[batch] += found[:, 0]
            start = batch.stop

    def _fitting(self, batch: Floats) -> list[Floats] | None:
        """Evaluate a batch; return None if it does not fit into memory."""
        try:
            return self._evaluate(batch)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if not any(words in str(error) for words in UNALLOCATED):
                raise
        # only here, where no exception holds on to what the network had allocated
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()
        return None

    def _advise(self, what: str, shape: tuple[int, ...]) -> str:
        size = " x ".join(map(str, shape))
        cpu = "give --device cpu, " if self.device.type != "cpu" else ""
        return (
            f"{what} of {size} voxels does not fit into the memory of {self.device}: {cpu}"
            f"run fewer workers there, or end other programs; else give a smaller --tile, for the "
            f"whole volume. Tiles are not made smaller by themselves, because their size decides "
            f"the result"
        )

    def _evaluate(self, batch: Floats) -> list[Floats]:
        """Return the probabilities of each map, shape (n, 1, *space)."""
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device, self.precision)
        x = x.contiguous(memory_format=MEMORY_FORMATS[self.dimensions])
        # one by one: a map's bytes are the same whether or not the other one is asked for
        with computing_in(self.precision, self.device):
            logits = cast(EMNet, self.network).both(x) if self.centerline else [self.network(x)]
        return [m.float().sigmoid().cpu().numpy() for m in logits if m is not None]


class Asked(TypedDict, total=False):
    """Options of a `Predictor`: averaging and centerlines."""

    tta: bool
    rotations: bool
    centerline: bool


def build_predictor(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    device: torch.device,
    precision: torch.dtype,
    *,
    architecture: Architecture | None = None,
    **asked: Unpack[Asked],
) -> Predictor:
    """Load weights into a network and make it as fast as its device allows.

    Parameters
    ----------
    network : nn.Module
        Changed in place: its norms are folded.
    weights : names and tensors
    device, precision
        See `volseg.models.devices`.
    architecture : what the network is; without it, an EM-Net
    **asked
        ``tta``, ``rotations`` and ``centerline`` of `Predictor`.

    Raises
    ------
    ModelError
        If names or shapes of the weights are not the network's, or centerlines are asked of one
        that gives none.
    ParameterError
        If the network cannot be averaged so.
    """
    seen = architecture or find_architecture("emnet")
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModelError("the weights do not fit the network their card names") from error
    network.eval().requires_grad_(requires_grad=False)
    network = fold_norms(network).to(device, precision)
    network = network.to(memory_format=MEMORY_FORMATS[seen.dimensions])  # type: ignore[call-overload]
    return Predictor(network, device, precision, seen.dimensions, seen.margin, **asked)
