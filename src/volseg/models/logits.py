"""Logits of classes that exclude one another, as those of any other map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def as_binary(logits: Tensor, exclusive: int) -> Tensor:
    """Turn logits of classes that exclude one another into those of each class against the rest.

    The probability of a class is then a sigmoid, as of any other map: its share among the leading
    maps and a background of logit 0.

    Parameters
    ----------
    logits : shape (n, maps, *space)
    exclusive : number of leading maps of which one holds at most

    Examples
    --------
    >>> [round(float(p), 3) for p in as_binary(torch.zeros(1, 3, 1, 1), 2).sigmoid().flatten()]
    [0.333, 0.333, 0.5]
    """
    if not exclusive:
        return logits
    among = functional.pad(logits[:, :exclusive].movedim(1, -1).float(), (0, 1)).movedim(-1, 1)
    own = [
        among[:, k] - among[:, [j for j in range(exclusive + 1) if j != k]].logsumexp(1)
        for k in range(exclusive)
    ]
    return torch.cat([torch.stack(own, dim=1), logits[:, exclusive:].float()], dim=1)
