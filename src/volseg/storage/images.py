"""Volumes whose slices are unrelated images, as ``volseg convert --images`` notes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from volseg.storage.named import NamedImage
from volseg.storage.ome import IMAGES
from volseg.storage.volumes import Image
from volseg.types import Roi


def as_images(image: Image, *, asked: bool = True) -> Image:
    """Take slices as unrelated images; levels that average several of them are left out."""
    if not asked or image.space.planar:
        return image
    kept = [k for k, factor in enumerate(image.factors) if factor[0] == 1]
    return replace(
        image,
        levels=tuple(image.levels[k] for k in kept),
        factors=tuple(image.factors[k] for k in kept),
        space=replace(image.space, planar=True),
    )


def images_in(image: Image) -> tuple[tuple[int, int], ...] | None:
    """List the (y, x) of the unrelated images that slices are; None of a volume."""
    depth, height, width = image.levels[0].shape
    return (sizes_of(image) or ((height, width),) * depth) if image.space.planar else None


def names_of(image: Image | NamedImage) -> tuple[str, ...]:
    """List the names of the unrelated images that slices are; empty where they have none."""
    noted = image.attributes.get(IMAGES)
    return tuple(map(str, noted.get("names", ()))) if isinstance(noted, Mapping) else ()


def sizes_of(image: Image | NamedImage) -> tuple[tuple[int, int], ...]:
    """List the (y, x) that each unrelated image has of its slice; empty where all have it whole."""
    noted = image.attributes.get(IMAGES)
    sizes = noted.get("sizes", ()) if isinstance(noted, Mapping) else ()
    return tuple((int(y), int(x)) for y, x in sizes)


def clear_padding(box: NDArray[Any], roi: Roi, sizes: Sequence[tuple[int, int]]) -> None:
    """Set to 0 what lies beyond the (y, x) of its image, in a box that was read.

    Examples
    --------
    >>> import numpy as np
    >>> box = np.ones((2, 1, 3), int)
    >>> clear_padding(box, (slice(1, 3), slice(0, 1), slice(2, 5)), [(1, 5), (1, 4), (0, 5)])
    >>> box.tolist()
    [[[1, 1, 0]], [[0, 0, 0]]]
    """
    z, y, x = roi
    # of a volume there are no sizes
    for plane, (height, width) in zip(box, sizes[z], strict=False):
        plane[max(height - y.start, 0) :] = 0
        plane[:, max(width - x.start, 0) :] = 0
