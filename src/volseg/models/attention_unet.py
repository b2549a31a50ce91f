"""U-Nets whose skips pass through additive attention gates, for slices or for volumes.

Source: Oktay et al., "Attention U-Net: learning where to look for the pancreas", MIDL 2018,
equations 1 and 2. A plain gate takes the up-sampled signal, of the skip's own size, so that no
coefficient is interpolated; a grid gate takes the signal of the coarser level, as published. Gates
are half as wide as the skip. In 2D, with base width 64 and plain gates, the network has 31,385,605
parameters.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from volseg.models.parts import CONV, Dimensions, UShape, Variant, check_width, doubled

STAGES = 4
STRIDE = 2**STAGES
"""Down-sampling of the whole network along each of its axes; sizes are multiples of it."""


class AttentionGate(nn.Module):
    """Weigh every voxel of a skip by the features of the coarser level."""

    def __init__(self, channels: int, dimensions: Dimensions) -> None:
        super().__init__()
        conv, inner = CONV[dimensions], channels // 2
        self.of_skip = conv(channels, inner, 1, bias=False)
        self.of_signal = conv(channels, inner, 1)
        self.coefficient = conv(inner, 1, 1)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Map skip and gating signal, both (n, channels, *space), to the skip, weighed."""
        seen = (self.of_skip(skip) + self.of_signal(signal)).relu()
        weighed: Tensor = skip * self.coefficient(seen).sigmoid()
        return weighed


class GridGate(AttentionGate):
    """Weigh a skip on the grid of the coarser level: section 2.2, figure 2.

    The skip is brought to that grid by a strided convolution, and the coefficients from it by
    linear interpolation.
    """

    def __init__(self, channels: int, dimensions: Dimensions) -> None:
        super().__init__(channels, dimensions)
        conv, inner = CONV[dimensions], channels // 2
        self.of_skip = conv(channels, inner, 2, stride=2, bias=False)
        self.of_signal = conv(2 * channels, inner, 1)
        self.mode = "bilinear" if dimensions == 2 else "trilinear"

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Map skip, (n, channels, *space), and the signal of half that space, to the skip."""
        seen = (self.of_skip(skip) + self.of_signal(signal)).relu()
        coefficients = self.coefficient(seen).sigmoid()
        # corners aside, so that all tiles on the lattice interpolate alike
        weights = functional.interpolate(
            coefficients, size=skip.shape[2:], mode=self.mode, align_corners=False
        )
        weighed: Tensor = skip * weights
        return weighed


class AttentionUNet(UShape):
    """A U-Net with batch norm and a gate before each concatenation.

    Parameters
    ----------
    width : channels at full resolution, an even number; doubled at each of 4 stages
    dimensions : 2 or 3
        The published network is 3D.
    grid : whether gates work on the grid of the coarser level, as published
    outputs : number of maps
    """

    title = "Attention U-Net"

    def __init__(
        self, width: int = 64, *, dimensions: Dimensions = 2, grid: bool = False, outputs: int = 1
    ) -> None:
        check_width(self.title, width, 2)
        super().__init__(doubled(width, STAGES), Variant(dimensions), outputs=outputs)
        self.grid, gate = grid, GridGate if grid else AttentionGate
        self.gates = nn.ModuleList(gate(width << k, dimensions) for k in reversed(range(STAGES)))

    def skip(self, level: int, features: Tensor, x: Tensor, coarse: Tensor) -> Tensor:
        """Return the gated features of the encoder."""
        gated: Tensor = self.gates[level](features, coarse if self.grid else x)
        return gated
