"""Compare a network of six classes with one of mitochondria alone: overlap, and processor time.

Reads ``epfl_classes`` and ``lucchi_pp`` of the annotated data (see its README). The first command
writes what training takes: the annotated slices, and a mask of each class. Slices 18 and 56 are
left out of training, because ``axons.tif`` marks all of them.

    python studies/classes.py ../shared/data --write epfl
    volseg train --config studies/classes.toml --images --data epfl/raw.tif=epfl --voxel-size 5 \
      --slices 0-17,19-30,32-47 --validation 43:48,:,: --from unet2d --output six --classes CLASSES
    volseg train ... --output one --classes mitochondria=mitochondria.tif
    python studies/classes.py ../shared/data --models six/six.safetensors one/one.safetensors

The second training takes the same recipe without its ``map_weights``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

import volseg
from volseg.geometry.grid import full_roi
from volseg.storage.cards import load_card
from volseg.storage.volumes import open_image, probabilities_path

CLASSES = (
    "mitochondria",
    "mitochondria_boundaries",
    "membranes",
    "synaptic_densities",
    "vesicles",
    "axons",
)
HELD_OUT = 134
"""Slices from this z on are held out."""
TIMED = np.index_exp[:, :512, :512]


def annotated(data: Path) -> tuple[list[int], NDArray[np.uint8]]:
    """Read the z of the annotated slices, and the slices."""
    slices = [int(z) for z in (data / "epfl_classes" / "slices.txt").read_text().split()]
    return slices, tifffile.imread(data / "lucchi_pp" / "train_raw.tif", key=slices)


def write(data: Path, folder: Path) -> None:
    """Write the slices, and masks of 0 and 1."""
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "raw.tif", annotated(data)[1])
    for name in CLASSES:
        mask = tifffile.imread(data / "epfl_classes" / f"{name}.tif") > 0
        tifffile.imwrite(folder / f"{name}.tif", mask.astype(np.uint8))
    print("--classes", ",".join(f"{name}={name}.tif" for name in CLASSES))


def score(data: Path, model: Path) -> None:
    """Print the Jaccard index of each class in the held-out slices, at the card's thresholds."""
    slices, raw = annotated(data)
    held = [k for k, z in enumerate(slices) if z >= HELD_OUT]
    card = load_card(model)
    with tempfile.TemporaryDirectory() as folder:
        stack, volume = Path(folder) / "raw.tif", Path(folder) / "vol.zarr"
        tifffile.imwrite(stack, raw[held])
        volseg.convert(stack, volume, voxel_size=(5, 5, 5))
        volseg.segment(volume, model=model, workers=1)
        for spec in card.maps:
            level = open_image(probabilities_path(volume, spec.name)).levels[0]
            threshold = card.threshold if spec is card.maps[0] else spec.threshold
            found = level[full_roi(level.shape)] >= threshold * 255
            truth = tifffile.imread(data / "epfl_classes" / f"{spec.name}.tif")[held] > 0
            both, either = (found & truth).sum(), (found | truth).sum()
            share = f"{both / either:.3f}" if truth.any() else "none in these slices"
            print(f"| {card.name} | {spec.name} | {truth.mean():.3f} | {share} |", flush=True)


def clock(data: Path, model: Path) -> None:
    """Print the processor time of segmenting all classes, and one of them."""
    raw = annotated(data)[1][TIMED][:8]
    with tempfile.TemporaryDirectory() as folder:
        stack = Path(folder) / "raw.tif"
        tifffile.imwrite(stack, raw)
        spent: dict[str, list[float]] = {"one": [], "six": []}
        for again in range(3):
            for name, classes in (("one", CLASSES[:1]), ("six", CLASSES)):
                volume = Path(folder) / f"{name}-{again}.zarr"
                volseg.convert(stack, volume, voxel_size=(5, 5, 5))
                begun = time.process_time()
                volseg.segment(volume, model=model, classes=classes, workers=1)
                spent[name].append(time.process_time() - begun)
    one, six = min(spent["one"][1:]), min(spent["six"][1:])
    print(f"one class {one:.2f} s, six classes {six:.2f} s: {six / one:.2f} times")


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--models", type=Path, nargs="+", default=())
    parser.add_argument("--time", type=Path)
    given = parser.parse_args()
    if given.write is not None:
        write(given.data, given.write)
    for model in given.models:
        score(given.data, model)
    if given.time is not None:
        clock(given.data, given.time)


if __name__ == "__main__":
    main()
