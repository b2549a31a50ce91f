"""EM-Net: a light 3D network that also learns the centerlines of mitochondria.

Source: Yuan et al., "EM-Net: centerline-aware mitochondria segmentation in EM images via
hierarchical view-ensemble convolutional network", ISBI 2020. Where the paper is silent, its
follow-up HIVE-Net (the same authors) decides. With base width 64 the network has 3,173,332
trainable parameters, which fixes that its norms have none; without the centerline decoder and its
head it has 2,917,363.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.models.parts import check_input, check_sizes, check_width

Norm = Literal["batch", "instance"]
"""Batch norm does not depend on the tile; instance norm, as published, does."""

GROUPS = 4
STRIDE = (4, 8, 8)
"""Down-sampling of the whole network (z, y, x): tile origins are multiples of it."""
MULTIPLE = STRIDE
"""Input sizes must be multiples of this. Every sub-block halves y and x once more, rounded up."""


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(channels, affine=False)
    return nn.InstanceNorm3d(channels)


def _upsample(x: Tensor, scale: tuple[int, int, int], *, align_corners: bool) -> Tensor:
    factor = tuple(float(s) for s in scale)
    return functional.interpolate(
        x, scale_factor=factor, mode="trilinear", align_corners=align_corners
    )


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave channel groups so that the next grouped layer mixes them.

    Parameters
    ----------
    x : float, shape (n, c, z, y, x)
    groups : a divisor of ``c``

    Returns
    -------
    float, shape (n, c, z, y, x)

    Examples
    --------
    >>> x = torch.arange(8.0).reshape(1, 8, 1, 1, 1)
    >>> [int(v) for v in channel_shuffle(x, 4).flatten()]
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    channels = x.shape[1]
    order = torch.arange(channels, device=x.device).view(groups, channels // groups)
    return x[:, order.t().flatten()]


class SubBlock(nn.Module):
    """Three orthogonal 2D views and one coarser view, chained, then mixed by a 1x1x1 convolution.

    Source: Yuan et al. 2020, Fig. 2.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: Norm, adapt: bool) -> None:
        super().__init__()
        i, o = inputs // GROUPS, outputs // GROUPS
        kernels = ((1, 3, 3), (3, 1, 3), (3, 3, 1), (1, 3, 3))
        self.convs = nn.ModuleList(
            nn.Conv3d(i, o, k, padding=(k[0] // 2, k[1] // 2, k[2] // 2), bias=False)
            for k in kernels
        )
        self.norms = nn.ModuleList(_norm(norm, o) for _ in kernels)
        self.adapters = nn.ModuleList(
            nn.Conv3d(o, i, 1) if adapt else nn.Identity() for _ in kernels[1:]
        )
        self.fuse = nn.Conv3d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, z, y, x) to (n, outputs, z, y, x)."""
        groups = x.chunk(GROUPS, dim=1)
        y = self.norms[0](self.convs[0](groups[0]))
        views = [y]
        for k in (1, 2):
            y = self.norms[k](self.convs[k](groups[k] + self.adapters[k - 1](y)))
            views.append(y)
        context = functional.max_pool3d(groups[3] + self.adapters[2](y), (1, 2, 2), ceil_mode=True)
        context = functional.interpolate(self.convs[3](context), size=x.shape[2:], mode="nearest")
        views.append(self.norms[3](context))
        joined = torch.cat(views, dim=1)
        # what is held for longer is the memory that a tile takes
        del views, groups, context, y
        fused: Tensor = self.fuse(joined)
        return fused


class Hvec(nn.Module):
    """Hierarchical view-ensemble convolution: two sub-blocks with a residual connection.

    The PReLU is an argument because one scalar is shared by all modules of the network.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: Norm) -> None:
        super().__init__()
        self.first = SubBlock(inputs, outputs, norm=norm, adapt=True)
        self.first_norm = _norm(norm, outputs)
        self.second = SubBlock(outputs, outputs, norm=norm, adapt=False)
        self.second_norm = _norm(norm, outputs)
        self.residual = nn.Conv3d(inputs, outputs, 1, bias=False)
        self.shuffled = GROUPS

    def forward(self, x: Tensor, activation: nn.Module) -> Tensor:
        """Map (n, inputs, z, y, x) to (n, outputs, z, y, x)."""
        t = activation(self.first_norm(self.first(x)))
        if self.shuffled > 1:
            t = channel_shuffle(t, self.shuffled)
        t = self.second(t)
        t += self.residual(x)
        out: Tensor = activation(self.second_norm(t))
        return out


