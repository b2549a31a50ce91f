"""Train the four networks that volseg ships, one after the other, each for the same time.

On one data-centre GPU, seven minutes each; the annotated volume is not part of the project
(see docs/models/emnet.md for whom to ask and to cite):

    python studies/train_weights.py train_raw.tif train_labels.tif --output weights --device cuda

Without arguments it rehearses all of that at toy size, on the crop that ships with the project: a
few steps of each network, thin ones, in a folder that is thrown away.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import volseg
from volseg.engine.progress import NoProgress
from volseg.models.registry import find_architecture
from volseg.stages.train.recipe import build_config
from volseg.stages.train.regions import Pair
from volseg.stages.train.run import TrainOptions, train

CROP = Path(__file__).parents[1] / "examples" / "crop"
VOXEL_SIZE = (5.0, 5.0, 5.0)
SLICES = 132
"""The first so many slices are trained on; the rest is held out."""
TERMS = "research use; Lucchi et al. 2012 and 2013 (EPFL CVLab); Casser et al., arXiv:1812.06024"
RECIPES: dict[str, dict[str, Any]] = {
    "emnet": {"width": 32, "patch": (64, 128, 128), "batch": 4, "centerline_weight": 5.0},
    "unet2d": {"width": 16, "patch": (1, 512, 512), "batch": 16},
    "attention-unet": {"width": 16, "patch": (1, 512, 512), "batch": 16},
    "unet3d": {"width": 16, "patch": (64, 128, 128), "batch": 4},
}
"""Widths that keep the package small; patches and batches for a GPU with 40 GB or more."""


def toy(name: str) -> dict[str, Any]:
    """Shrink a recipe until a laptop does it in seconds."""
    slices = find_architecture(name).dimensions == 2
    return {
        "width": 8 if name == "emnet" else 2,
        "patch": (1, 48, 48) if slices else (16, 32, 32),
        "batch": 2,
        "steps": 4,
        "validate_every": 4,
    }


def main() -> None:
    """Train them all and print how well each does on the slices that were held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, nargs="?", default=CROP / "raw.tif")
    parser.add_argument("labels", type=Path, nargs="?", default=CROP / "labels.tif")
    parser.add_argument("--output", type=Path, help="folder for the weights; needed but for a toy")
    parser.add_argument("--minutes", type=float, default=7.0, help="for each network")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_args()
    rehearsal = arguments.raw == CROP / "raw.tif"
    if arguments.output is None and not rehearsal:
        parser.error("give --output, a folder for the weights")
    with tempfile.TemporaryDirectory() as scratch:
        volume = Path(scratch) / "vol.zarr"
        volseg.convert(arguments.raw, volume, voxel_size=VOXEL_SIZE)
        held = "24:,0:96,0:96" if rehearsal else f"{SLICES}:,:,:"
        pair = Pair(volume, str(arguments.labels), validation=held)
        for name, recipe in RECIPES.items():
            given = toy(name) if rehearsal else {**recipe, "minutes": arguments.minutes}
            options = TrainOptions(
                output=(arguments.output or Path(scratch)) / name,
                config=build_config({"architecture": name, **given}),
                name=name,
                terms=TERMS,
                device=arguments.device,
            )
            report = train([pair], options, NoProgress())
            score, threshold = report.best["jaccard"], report.best["threshold"]
            print(
                f"{name}: {report.step} steps, Jaccard {score:.3f} at {threshold:.2f}", flush=True
            )


if __name__ == "__main__":
    main()
