"""Fold batch norms into the convolutions before them: the same outputs, for less work."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from volseg.models.emnet import EMNet, Hvec, Stem, SubBlock, channel_shuffle
from volseg.models.parts import DoubleConv

Conv = nn.Conv2d | nn.Conv3d


@torch.no_grad()
def _absorb(convs: list[Conv], norm: nn.Module) -> nn.Module:
    """Fold a batch norm into the convolutions whose sum it normalises; return its replacement."""
    if not isinstance(norm, _BatchNorm):
        return norm
    scale = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    offset = -cast(Tensor, norm.running_mean) * scale
    if norm.affine:
        offset = offset + norm.bias
    for k, conv in enumerate(convs):
        conv.weight *= scale.reshape(-1, *[1] * (conv.weight.ndim - 1))
        bias = torch.zeros_like(scale) if conv.bias is None else conv.bias * scale
        if k == 0:
            bias = bias + offset
        if k == 0 or conv.bias is not None:
            conv.bias = nn.Parameter(bias)
    return nn.Identity()


def _in_place(activation: nn.Module) -> nn.Module:
    """Replace a PReLU of one slope; nobody else holds what it is given."""
    if not isinstance(activation, nn.PReLU):
        return activation
    return nn.LeakyReLU(activation.weight.detach().item(), inplace=True)


@torch.no_grad()
def _shuffle(conv: nn.Conv3d, groups: int) -> None:
    """Let a convolution give its channels in the order in which `channel_shuffle` puts them."""
    for values in (conv.weight, cast(Tensor, conv.bias)):
        values.copy_(channel_shuffle(values[None], groups)[0])


def fold_norms(network: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place; outputs stay the same.

    An EM-Net's channels are put in order by its convolutions, and its PReLU changes in place.

    Parameters
    ----------
    network : in evaluation mode: running statistics are what is folded. Instance norms, which
        depend on the input, stay.
    """
    for module in network.modules():
        if isinstance(module, SubBlock | DoubleConv):
            for k, conv in enumerate(module.convs):
                module.norms[k] = _absorb([cast(Conv, conv)], module.norms[k])
    if isinstance(network, EMNet):
        network.activation = _in_place(network.activation)
        network.stem.activation = _in_place(network.stem.activation)
    for module in network.modules():
        if isinstance(module, Hvec):
            module.first_norm = _absorb([module.first.fuse], module.first_norm)
            module.second_norm = _absorb([module.second.fuse, module.residual], module.second_norm)
            _shuffle(module.first.fuse, module.shuffled)
            module.shuffled = 1
        elif isinstance(module, Stem):
            module.conv_norm = _absorb([module.conv], module.conv_norm)
            module.block_norm = _absorb([module.block.fuse], module.block_norm)
    return network
