"""Volumes whose slices are unrelated images, as ``volseg convert --images`` notes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from volseg.storage.ome import IMAGES
from volseg.storage.volumes import Image


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


def sizes_of(image: Image) -> tuple[tuple[int, int], ...]:
    """List the (y, x) that each unrelated image has of its slice; empty where all have it whole."""
    noted = image.attributes.get(IMAGES)
    sizes = noted.get("sizes", ()) if isinstance(noted, Mapping) else ()
    return tuple((int(y), int(x)) for y, x in sizes)
