"""Evaluate tiles with a trained network: fast, on any device, averaged over flips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from volseg.errors import BlockError, ModelError, ParameterError, ShapeError
from volseg.models.devices import CPU_SLICES, as_tensor, computing_in, means_full_memory
from volseg.models.emnet import EMNet
from volseg.models.folding import fold_norms
from volseg.models.logits import as_binary
from volseg.models.maps import MapSpec, count_exclusive, count_outputs, moved
from volseg.models.parts import Dimensions
from volseg.models.registry import TURNED, Architecture, fill_network, find_architecture, turned
from volseg.models.views import Look
from volseg.types import Floats, Roi, Zyx, extent

Taken = Sequence[tuple[int, bool]]
"""For each map that is wanted, an output of the network, and whether its logit changes sign."""
MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Channels last is what convolutions of few channels are fast in."""


@dataclass(frozen=True)
class Predictor:
    """A network that is ready to evaluate tiles, one at a time.

    Tiles are never batched with others, so a tile's result cannot depend on which others it was
    evaluated with. A 2D network sees a tile's own slices in batches, cut in the same way each time.
    On a CPU their size changes no bit, but for a slice by itself in float32, whose sums are rounded
    otherwise: by less than 1e-6. On a GPU it may, so a run keeps to one. What does not fit into
    memory is never made smaller by itself: batches and tiles are part of what decides the result.

    Attributes
    ----------
    network, device, precision : what evaluates, where, and in which type.
    dimensions : whether the network sees slices or volumes.
    margin : voxels per side by which an input exceeds its tile: (z, y, x) of a volume; for slices
        the first is along their normal.
    tta : average over all flips: 8 of a volume, 4 of a slice.
    rotations : with ``tta``, average over rotations by 90 degrees in (y, x), or in a slice, too.
    maps : what the network gives, as its card says; a single class where it says nothing.
    wanted : places of the maps that are returned; others are not computed where that is possible.
    batch : slices that a 2D network sees at once, at most.
    padded : whether the last batch of a tile is filled up, so that all have one shape.
    tf32 : whether a GPU may round what it multiplies in float32 to TF32.
    """

    network: nn.Module
    device: torch.device
    precision: torch.dtype
    dimensions: Dimensions = 3
    margin: Zyx = (0, 0, 0)
    tta: bool = False
    rotations: bool = False
    maps: tuple[MapSpec, ...] = ()
    wanted: tuple[int, ...] = (0,)
    batch: int = CPU_SLICES
    padded: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.rotations and not self.tta:
            raise ParameterError("rotations extend test-time augmentation: ask for tta as well")
        if self.beyond_head and getattr(self.network, "centerline", None) is None:
            raise ModelError(f"{type(self.network).__name__} here gives a mask, and no centerlines")

    @property
    def beyond_head(self) -> bool:
        """Tell whether a map is wanted that a decoder of its own gives: centerlines."""
        return max(self.wanted) >= count_outputs(self.maps)

    def __call__(self, tile: Floats, needed: Roi | None = None, axis: int = 0) -> Floats:
        """Map normalised raw to probabilities, both in memory that NumPy knows; see `evaluate`.

        Returns
        -------
        float32, shape (z, y, x), or where several maps are wanted (maps, z, y, x)
        """
        given = as_tensor(np.asarray(tile, np.float32)).to(self.device)
        found: Floats = self.evaluate(given, needed, axis).cpu().numpy()
        return found if len(self.wanted) > 1 else found[0]

    @torch.inference_mode()
    def evaluate(self, tile: Tensor, needed: Roi | None = None, axis: int = 0) -> Tensor:
        """Map normalised raw to probabilities, on the device.

        Parameters
        ----------
        tile : float32, shape (z + 2 * mz, y + 2 * my, x + 2 * mx); with the margin (mz, my, mx).
        needed : region of the tile whose probabilities are used, all of it by default
            Networks of slices leave out batches of slices that do not reach into it, so the rest
            of what is returned means nothing. The batches that are evaluated are those of the
            whole tile, so not a bit in the region depends on this.
        axis : along which a network of slices looks

        Returns
        -------
        float32, shape (maps, z, y, x)

        Raises
        ------
        ShapeError
            If the network takes no input of that size.
        BlockError
            If the tile, or a batch of its slices, does not fit into memory.
        """
        margin = turned(self.margin, axis)
        sizes = tuple(n - 2 * m for n, m in zip(tile.shape, margin, strict=True))
        if min(sizes) < 1:
            raise ShapeError(
                f"a tile's input must exceed its margins of {margin} voxels per side, found "
                f"{tuple(tile.shape)}"
            )
        total, looks = None, self.looks(axis)
        used = slice(0, sizes[axis]) if needed is None else needed[axis]
        for look in looks:
            seen = look(tile)
            for part, found in self._parts(seen, margin[axis], used, self._taken(look)):
                if total is None:
                    total = found.new_zeros((len(found), *sizes))
                look.add(total, found, part)
        if total is None:
            raise ShapeError(f"no slice of {used.start}:{used.stop} is in a tile of {sizes}")
        return total.div_(len(looks))

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

    def _taken(self, look: Look) -> Taken:
        """Find the outputs that give the wanted maps of one view of a tile."""
        return [moved(self.maps, k, look.axes, look.flips) for k in self.wanted]

    def _parts(
        self, seen: Tensor, margin: int, used: slice, taken: Taken
    ) -> Iterator[tuple[slice, Tensor]]:
        """Evaluate one view of a tile; yield parts of it, and what is found there, map by map."""
        if self.dimensions == 3:
            yield slice(None), self._fit(seen[None, None], taken)[0]
            return
        depth = len(seen) - 2 * margin
        slices, size = seen[margin : margin + depth, None], min(self.batch, depth)
        for start in range(used.start // size * size, used.stop, size):
            batch = slices[start : start + size]
            count = len(batch)
            if self.padded and count < size:
                batch = torch.cat([batch, batch[-1:].expand(size - count, *batch.shape[1:])])
            yield slice(start, start + count), self._fit(batch, taken)[:count].transpose(0, 1)

    def _fit(self, batch: Tensor, taken: Taken) -> Tensor:
        """Evaluate a batch, or say what to do if it does not fit into memory."""
        try:
            return self._evaluate(batch, taken)
        except (MemoryError, RuntimeError) as error:
            if not means_full_memory(error):
                raise
        # only here, where no exception holds on to what the network had allocated
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()
        raise BlockError(self._advise(tuple(batch.shape)))

    def _advise(self, shape: tuple[int, ...]) -> str:
        size, count = extent(shape[2:]), shape[0]
        cpu = "give --device cpu, " if self.device.type != "cpu" else ""
        what, smaller = f"a tile of {size} voxels does", "--tile"
        if self.dimensions == 2:
            what = (
                f"a slice of {size} voxels does" if count == 1 else f"{count} slices of {size} do"
            )
            smaller = "--tile" if count == 1 else "--batch or --tile"
        return (
            f"{what} not fit into the memory of {self.device}: {cpu}run fewer workers there, or "
            f"end other programs; else give a smaller {smaller}, for the whole volume. Neither is "
            f"made smaller by itself, because both decide the result"
        )

    def _evaluate(self, batch: Tensor, taken: Taken) -> Tensor:
        """Return probabilities, shape (n, maps, *space), of what has the shape (n, 1, *space)."""
        x = batch.to(self.device, self.precision).contiguous()
        x = x.contiguous(memory_format=MEMORY_FORMATS[self.dimensions])
        # one by one: a map's bytes are the same whether or not the other one is asked for
        with computing_in(self.precision, self.device, tf32=self.tf32):
            if self.beyond_head:
                head, lines = cast(EMNet, self.network).both(x)
            else:
                head, lines = self.network(x), None
        head = as_binary(head, count_exclusive(self.maps))
        last = head.shape[1]
        logits = [head[:, k : k + 1] if k < last else cast(Tensor, lines) for k, _ in taken]
        maps = [
            (-m.float() if back else m.float()).sigmoid()
            for m, (_, back) in zip(logits, taken, strict=True)
        ]
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)


def build_predictor(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    device: torch.device,
    precision: torch.dtype,
    architecture: Architecture | None = None,
) -> Predictor:
    """Load weights into a network and make it as fast as its device allows.

    Parameters
    ----------
    network : changed in place: its norms are folded.
    weights : names and tensors
    device, precision
        See `volseg.models.devices`.
    architecture : what the network is; without it, an EM-Net

    Returns
    -------
    of the first map, without averaging

    Raises
    ------
    ModelError
        If names or shapes of the weights are not the network's.
    """
    seen = architecture or find_architecture("emnet")
    network = fill_network(network, weights).requires_grad_(requires_grad=False)
    network = fold_norms(network).to(device, precision)
    network = network.to(memory_format=MEMORY_FORMATS[seen.dimensions])  # type: ignore[call-overload]
    # on a GPU libraries choose by the shape how they compute
    padded = device.type != "cpu"
    return Predictor(network, device, precision, seen.dimensions, seen.margin, padded=padded)