class Stem(nn.Module):
    """Encoder level 1: a full 3D convolution, then one sub-block, with a PReLU of their own."""

    def __init__(self, channels: int, width: int, *, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, width, 3, padding=1, bias=False)
        self.conv_norm = _norm(norm, width)
        self.block = SubBlock(width, width, norm=norm, adapt=False)
        self.block_norm = _norm(norm, width)
        self.activation: nn.Module = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, z, y, x) to (n, width, z, y, x)."""
        x = self.activation(self.conv_norm(self.conv(x)))
        out: Tensor = self.activation(self.block_norm(self.block(x)))
        return out


class CenterlineDecoder(nn.Module):
    """The auxiliary decoder, half as wide as the segmentation decoder."""

    def __init__(self, width: int, *, norm: Norm) -> None:
        super().__init__()
        f = width
        self.project = nn.Conv3d(4 * f, 2 * f, 1)
        self.skips = nn.ModuleList(
            nn.Conv3d(i, o, 1) for i, o in ((4 * f, 2 * f), (2 * f, f), (f, f // 2))
        )
        self.reduce = nn.ModuleList(nn.Conv3d(i, i // 2, 1) for i in (2 * f, f))
        self.blocks = nn.ModuleList(Hvec(w, w, norm=norm) for w in (2 * f, f, f // 2))
        self.head = nn.Conv3d(f // 2, 1, 1)

    def forward(
        self, p: Tensor, skips: list[Tensor], activation: nn.Module, *, align_corners: bool
    ) -> Tensor:
        """Return the features R, shape (n, width / 2, z, y, x)."""
        x: Tensor = self.blocks[0](self.project(p) + self.skips[0](skips[0]), activation)
        for k in (1, 2):
            x = _upsample(self.reduce[k - 1](x), (2, 2, 2), align_corners=align_corners)
            x = self.blocks[k](x + self.skips[k](skips[k]), activation)
        return x


class EMNet(nn.Module):
    """EM-Net, from raw to the logits of mitochondria.

    Parameters
    ----------
    width : base width f, a multiple of 8; the published network has 64
    norm : "batch" or "instance"
        Instance norm is the published form; a voxel's result then depends on the tile.
    align_corners : bool
        How trilinear up-sampling aligns; True makes the result depend on the tile's extent.
    centerline : whether the auxiliary centerline decoder exists
    outputs : number of maps beside centerlines

    Examples
    --------
    >>> sum(p.numel() for p in EMNet(width=64).parameters())
    3173332
    """

    def __init__(
        self,
        width: int = 32,
        *,
        norm: Norm = "batch",
        align_corners: bool = False,
        centerline: bool = True,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        check_width("EM-Net", width, 8)
        f, self.align_corners = width, align_corners
        self.activation: nn.Module = nn.PReLU()
        self.stem = Stem(1, f, norm=norm)
        self.encoder = nn.ModuleList(Hvec(i, 2 * i, norm=norm) for i in (f, 2 * f, 4 * f))
        self.reduce = nn.ModuleList(nn.Conv3d(i, i // 2, 1) for i in (8 * f, 4 * f, 2 * f))
        self.decoder = nn.ModuleList(Hvec(w, w, norm=norm) for w in (4 * f, 2 * f, f))
        self.centerline = CenterlineDecoder(f, norm=norm) if centerline else None
        joined = f + f // 2 if centerline else f
        self.fusion = Hvec(joined, f // 2, norm=norm)
        self.head = nn.Conv3d(f // 2, outputs, 1)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the segmentation features before the head, and the centerline features."""
        check_input(x, "EM-Net", 1, 3)
        check_sizes("EM-Net", x.shape[2:], MULTIPLE)
        skips = [self.stem(x)]
        for k, pool in enumerate(((2, 2, 2), (2, 2, 2), (1, 2, 2))):
            x = functional.max_pool3d(skips[-1], pool)
            skips.append(self.encoder[k](x, self.activation))
        x = skips.pop()
        skips.reverse()
        projected = x
        for k, scale in enumerate(((1, 2, 2), (2, 2, 2), (2, 2, 2))):
            # in this order, which gives the same, it takes an eighth of the work
            x = _upsample(self.reduce[k](x), scale, align_corners=self.align_corners)
            if k == 0:
                projected = x
            x = self.decoder[k](x + skips[k], self.activation)
        if self.centerline is None:
            return self.fusion(x, self.activation), None
        r = self.centerline(projected, skips, self.activation, align_corners=self.align_corners)
        skips.clear()
        x = torch.cat([x, r], dim=1)
        return self.fusion(x, self.activation), r

    def forward(self, x: Tensor) -> Tensor:
        """Map raw, float, shape (n, 1, z, y, x), to logits, shape (n, outputs, z, y, x)."""
        logits: Tensor = self.head(self.features(x)[0])
        return logits

    def both(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits of `forward` and, if there is a decoder for them, of centerlines."""
        features, r = self.features(x)
        lines = None if self.centerline is None else self.centerline.head(r)
        return self.head(features), lines
