"""Compare what likeness says of slices as a volume, and as unrelated images.

    python studies/image_likeness.py annotated --model unet2d-general unet2d

``annotated`` is that of leave_one_out.py. For what is held out of each data set, prints how far it
is from the training data, and the ratio of the precision of voxels to their mean probability at a
threshold of 0.5, once with the brightness of the whole stack, and once of each slice by itself.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from annotated import SETS, DataSet

import volseg
from volseg.geometry.grid import full_roi
from volseg.storage.volumes import labels_path, open_image, probabilities_path
from volseg.types import FULL_PROBABILITY

THRESHOLD = 0.5


def read_part(data: Path, known: DataSet, most: int) -> list[Any]:
    """Read raw and labels of what is held out, of every so many slices if there are many."""
    names = known.more or (known.raw, known.labels)
    stacks = [tifffile.imread(data / name) for name in names]
    if known.validation:
        first, last = map(int, known.validation.split(",")[0].split(":"))
        stacks = [stack[first:last] for stack in stacks]
    return [stack[:: max(len(stack) // most, 1)] for stack in stacks]


def look(
    folder: Path, part: list[Any], known: DataSet, model: str, images: bool
) -> tuple[dict[str, Any], float]:
    """Segment a part, and return what is noted of its tissue, and the ratio."""
    paths = [folder / f"{name}.tif" for name in ("raw", "truth")]
    for path, values in zip(paths, part, strict=True):
        tifffile.imwrite(path, values, photometric="minisblack")
    volume, rules = folder / "v.zarr", {"min_size": 0, "min_probability": 0, "threshold": THRESHOLD}
    size = known.voxel_size
    volseg.convert(paths[0], volume, voxel_size=size, images=images, overwrite=True)
    views = {} if images else {"views": "xy"}
    volseg.segment(volume, model=model, overwrite=True, **rules, **views)
    precision = volseg.evaluate(volume, truth=paths[1], min_size=0).foreground.precision
    array = open_image(probabilities_path(volume, "mitochondria")).levels[0]
    found = np.asarray(array[full_roi(array.shape)])
    sure = found[found >= THRESHOLD * FULL_PROBABILITY].mean() / FULL_PROBABILITY
    noted = open_image(labels_path(volume, "mitochondria")).attributes["tissue"]
    return noted, precision / float(sure)


def main() -> None:
    """Print a row for each part and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", nargs="+", default=["unet2d-general"])
    parser.add_argument("--slices", type=int, default=11, help="of a part, at most about so many")
    given = parser.parse_args()
    print("| model | part | distance, volume | images | ratio, volume | images |")
    print("|---|---|---|---|---|---|")
    for model in given.model:
        for name, known in SETS.items():
            part = read_part(given.data, known, given.slices)
            with tempfile.TemporaryDirectory() as scratch:
                rows = [look(Path(scratch), part, known, model, images) for images in (False, True)]
            distances = " | ".join(f"{n.get('distance')} {n['likeness']}" for n, _ in rows)
            ratios = " | ".join(f"{ratio:.3f}" for _, ratio in rows)
            print(f"| `{model}` | `{name}` | {distances} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
