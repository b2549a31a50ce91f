"""Count how often each way of splitting cuts a nucleus, and parts what touches.

Reads ``dsb2018/instances_128.tif`` of the annotated data (see its README), of which the folder is
the first argument. Prints one line for each way: single nuclei that were cut, components of
touching nuclei by the number of their pieces, and groups of balls and discs of known number.

    python studies/score_splitting.py ../shared/data
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from volseg.objects.splitting import Splitter
from volseg.types import Mask

WAYS = Splitter("distance"), Splitter("distance", depth=0.75), Splitter("kmeans")
IMAGES = 60
NEIGHBOURS = np.ones((3, 3))


def nuclei(path: Path) -> Iterator[tuple[int, Mask]]:
    """Cut out single nuclei, and components of touching ones, with their number."""
    instances = tifffile.imread(path)
    for image in instances[np.random.default_rng(0).choice(len(instances), IMAGES, replace=False)]:
        for number in np.unique(image)[1:]:
            one = image == number
            if one.sum() >= 20 and ndimage.label(one, NEIGHBOURS)[1] == 1:
                yield 1, one[ndimage.find_objects(one.astype(int))[0]][None]
        components, _ = ndimage.label(image > 0, NEIGHBOURS)
        for component, box in enumerate(ndimage.find_objects(components), 1):
            here = components[box] == component
            touching = int((np.unique(image[box][here], return_counts=True)[1] >= 10).sum())
            if touching > 1:
                yield touching, here[None]


def balls() -> Iterator[tuple[int, Mask]]:
    """Draw rows and blocks of balls and discs of a radius of 8 that touch or overlap."""
    for apart in (13, 14, 15, 16):
        for counts in (*((1, 1, n) for n in (2, 3, 5, 8, 11)), (2, 2, 2), (3, 3, 3), (1, 3, 3)):
            at = np.indices([18 + apart * (n - 1) for n in counts])
            centres = [9 + apart * np.array(c) for c in product(*map(range, counts))]
            away = [((at - c[:, None, None, None]) ** 2).sum(0) < 64 for c in centres]
            group: Mask = np.any(away, axis=0)
            yield len(centres), group
            if counts[:2] == (1, 1) or counts == (1, 3, 3):
                yield len(centres), group[9:10]


def main(data: Path) -> None:
    """Print the table."""
    found = [*nuclei(data / "dsb2018" / "instances_128.tif")]
    groups = [*balls()]
    for way in WAYS:
        pieces = [(number, int(way(mask).max())) for number, mask in found]
        single = [n for number, n in pieces if number == 1]
        touching = [(number, n) for number, n in pieces if number > 1]
        known = sum(int(way(mask).max()) == number for number, mask in groups)
        print(
            f"{way.method} {way.depth:g}: cut {sum(n > 1 for n in single)} of {len(single)}; "
            f"touching: right {sum(n == number for number, n in touching)}, "
            f"cut {sum(n > 1 for _, n in touching)}, "
            f"too many {sum(n > number for number, n in touching)} of {len(touching)}; "
            f"known: {known} of {len(groups)}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
