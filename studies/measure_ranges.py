"""Measure what the convolutions of a 2D network receive on annotated stacks, for its card.

    python studies/measure_ranges.py unet2d.safetensors stack.tif --voxel-size 5 5 5

``segment --device openvino --precision int8`` needs these numbers. The card beside the weights gets
them. Slices along z are resampled to the network's voxels; give what it was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy import ndimage
from torch import Tensor

from volseg.exchange.export_network import load_network
from volseg.models.compiled import measure_ranges
from volseg.storage.cards import update_card
from volseg.voxels.intensity import Tone

SLICES, SIDE = 6, 512


def inputs(
    path: Path,
    size: tuple[float, ...],
    card_size: tuple[float, ...],
    percentiles: tuple[float, float],
) -> list[Tensor]:
    """Cut the middles of some slices, at the network's scale and in its intensities."""
    stack = np.asarray(tifffile.imread(path))
    low, high = np.percentile(stack, percentiles)
    tone = Tone((float(low), float(high)))
    cut = []
    for z in np.linspace(0, len(stack) - 1, min(SLICES, len(stack))).astype(int):
        seen = tone(stack[z])
        if not np.isclose(size[1], card_size[1], rtol=0.1):
            seen = ndimage.zoom(seen, size[1] / card_size[1], order=1)
        y, x = (min(n // 16 * 16, SIDE) for n in seen.shape)
        cut.append(torch.from_numpy(np.ascontiguousarray(seen[None, None, :y, :x], np.float32)))
    return cut


def main() -> None:
    """Measure the ranges over all stacks, and write them into the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("stacks", type=Path, nargs="+")
    parser.add_argument("--voxel-size", type=float, nargs="+", help="z, y, x of each stack, nm")
    given = parser.parse_args()
    network = load_network(given.weights)
    card = network.card
    sizes = np.reshape(given.voxel_size, (len(given.stacks), 3)).tolist()
    seen = [
        each
        for path, size in zip(given.stacks, sizes, strict=True)
        for each in inputs(path, size, card.voxel_size, card.preprocessing.percentiles)
    ]
    found = measure_ranges(network.logits, seen)
    ranges = {name: [float(f"{v:.4g}") for v in ends] for name, ends in found.items()}
    update_card(given.weights, {"ranges": ranges})
    print(f"{given.weights.stem}: ranges of {len(ranges)} convolutions on {len(seen)} slices")


if __name__ == "__main__":
    main()
