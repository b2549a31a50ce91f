r"""Say how well the labels of a slice are told by those of its neighbours.

    python studies/label_agreement.py annotated/ncmir/train_labels.tif
    python studies/label_agreement.py annotated/lucchi_pp/train_labels.tif --every 5 --coarse 4

The outline halfway between those of the slices before and after (the mean of their signed
distances) is compared with the slice's own. Objects that are many slices deep change little from
one to the next, so what is missing to 1 is how much the annotation wavers: no network can be
expected to agree with it much better. ``--every`` and ``--coarse`` take slices and pixels as far
apart as those of another stack. Prints the mean and the range of the Jaccard index.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage


def signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure how far each pixel lies inside of a mask; negative outside."""
    inside: NDArray[np.float64] = ndimage.distance_transform_edt(mask)
    return inside - ndimage.distance_transform_edt(~mask)


def agreement(labels: NDArray[np.bool_]) -> list[float]:
    """Compare each slice, (z, y, x), but for the first and the last, with its neighbours' mean."""
    distances = [signed_distance(mask) for mask in labels]
    found = []
    for before, mask, after in zip(distances, labels[1:], distances[2:], strict=False):
        between = before + after > 0
        found.append(float((between & mask).sum() / max((between | mask).sum(), 1)))
    return found


def main() -> None:
    """Print the agreement of one stack of labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th slice")
    parser.add_argument("--coarse", type=int, default=1, metavar="N", help="take every N-th pixel")
    given = parser.parse_args()
    labels = tifffile.imread(given.labels)[:: given.every, :: given.coarse, :: given.coarse] > 0
    found = agreement(labels)
    print(f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f}), {len(found)} slices")


if __name__ == "__main__":
    main()
