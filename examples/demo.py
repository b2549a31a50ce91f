"""The README's three commands on a real crop, their score, and a picture to judge it by.

Run it with ``make demo``, or ``python examples/demo.py [FOLDER]`` where volseg is installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

import volseg
from volseg.types import Mask

CROP = Path(__file__).parent / "crop"
ORANGE, CYAN = (255, 140, 0), (0, 220, 255)
GAP = 8


def run(*arguments: str | Path) -> None:
    """Run a volseg command as a user would; stop where it fails."""
    words = ["volseg", *map(str, arguments)]
    print("\n$", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def outlines(labels: NDArray[np.integer]) -> Mask:
    """Mark the pixels of objects, shape (y, x), whose right or lower neighbour is another."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[:-1] != labels[1:], labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= down
    edge[1:] |= down
    edge[:, :-1] |= right
    edge[:, 1:] |= right
    marked: Mask = edge & (labels != 0)
    return marked


def overlay(
    raw: NDArray[np.uint8], prediction: NDArray[np.integer], truth: NDArray[np.integer]
) -> NDArray[np.uint8]:
    """Put one slice side by side: raw, raw with the prediction, raw with the truth.

    Parameters
    ----------
    raw, prediction, truth : shape (y, x)

    Returns
    -------
    uint8, shape (y, 3 x + 2 gaps, 3)
        Red, green, blue.
    """
    grey = np.repeat(raw[..., None], 3, axis=2)
    panels = [grey.copy() for _ in range(3)]
    panels[1][outlines(prediction)] = ORANGE
    panels[2][outlines(truth)] = CYAN
    gap = np.full((raw.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def main(folder: Path) -> None:
    """Run the three commands on the crop, and compare the result with the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = folder / "crop.zarr"
    run("convert", CROP / "raw.tif", volume, "--voxel-size", "5,5,5", "--overwrite")
    run("segment", volume, "--model", "emnet")
    run("stats", volume)

    opened, truth = volseg.open(volume), tifffile.imread(CROP / "labels.tif")
    middle = opened.shape[0] // 2
    labels = opened.labels["mitochondria"][middle]
    picture = folder / "overlay.png"
    pixels = overlay(opened.raw[middle], labels, truth[middle])
    picture.write_bytes(imagecodecs.png_encode(pixels))
    score = volseg.evaluate(volume, truth=CROP / "labels.tif").foreground.jaccard
    print(f"\nJaccard index against the truth that came with the crop: {score:.3f}")
    print(f"{picture}: slice {middle}; raw, prediction (orange), truth (cyan)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output"))
