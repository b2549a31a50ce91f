"""Losses over logits; targets are float tensors in [0, 1] of the same shape."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5


def jaccard_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Jaccard index over the whole batch.

    Parameters
    ----------
    logits, target : float, shape (n, 1, z, y, x)

    Returns
    -------
    float, scalar
        In [0, 1].

    Notes
    -----
    Source: Yuan et al. 2020, eq. 3.

    Examples
    --------
    >>> import torch
    >>> y = torch.tensor([0.0, 1.0])
    >>> round(float(jaccard_loss(torch.tensor([-99.0, 99.0]), y)), 3)
    0.0
    """
    p = logits.float().sigmoid()
    overlap = (p * target).sum()
    return 1 - overlap / (p.sum() + target.sum() - overlap + EPSILON)


def centerline_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between the sigmoid of the logits and the normalised proximity."""
    return functional.mse_loss(logits.float().sigmoid(), target)


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
    balance : float
        The paper's lambda: the weight of the segmentation.
    centerline_weight : float
        A further factor on the centerline term. With a target in [0, 1] the term is tiny, so more
        than the paper's 1 gives the task a voice.
    cross_entropy_weight : float
        Of the voxels' mean cross-entropy, which the paper does not have (0). The Jaccard loss has
        next to no gradient on patches without foreground, so it leaves false positives alone.

    Returns
    -------
    float, scalar

    Notes
    -----
    Source: Yuan et al. 2020, eq. 1.
    """
    loss = jaccard_loss(logits, target)
    if centerline is not None:
        auxiliary = centerline_loss(*centerline)
        loss = balance * loss + (1 - balance) * centerline_weight * auxiliary
    if cross_entropy_weight:
        loss = loss + cross_entropy_weight * functional.binary_cross_entropy_with_logits(
            logits.float(), target
        )
    return loss
