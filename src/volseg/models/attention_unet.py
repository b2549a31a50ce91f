"""U-Nets whose skips pass through additive attention gates, for slices or for volumes.

Source: Oktay et al., "Attention U-Net: learning where to look for the pancreas", MIDL 2018,
equations 1 and 2. The gating signal is the up-sampled one, of the skip's own size, so that no
coefficient is interpolated; gates are half as wide as the skip. In 2D, with base width 64, the
network has 31,385,605 parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

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


class AttentionUNet(UShape):
    """A U-Net with batch norm and a gate before each concatenation.

    Parameters
    ----------
    width : channels at full resolution, an even number; doubled at each of 4 stages
    dimensions : 2 or 3
        The published network is 3D.

    Raises
    ------
    ParameterError
        If the width is odd.
    """

    title = "Attention U-Net"

    def __init__(self, width: int = 64, *, dimensions: Dimensions = 2) -> None:
        check_width(self.title, width, 2)
        super().__init__(doubled(width, STAGES), Variant(dimensions))
        self.gates = nn.ModuleList(
            AttentionGate(width << k, dimensions) for k in reversed(range(STAGES))
        )

    def skip(self, level: int, features: Tensor, x: Tensor) -> Tensor:
        """Return the gated features of the encoder."""
        gated: Tensor = self.gates[level](features, x)
        return gated
