"""Losses over logits; targets are float tensors in [0, 1] of the same shape.

All of them sum over every voxel of the batch, so tensors may have any shape: patches, or the
annotated voxels of patches. Dice and Jaccard losses lie in [0, 1], the others start at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from volseg.models.maps import CONTOUR, DISTANCE, OFFSETS, MapSpec

EPSILON = 1e-5


def cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy over the voxels.

    Examples
    --------
    >>> round(float(cross_entropy_loss(torch.zeros(2), torch.tensor([0.0, 1.0]))), 3)
    0.693
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), target)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, 2 sum(p g) / (sum(p) + sum(g)).

    Examples
    --------
    >>> y = torch.tensor([0.0, 1.0])
    >>> round(float(dice_loss(torch.tensor([-99.0, 99.0]), y)), 3)
    0.0
    """
    p = logits.float().sigmoid()
    return 1 - (2 * (p * target).sum() + EPSILON) / (p.sum() + target.sum() + EPSILON)


def square_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice coefficient with squares below, 2 sum(p g) / (sum(p^2) + sum(g^2)).

    Its gradient does not vanish where a prediction is uncertain and the target is large.

    Source: Milletari et al. 2016 (V-Net), section 3.

    Examples
    --------
    >>> y = torch.tensor([1.0, 1.0])
    >>> round(float(square_dice_loss(torch.zeros(2), y)), 3)
    0.2
    """
    p = logits.float().sigmoid()
    overlap = 2 * (p * target).sum()
    return 1 - (overlap + EPSILON) / (p.square().sum() + target.square().sum() + EPSILON)


def log_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Minus the logarithm of the soft Dice coefficient: steep where there is little overlap.

    Examples
    --------
    >>> round(float(log_dice_loss(torch.tensor([-99.0, 99.0]), torch.tensor([0.0, 1.0]))), 3)
    0.0
    """
    p = logits.float().sigmoid()
    overlap = 2 * (p * target).sum() + EPSILON
    return torch.log(p.sum() + target.sum() + EPSILON) - torch.log(overlap)


def jaccard_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Jaccard index over the whole batch.

    Source: Yuan et al. 2020, eq. 3.

    Examples
    --------
    >>> y = torch.tensor([0.0, 1.0])
    >>> round(float(jaccard_loss(torch.tensor([-99.0, 99.0]), y)), 3)
    0.0
    """
    p = logits.float().sigmoid()
    overlap = (p * target).sum()
    return 1 - overlap / (p.sum() + target.sum() - overlap + EPSILON)


def cross_entropy_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of cross-entropy and Dice loss: each has a gradient where the other has next to none."""
    return cross_entropy_loss(logits, target) + dice_loss(logits, target)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": cross_entropy_loss,
    "bce-dice": cross_entropy_dice_loss,
    "dice": dice_loss,
    "jaccard": jaccard_loss,
    "log-dice": log_dice_loss,
    "square-dice": square_dice_loss,
}
"""By name; ``emnet`` is not among them, because it has terms and weights of its own."""
SMALL = 1 / 64
"""A voxel, of the usual reach: both of its sides are 1."""
EMNET = "emnet"
LOSS_NAMES = (*sorted(LOSSES), EMNET)


def centerline_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between the sigmoid of the logits and the normalised proximity."""
    return functional.mse_loss(logits.float().sigmoid(), target)


def offset_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean error of the sigmoid of the logits, in reaches; squared where it is small."""
    return 2 * functional.smooth_l1_loss(logits.float().sigmoid(), target, beta=SMALL)


MAP_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    CONTOUR: cross_entropy_dice_loss,
    DISTANCE: cross_entropy_loss,
    **dict.fromkeys(OFFSETS, offset_loss),
}
"""Of auxiliary maps; targets of a distance lie between 0 and 1, which a cross-entropy takes."""


def maps_loss(
    logits: Tensor,
    target: Tensor,
    maps: Sequence[MapSpec],
    weights: Mapping[str, float],
    of_class: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Average the losses of several maps by their weights, over the voxels that are annotated.

    Parameters
    ----------
    logits, target : float, shape (n, maps, *space)
        A target below 0 stands for what nobody annotated.
    maps : that the network's head gives
    weights : by name; 1 for others
    of_class : loss of logits and target of a class

    Examples
    --------
    >>> maps, target = (MapSpec("a"), MapSpec("b")), torch.tensor([[[1.0], [-1.0]]])
    >>> round(float(maps_loss(torch.zeros(1, 2, 1), target, maps, {}, cross_entropy_loss)), 3)
    0.693
    """
    total, weight = logits.sum() * 0, 0.0
    for k, spec in enumerate(maps[: logits.shape[1]]):
        known = target[:, k] >= 0
        if not known.any():
            continue
        loss = MAP_LOSSES.get(spec.kind, of_class)
        share = weights.get(spec.name, 1.0)
        total = total + share * loss(logits[:, k][known], target[:, k][known])
        weight += share
    return total / weight if weight else total


def emnet_loss(
    logits: Tensor,
    target: Tensor,
    centerline: tuple[Tensor, Tensor] | None,
    *,
    balance: float = 0.7,
    centerline_weight: float = 1.0,
    cross_entropy_weight: float = 0.0,
) -> Tensor:
    """Combine segmentation and centerline losses as EM-Net does, and add a cross-entropy.

    Parameters
    ----------
    logits, target : float, shape (n, 1, z, y, x)
    centerline : pair of float tensors of that shape, or None
        Logits and target of the auxiliary task; None for the single-task network.
    balance : the paper's lambda: the weight of the segmentation.
    centerline_weight : a further factor on the centerline term. With a target in [0, 1] the term is
        tiny, so more than the paper's 1 gives the task a voice.
    cross_entropy_weight : float
        Of the voxels' mean cross-entropy, which the paper does not have (0). The Jaccard loss has
        next to no gradient on patches without foreground, so it leaves false positives alone.

    Notes
    -----
    Source: Yuan et al. 2020, eq. 1.
    """
    loss = jaccard_loss(logits, target)
    if centerline is not None:
        auxiliary = centerline_loss(*centerline)
        loss = balance * loss + (1 - balance) * centerline_weight * auxiliary
    if cross_entropy_weight:
        loss = loss + cross_entropy_weight * cross_entropy_loss(logits, target)
    return loss
