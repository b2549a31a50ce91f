"""Parts of the U-Nets: double convolutions, skips, the U itself, and checks of sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.errors import ParameterError, ShapeError

Dimensions = Literal[2, 3]
"""Of what a network convolves: slices (y, x), or volumes (z, y, x)."""

CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
RAISE: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


@dataclass(frozen=True)
class Variant:
    """Variant of the convolutions of a U-Net.

    Attributes
    ----------
    dimensions : 2 or 3.
    norm : whether a batch norm stands before each ReLU.
    padded : zeros keep the size; without them every double convolution takes 2 voxels a side.
    kernel : voxels of a filter along each axis, an odd number; 3 where nothing is padded.
    neighbours : None, or of a volume, the slices on either side that the first convolution sees
        beside a slice; nothing else mixes or halves slices.
    """

    dimensions: Dimensions
    norm: bool = True
    padded: bool = True
    kernel: int = 3
    neighbours: int | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        """1 for each axis that is convolved and halved, 0 for slices that are not."""
        return (1 if self.neighbours is None else 0, 1, 1)[3 - self.dimensions :]


def check_width(title: str, width: int, multiple: int) -> None:
    """Refuse a base width that the network's groups or halvings cannot divide."""
    if width < multiple or width % multiple:
        raise ParameterError(
            f"{title}'s base width must be a multiple of {multiple}, found {width}"
        )


def check_input(x: Tensor, title: str, channels: int, dimensions: Dimensions) -> None:
    """Refuse a batch without the network's axes and channels."""
    if x.ndim != dimensions + 2 or x.shape[1] != channels:
        axes = ", ".join("zyx"[-dimensions:])
        raise ShapeError(f"{title} takes (n, {channels}, {axes}), found shape {tuple(x.shape)}")


def check_sizes(
    title: str, found: Sequence[int], multiple: Sequence[int], offset: int = 0, least: int = 1
) -> None:
    """Refuse sizes that do not halve evenly at every level.

    Parameters
    ----------
    title : the network's name, for the message
    found, multiple : as many integers as there are axes
    offset : what must be left when a size is divided by its multiple
    least : the smallest size
    """
    if all(n >= least and n % m == offset for n, m in zip(found, multiple, strict=True)):
        return
    rule = f"multiples of {tuple(multiple)}"
    if offset:
        rule = f"{offset} more than {rule} and at least {least}"
    axes = ", ".join("zyx"[-len(found) :])
    raise ShapeError(f"{title} takes sizes ({axes}) that are {rule}, found {tuple(found)}")


def crop(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cut the middle out of (n, c, *space).

    Examples
    --------
    >>> crop(torch.arange(6.0).reshape(1, 1, 6), (2,))
    tensor([[[2., 3.]]])
    """
    for axis, size in enumerate(sizes, start=2):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


class DoubleConv(nn.Module):
    """Two convolutions, over 3 voxels an axis as a rule, each with its norm, if any, and a ReLU.

    Weights begin as Gaussians of variance 2 / fan-in, which keeps the signal's strength through
    ReLUs. Source: Ronneberger et al. 2015, section 3, after He et al. 2015.
    """

    def __init__(
        self, inputs: int, widths: tuple[int, int], variant: Variant, neighbours: int = 0
    ) -> None:
        super().__init__()
        conv, norm = CONV[variant.dimensions], NORM[variant.dimensions]
        reach = variant.kernel // 2
        # of as many numbers as there are axes, which neither layer's type tells
        sides: Any = tuple(1 + 2 * reach * axis for axis in variant.axes)
        around: Any = tuple(reach * axis * variant.padded for axis in variant.axes)
        # neighbouring slices are taken as channels are: by the first filters, to their full depth
        first: Any = (1 + 2 * neighbours, *sides[1:]) if neighbours else sides
        # a norm subtracts whatever a bias before it adds
        convs = [
            conv(i, o, size, padding=around, bias=not variant.norm)
            for i, o, size in zip((inputs, widths[0]), widths, (first, sides), strict=True)
        ]
        for layer in convs:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(norm(o) if variant.norm else nn.Identity() for o in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, *space) to (n, widths[1], *space), 2 voxels a side less if unpadded."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.relu(norm(conv(x)), inplace=True)  # nobody else holds it
        return x


def _raise(inputs: int, outputs: int, variant: Variant) -> nn.Module:
    """Build a transposed convolution that doubles sizes and keeps the signal's strength."""
    factors: Any = tuple(1 + axis for axis in variant.axes)
    layer = RAISE[variant.dimensions](inputs, outputs, factors, stride=factors)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(inputs))
    return layer


