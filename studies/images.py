"""Score nuclei of unrelated images by the commands for all of them at once, and one by one.

    python studies/images.py dsb2018 --model nuclei.safetensors --first 532

``dsb2018`` holds ``raw_128.tif`` and ``instances_128.tif``, which are not part of the project.
Prints what `convert --images`, `segment`, `stats` and `evaluate` find in the images from
``--first`` on, the sum over volumes of one image each, and what the images give as one z-stack.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import tifffile

import volseg


def scored(
    folder: Path, raw: Any, truth: Any, model: Path, *, images: bool
) -> tuple[int, int, int, int]:
    """Count objects of the truth, found, matched at IoU 0.5, and in the table."""
    stack, known, volume = folder / "raw.tif", folder / "truth.tif", folder / "nuclei.zarr"
    for path, values in ((stack, raw), (known, truth)):
        tifffile.imwrite(path, values, photometric="minisblack")
    volseg.convert(stack, volume, voxel_size=(1, 1, 1), images=images, overwrite=True)
    views = {} if images else {"views": "xy"}
    volseg.segment(volume, model=model, overwrite=True, **views)
    measured = volseg.stats(volume).summary.objects
    found = volseg.evaluate(volume, truth=known).objects
    return found.truth, found.predicted, found.matched, measured


def main() -> None:
    """Print three lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    raw, truth = (tifffile.imread(given.data / f"{n}_128.tif") for n in ("raw", "instances"))
    raw, truth = raw[given.first :], truth[given.first :]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = {"all in one, --images": scored(folder, raw, truth, given.model, images=True)}
        single = [
            scored(folder, raw[k : k + 1], truth[k : k + 1], given.model, images=True)
            for k in range(len(raw))
        ]
        rows["one by one, added up"] = tuple(map(sum, zip(*single, strict=True)))
        rows["all in one, as a z-stack"] = scored(folder, raw, truth, given.model, images=False)
    print(f"{len(raw)} images: of the truth, found, matched at IoU 0.5, rows of the table")
    for name, counts in rows.items():
        print(f"| {name} | {' | '.join(map(str, counts))} |")


if __name__ == "__main__":
    main()
