"""Explain what a network says of a tile: how sure it is, what it hinges on, where it attends.

Sources: K. Simonyan et al., "Deep inside convolutional networks", ICLR workshop 2014 (saliency);
K. Vinogradova et al., "Towards interpretable semantic segmentation via gradient-weighted class
activation mapping", AAAI 2020 (Grad-CAM of a set of voxels, equation 2); Oktay et al., MIDL 2018
(attention).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from volseg.models.attention_unet import AttentionGate
from volseg.models.inference import Predictor
from volseg.models.logits import as_binary
from volseg.models.maps import count_exclusive
from volseg.models.parts import crop
from volseg.models.registry import TURNED, turned
from volseg.types import Floats, Roi, Zyx

Maps: TypeAlias = dict[str, Floats]
MEAN, SQUARE, SALIENCY, CAM, ATTENTION = "mean", "square", "saliency", "grad-cam", "attention"
"""Names of maps; the first two are of the probability and its square, over all flips."""
FLIPS = 4
"""Including none."""
LINEAR = {2: "bilinear", 3: "trilinear"}


def has_gates(network: nn.Module) -> bool:
    """Tell whether a network has attention gates."""
    return any(isinstance(module, AttentionGate) for module in network.modules())


@dataclass
class Taken:
    """Features that a network had on its way: the deepest, the last, and its attention."""

    deepest: Tensor | None = None
    last: Tensor | None = None
    gates: list[Tensor] = field(default_factory=list)


@contextmanager
def listening(network: Any) -> Iterator[Taken]:
    """Take the features of a network while it is evaluated."""
    taken = Taken()

    def take(name: str) -> Callable[..., None]:
        return lambda _module, given, found: setattr(
            taken, name, given[0] if name == "last" else found
        )

    hooks = [
        network.encoder[-1].register_forward_hook(take("deepest")),
        network.head.register_forward_hook(take("last")),
        *(
            gate.coefficient.register_forward_hook(
                lambda _module, _given, found: taken.gates.append(found.sigmoid())
            )
            for gate in network.modules()
            if isinstance(gate, AttentionGate)
        ),
    ]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Explainer:
    """Explains tiles of a predictor without averaging, and sums up what its filters do.

    Attributes
    ----------
    predictor : of a single class.
    threshold : probability from which a voxel is found; what is found is explained.
    stride : how much coarser the network's deepest level is, (z, y, x).
    found : voxels that were found in what was needed of the tiles so far.
    activation : float64, shape (filters,); sum of the last features over these voxels.
    """

    predictor: Predictor
    threshold: float
    stride: Zyx
    found: int = 0
    activation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def place(self) -> int:
        """Return the place of the class among the maps of the network's head."""
        return self.predictor.wanted[0]

    def explain(self, tile: Floats, needed: Roi, axis: int) -> Maps:
        """Explain what is found in the needed part of a tile.

        Parameters
        ----------
        tile, needed, axis : as `volseg.models.inference.Predictor` takes them

        Returns
        -------
        float32 maps of the tile without its margin, of which only the needed part counts
            Mean probability and mean square over flips; absolute gradient of the logits of what is
            found, summed, with respect to raw; its Grad-CAM at the deepest level; coefficients of
            each attention gate, named by how much coarser than raw it is.
        """
        flipped = average_flips(self.predictor, tile, needed, axis)
        return flipped | self._map(tile, needed, axis, self._trace)

    def activate(self, tile: Floats, needed: Roi, axis: int, filters: Sequence[int]) -> Maps:
        """Map the activation of some of the last filters."""

        def evaluate(x: Tensor, _inside: tuple[slice, ...]) -> dict[str, Tensor]:
            with torch.no_grad(), listening(self.predictor.network) as taken:
                self.predictor.network(x)
            last = cast(Tensor, taken.last)
            return {f"filter-{k}": last[:, k : k + 1] for k in filters}

        return self._map(tile, needed, axis, evaluate)

    def rank_filters(self) -> list[tuple[int, float]]:
        """Rank the last filters by what they add to the mean logit of what was found.

        The last layer sums activations by its weights, so these numbers and its bias are the mean
        logit, and no filter is left out. Of a class that excludes others, it is its own logit,
        before it is set against theirs.
        """
        if not self.found:
            return []
        weights = cast(Any, self.predictor.network).head.weight[self.place].flatten().cpu().numpy()
        added = self.activation / self.found * weights
        return [(int(k), float(added[k])) for k in np.argsort(-added, kind="stable")]

    def _map(
        self,
        tile: Floats,
        needed: Roi,
        axis: int,
        evaluate: Callable[[Tensor, tuple[slice, ...]], dict[str, Tensor]],
    ) -> Maps:
        """Evaluate a tile, or its needed slices one by one, and collect maps."""
        margin, order = turned(self.predictor.margin, axis), TURNED[axis]
        sizes = [n - 2 * m for n, m in zip(tile.shape, margin, strict=True)]
        seen, inside = tile.transpose(order), tuple(needed[a] for a in order)
        pieces: list[tuple[Any, Floats, tuple[slice, ...]]] = [(..., seen, inside)]
        if self.predictor.dimensions == 2:
            slices = range(inside[0].start, inside[0].stop)
            pieces = [(k, seen[k + margin[axis]], inside[1:]) for k in slices]
        maps: Maps = {}
        for place, values, box in pieces:
            x = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
            for name, found in evaluate(x.to(self.predictor.device), box).items():
                target = maps.setdefault(name, np.zeros(sizes, np.float32))
                target.transpose(order)[place] = found[0, 0].detach().float().cpu().numpy()
        return maps

    def _trace(self, x: Tensor, inside: tuple[slice, ...]) -> dict[str, Tensor]:
        """Evaluate what a network takes, and follow its gradients back."""
        network = self.predictor.network
        with torch.enable_grad(), listening(network) as taken:
            given = network(x.requires_grad_())
            logits = as_binary(given, count_exclusive(self.predictor.maps))
            wanted = torch.zeros_like(logits, dtype=torch.bool)
            wanted[0, self.place][inside] = True
            wanted &= logits >= math.log(self.threshold / (1 - self.threshold))
            deepest, last = cast(Tensor, taken.deepest), cast(Tensor, taken.last).detach()
            to_raw, to_deepest = torch.autograd.grad(logits[wanted].sum(), (x, deepest))
        self.found += int(wanted.sum())
        added = last[0][:, wanted[0, self.place]].sum(dim=1).double().cpu().numpy()
        self.activation = added if not self.activation.size else self.activation + added
        share = to_deepest.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        weighed = (share * deepest).sum(dim=1, keepdim=True).relu()
        sizes = logits.shape[2:]
        maps = {SALIENCY: crop(to_raw.abs(), sizes), CAM: enlarge(weighed, self.stride, sizes)}
        for gate in taken.gates:  # of networks without a margin
            factors = [n // m for n, m in zip(x.shape[2:], gate.shape[2:], strict=True)]
            maps[f"{ATTENTION}-{max(factors)}"] = enlarge(gate, factors, sizes)
        return maps


def average_flips(predictor: Predictor, tile: Floats, needed: Roi, axis: int) -> Maps:
    """Average the probability and its square over flips of a tile."""
    axes = TURNED[axis][3 - predictor.dimensions :]
    # of volumes one axis at a time: all eight would take twice as long
    flips = [f for n in range(len(axes) + 1) for f in combinations(axes, n)][:FLIPS]
    total: Maps = {}
    for flip in flips:
        # of slices, only the range along their normal counts, which no flip changes
        found = np.flip(predictor(np.flip(tile, flip), needed, axis), flip)
        for name, values in ((MEAN, found), (SQUARE, found * found)):
            total[name] = total.get(name, np.float32(0)) + values / np.float32(len(flips))
    return total


def deviation(maps: Maps) -> Floats:
    """Find the standard deviation of a probability from its mean and mean square."""
    spread: Floats = np.sqrt(np.maximum(maps[SQUARE] - maps[MEAN] * maps[MEAN], 0))
    return spread


def enlarge(maps: Tensor, factors: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Interpolate a map of a coarser level at the voxels of an output.

    Parameters
    ----------
    maps : shape (1, 1, *space)
    factors : how much coarser the map is; only the last count where there are fewer axes
    sizes : of the output, which lies in its middle

    Returns
    -------
    shape (1, 1, *sizes)

    Examples
    --------
    >>> enlarge(torch.eye(4)[None, None], (2, 2), (4, 4)).shape
    torch.Size([1, 1, 4, 4])
    """
    axes = len(sizes)
    whole = [m * f for m, f in zip(maps.shape[2:], factors[-axes:], strict=True)]
    if list(maps.shape[2:]) != whole:
        maps = functional.interpolate(maps, whole, mode=LINEAR[axes], align_corners=False)
    return crop(maps, sizes)