class UShape(nn.Module):
    """A contracting and an expanding path, joined by skips at every level.

    Parameters
    ----------
    widths : channels after the two convolutions of each level, the full resolution first.
    inputs, outputs : channels
    halving : whether up-sampling reduces the channels to those of the skip, or keeps them
    """

    title = "U-Net"

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        variant: Variant,
        *,
        inputs: int = 1,
        outputs: int = 1,
        halving: bool = True,
    ) -> None:
        super().__init__()
        self.variant, self.inputs = variant, inputs
        ends = [last for _, last in widths]
        skips, below = ends[-2::-1], ends[:0:-1]
        raised = skips if halving else below
        self.encoder = nn.ModuleList(
            DoubleConv(i, w, variant, 0 if k else variant.neighbours or 0)
            for k, (i, w) in enumerate(zip((inputs, *ends[:-1]), widths, strict=True))
        )
        self.ups = nn.ModuleList(_raise(i, o, variant) for i, o in zip(below, raised, strict=True))
        self.decoder = nn.ModuleList(
            DoubleConv(s + r, (s, s), variant) for s, r in zip(skips, raised, strict=True)
        )
        self.head = CONV[variant.dimensions](ends[0], outputs, 1)

    @property
    def stages(self) -> int:
        """Number of times that sizes are halved."""
        return len(self.ups)

    @property
    def margin(self) -> int:
        """Voxels per side by which an output is smaller than its input."""
        return 0 if self.variant.padded else valid_margin(self.stages)

    def skip(self, level: int, features: Tensor, x: Tensor, coarse: Tensor) -> Tensor:
        """Return the skip of a decoder level, in the size of ``x``, which is raised ``coarse``."""
        del level, coarse  # for networks whose skips differ
        return crop(features, x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Map raw, float, shape (n, inputs, *space), to logits, smaller by the margin."""
        self._check(x)
        features = []
        for level in self.encoder[:-1]:
            features.append(level(x))
            x = self._pool(features[-1])
        x = self.encoder[-1](x)
        for k, (up, level) in enumerate(zip(self.ups, self.decoder, strict=True)):
            x = self._join(k, up, features.pop(), x)  # and lets go of what was joined
            x = level(x)
        logits: Tensor = self.head(x)
        return logits

    def _join(self, level: int, up: nn.Module, features: Tensor, coarse: Tensor) -> Tensor:
        raised = up(coarse)
        return torch.cat([self.skip(level, features, raised, coarse), raised], dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        pool = functional.max_pool2d if self.variant.dimensions == 2 else functional.max_pool3d
        pooled: Tensor = pool(x, tuple(1 + axis for axis in self.variant.axes))
        return pooled

    def _check(self, x: Tensor) -> None:
        dimensions, multiple = self.variant.dimensions, 1 << self.stages
        check_input(x, self.title, self.inputs, dimensions)
        offset = 0 if self.variant.padded else valid_offset(self.stages)
        least = (offset or multiple) + 2 * self.margin
        sizes = x.shape[2:]
        if self.variant.neighbours:
            check_sizes(self.title, sizes[:1], (1,), least=1 + 2 * self.variant.neighbours)
            sizes = sizes[1:]
        check_sizes(self.title, sizes, (multiple,) * len(sizes), least % multiple, least)


def doubled(width: int, stages: int) -> list[tuple[int, int]]:
    """Double the width at every level: ``[(f, f), (2f, 2f), ...]``, one level more than stages."""
    return [(width << k, width << k) for k in range(stages + 1)]


def valid_margin(stages: int) -> int:
    """Count the voxels per side that unpadded double convolutions take, over a whole U-Net.

    A level that lies k halvings deep takes ``2 * 2**k``; all but the deepest are passed twice.

    Examples
    --------
    >>> [valid_margin(k) for k in (0, 3, 4)]
    [2, 44, 92]
    """
    return (6 << stages) - 4


def valid_offset(stages: int) -> int:
    """Find what an unpadded U-Net's output leaves when it is divided by ``2**stages``.

    From e voxels at the bottom, each way up gives ``2 * e - 4``: in all
    ``2**stages * (e - 4) + 4``, so an output is 4 more than a multiple.

    Examples
    --------
    >>> (572 - 2 * valid_margin(4)) % 16 == valid_offset(4)
    True
    """
    return 4 % (1 << stages)
