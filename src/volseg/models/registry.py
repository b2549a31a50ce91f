"""Architectures by name, with the properties that inference needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from volseg.errors import ModelError, ParameterError, ShapeError
from volseg.models import attention_unet, emnet, unet2d, unet3d
from volseg.models.attention_unet import AttentionUNet
from volseg.models.emnet import EMNet
from volseg.models.parts import Dimensions, Variant
from volseg.models.unet2d import UNet2d
from volseg.models.unet3d import UNet3d
from volseg.types import Zyx, zyx

Views = Literal["xy", "xz", "yz", "ortho"]
"""Slices that a 2D network sees: those along z, along y or along x, or the average of all."""
AXES: dict[Views, tuple[int, ...]] = {"xy": (0,), "xz": (1,), "yz": (2,), "ortho": (0, 1, 2)}
"""The axes along which slices are taken."""
TURNED: tuple[Zyx, Zyx, Zyx] = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""For slices along each axis: the axes of a stack of them."""


@dataclass(frozen=True)
class Architecture:
    """Constructor of a network, and the tiles that it takes.

    A tile is the output. Its sizes leave ``offset`` when divided by ``multiple``; the input is
    larger by ``margin`` on each side.

    Attributes
    ----------
    build : base width -> network, from (n, 1, y, x) or (n, 1, z, y, x) to logits; takes the number
        of its maps beside centerlines as ``outputs``, 1 by default.
    stride : tile origins are multiples of it apart.
    multiple, offset : tile sizes are ``offset`` more than a multiple; 0 means a multiple.
    dimensions : whether the network sees slices or volumes.
    margin : voxels per side that unpadded convolutions take.
    width : base width, where none is asked for.
    centerline : whether the network gives centerlines too, see `volseg.models.emnet.EMNet.both`.
    """

    build: Callable[..., nn.Module]
    stride: Zyx
    multiple: Zyx
    dimensions: Dimensions = 3
    margin: Zyx = (0, 0, 0)
    offset: Zyx = (0, 0, 0)
    width: int = 32
    centerline: bool = False

    def input_shape(self, tile: Zyx) -> Zyx:
        """Find the size of the input that gives a tile.

        Examples
        --------
        >>> find_architecture("unet2d-valid").input_shape((20, 388, 388))
        (20, 572, 572)
        """
        if self.fit(tile) != tile:
            more = f"{self.offset} more than " if any(self.offset) else ""
            raise ShapeError(
                f"tiles (z, y, x) must be {more}multiples of {self.multiple}, found {tile}; the "
                f"next larger is {self.fit(tile)}"
            )
        return zyx(n + 2 * m for n, m in zip(tile, self.margin, strict=True))

    def fit(self, size: Zyx) -> Zyx:
        """Find the smallest tile that holds a size.

        Examples
        --------
        >>> find_architecture("unet2d-valid").fit((20, 100, 388))
        (20, 100, 388)
        >>> find_architecture("unet3d").fit((20, 100, 388))
        (24, 104, 392)
        """
        axes = zip(size, self.multiple, self.offset, strict=True)
        return zyx(o + max(-(-(n - o) // m), 0 if o else 1) * m for n, m, o in axes)

    def find_misfit(self, tile: Zyx, overlap: Zyx) -> str | None:
        """State the rules of tiles if a tile and its overlap break one; None if they do not.

        Examples
        --------
        >>> find_architecture("unet3d").find_misfit((24, 104, 392), (8, 8, 8)) is None
        True
        """
        axes = zip(tile, overlap, self.stride, strict=True)
        if self.fit(tile) == tile and all(
            0 <= o <= t // 2 and (t - o) % s == 0 for t, o, s in axes
        ):
            return None
        more = f"{self.offset} more than " if any(self.offset) else ""
        return (
            f"are {more}multiples of {self.multiple}, lie multiples of {self.stride} apart, and "
            f"overlap by half at most"
        )

    def viewed(self, axis: int) -> Architecture:
        """Return the rules that hold when slices are taken along an axis."""
        if axis == 0:
            return self
        if self.dimensions == 3:
            raise ParameterError("views are for 2D networks; a 3D one sees all axes anyway")
        sizes = (self.stride, self.multiple, self.margin, self.offset)
        stride, multiple, margin, offset = (turned(v, axis) for v in sizes)
        return replace(self, stride=stride, multiple=multiple, margin=margin, offset=offset)


def _emnet(
    build: Callable[..., nn.Module], width: int = 32, *, centerline: bool = True
) -> Architecture:
    return Architecture(build, emnet.STRIDE, emnet.MULTIPLE, width=width, centerline=centerline)


def _slices(build: Callable[..., nn.Module], stride: int) -> Architecture:
    sizes = (1, stride, stride)
    return Architecture(build, sizes, sizes, dimensions=2, width=64)


def _volumes(build: Callable[..., nn.Module], stride: int, width: int) -> Architecture:
    return Architecture(build, (stride,) * 3, (stride,) * 3, width=width)


ARCHITECTURES: dict[str, Architecture] = {
    "emnet": _emnet(EMNet),
    "emnet-paper": replace(
        _emnet(partial(EMNet, norm="instance", align_corners=True), width=64),
        multiple=(4, 16, 16),  # instance norms need more than one voxel at the coarsest level
    ),
    "emnet-single": _emnet(partial(EMNet, centerline=False), centerline=False),
    "unet2d": _slices(UNet2d, unet2d.STRIDE),
    "unet2d-plain": _slices(partial(UNet2d, variant=Variant(2, norm=False)), unet2d.STRIDE),
    "unet2d-valid": replace(
        _slices(partial(UNet2d, variant=Variant(2, norm=False, padded=False)), unet2d.STRIDE),
        margin=(0, unet2d.MARGIN, unet2d.MARGIN),
        offset=(0, unet2d.OFFSET, unet2d.OFFSET),
    ),
    "attention-unet": _slices(AttentionUNet, attention_unet.STRIDE),
    "attention-unet-grid": _slices(partial(AttentionUNet, grid=True), attention_unet.STRIDE),
    "attention-unet3d": _volumes(
        partial(AttentionUNet, dimensions=3), attention_unet.STRIDE, width=16
    ),
    "unet3d": _volumes(UNet3d, unet3d.STRIDE, width=32),
    "unet2d-neighbours": Architecture(
        partial(UNet2d, variant=Variant(3, neighbours=1)),
        (1, unet2d.STRIDE, unet2d.STRIDE),
        (1, unet2d.STRIDE, unet2d.STRIDE),
        margin=(1, 0, 0),
        width=64,
    ),
}


VARIED = re.compile(r"(unet2d|unet2d-plain)(?:-depth([1-5]))?(?:-filter([57]))?")
"""Names of U-Nets of other depths and filters than the published 4 and 3."""
EVERY = (
    *ARCHITECTURES,
    *(
        f"{name}{depth}{kernel}"
        for name in ("unet2d", "unet2d-plain")
        for depth in ("", *(f"-depth{k}" for k in (1, 2, 3, 5)))
        for kernel in ("", "-filter5", "-filter7")
        if depth or kernel
    ),
)
"""Names of all networks, each of them once."""


def find_architecture(name: str) -> Architecture:
    """Look up an architecture.

    Examples
    --------
    >>> find_architecture("unet2d-depth5-filter5").stride
    (1, 32, 32)
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    varied = VARIED.fullmatch(name)
    if varied is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(
            f"no architecture is called {name!r}; there are: {known}; and unet2d and unet2d-plain "
            f"of other depths and filters, as unet2d-depth5-filter5"
        )
    stages = int(varied[2] or unet2d.STAGES)
    variant = Variant(2, norm=varied[1] == "unet2d", kernel=int(varied[3] or 3))
    return _slices(partial(UNet2d, variant=variant, stages=stages), 1 << stages)


def axes_of(views: str) -> tuple[int, ...]:
    """List the axes that are looked along."""
    for known, axes in AXES.items():
        if known == views:
            return axes
    raise ParameterError(f"views are one of {', '.join(AXES)}, found {views!r}")


def turned(sizes: Zyx, axis: int) -> Zyx:
    """Put the number of slices, their rows and their columns on the axes of a volume.

    Examples
    --------
    >>> [turned((8, 512, 256), axis) for axis in range(3)]
    [(8, 512, 256), (512, 8, 256), (512, 256, 8)]
    """
    return zyx(sizes[TURNED[axis].index(k)] for k in range(3))


def check_centerline(name: str) -> None:
    """Check that networks of an architecture give centerlines, too."""
    if find_architecture(name).centerline:
        return
    able = ", ".join(sorted(n for n, form in ARCHITECTURES.items() if form.centerline))
    raise ModelError(
        f"networks of {name} give no centerlines, only a mask; those of {able} give both: choose "
        "such a model, or do without --store-centerline and --split centerline"
    )


def count_parameters(network: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def fill_network(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Load weights into a network, in place, for evaluation.

    Raises
    ------
    ModelError
        If names or shapes of the weights are not the network's.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModelError("the weights do not fit the network their card names") from error
    return network.eval()
