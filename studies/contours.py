"""Split mitochondria of the held-out slices of lucchi_pp by contours, and count what is lost.

Reads ``lucchi_pp`` of the annotated data (see its README), z 132 to 164, seen along all axes and
along z. The
weights learned contours on z 0 to 131; settings were chosen on z 149 to 164:

    volseg train train_raw.tif --labels train_labels.tif --voxel-size 5 --from unet2d \
      --classes mitochondria --auxiliary contour --roi 0:132,:,: --validation 149:165,:,: \
      --steps 200 --learning-rate 1e-3 --validate-every 200 --output contours
    python studies/contours.py ../shared/data --model contours/contours.safetensors
    python studies/contours.py ../shared/data --model unet2d --splits none
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile

import volseg

HELD_OUT = range(132, 165)
VIEWS = "ortho", "xy"
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"min_size": 1000},
    {"min_size": 1000, "min_probability": 0},
)
"""Those of the card, and others."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--splits", nargs="+", default=("contour", "none"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw, truth, volume = (Path(folder) / n for n in ("raw.tif", "truth.tif", "vol.zarr"))
        for name, path in (("train_raw.tif", raw), ("train_labels.tif", truth)):
            read = tifffile.imread(given.data / "lucchi_pp" / name, key=HELD_OUT)
            tifffile.imwrite(path, read, photometric="minisblack")
        volseg.convert(raw, volume, voxel_size=(5, 5, 5))
        for views in VIEWS:
            split = given.splits[0]
            volseg.segment(
                volume, model=given.model, split=split, views=views, overwrite=True, workers=1
            )
            print_rules(volume, truth, views, given.splits)


def print_rules(volume: Path, truth: Path, views: str, splits: Sequence[str]) -> None:
    """Label by each set of rules, split and whole, and print what is lost."""
    for rules in RULES:
        for split in splits:
            volseg.label(volume, split=split, overwrite=True, workers=1, **rules)
            found = volseg.evaluate(volume, truth=truth, min_size=0)
            objects, wrong = found.objects, found.errors.counts
            print(
                f"| {views}, {rules} | `{split}` | {found.foreground.jaccard:.3f} "
                f"| {objects.predicted} | {objects.matched} of {objects.truth} "
                f"| {wrong.false} | {wrong.split} | {wrong.merged} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
