"""Ways to look at a tile."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from volseg.types import Zyx


@dataclass(frozen=True)
class Look:
    """One way to look at a tile: turned axes, some of them flipped.

    Examples
    --------
    >>> import torch
    >>> look, total = Look((0, 2, 1), flips=(2,)), torch.zeros(1, 1, 2, 3)
    >>> look(total[0]).shape
    torch.Size([1, 3, 2])
    >>> look.add(total, torch.tensor([7.0, 1.0]).expand(1, 1, 3, 2), slice(None))
    >>> total[0, 0]
    tensor([[1., 1., 1.],
            [7., 7., 7.]])
    """

    axes: Zyx
    flips: tuple[int, ...] = ()

    def __call__(self, tile: Tensor) -> Tensor:
        """Turn a tile; only where it is flipped, it is copied."""
        seen = tile.permute(self.axes)
        return seen.flip(self.flips) if self.flips else seen

    def add(self, total: Tensor, found: Tensor, part: slice) -> None:
        """Add what was found in a part of the first axis, as it was seen, to what is not turned.

        Parameters
        ----------
        total : shape (maps, z, y, x)
        found : shape (maps, *seen), of a part that no flip moves
        part : along the first axis that was seen
        """
        z, y, x = (1 + axis for axis in self.axes)
        flips = [1 + axis for axis in self.flips]
        total.permute(0, z, y, x)[:, part] += found.flip(flips) if flips else found
