"""Leave slices out of an annotated stack, to see from where on a network of slices does better.

    python studies/section_thickness.py train_raw.tif train_labels.tif emnet unet2d

Of slices that training did not see (z 132-164 of the EPFL training volume, rows 0-447, columns
0-639) every n-th is kept, and said to be n times as thick. Sections that were cut show an average
of what lies in them; these do not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import tifffile
from score_weights import Annotated, score

PART = (slice(132, 165), slice(0, 448), slice(0, 640))
VOXEL = 5.0
STEPS = (1, 2, 3, 4, 6, 7, 8, 10)


def main() -> None:
    """Print a line for each thickness and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("models", nargs="+", help="shipped names or paths of .safetensors files")
    arguments = parser.parse_args()
    raw, labels = (tifffile.imread(path)[PART] for path in (arguments.raw, arguments.labels))
    for step in STEPS:
        for model in arguments.models:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                for name, stack in (("raw.tif", raw), ("labels.tif", labels)):
                    tifffile.imwrite(
                        folder / name, stack[step // 2 :: step], photometric="minisblack"
                    )
                size = (VOXEL * step, VOXEL, VOXEL)
                place = Annotated(model, "raw.tif", "labels.tif", size, ":,:,:")
                found = score(model, place, folder, folder)
            print(
                f"{VOXEL * step:3.0f} nm {model}: Jaccard {found['Jaccard']:.3f}, at the best "
                f"threshold {found['Jaccard at the best threshold']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
