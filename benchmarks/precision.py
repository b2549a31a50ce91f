"""Measure what bfloat16 does to probabilities, on the bundled crop.

python benchmarks/precision.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from volseg.engine.memory import keep_freed_memory
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.stages.convert.run import ConvertOptions, convert
from volseg.stages.predict.plan import PredictOptions
from volseg.stages.predict.run import predict
from volseg.storage.volumes import open_image, probabilities_path
from volseg.storage.weights import load_card

CROP = Path(__file__).parents[1] / "examples" / "crop"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emnet")
    parser.add_argument("--source", type=Path, default=CROP / "raw.tif")
    parser.add_argument("--truth", type=Path, default=CROP / "labels.tif")
    arguments = parser.parse_args()
    keep_freed_memory()
    truth, found = tifffile.imread(arguments.truth) > 0, {}
    level = round(load_card(arguments.model).threshold * 255)
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "vol.zarr"
        convert(arguments.source, volume, ConvertOptions(voxel_size=(5.0, 5.0, 5.0)), NoProgress())
        for precision in ("float32", "bfloat16"):
            options = PredictOptions(model=arguments.model, name=precision, precision=precision)
            predict(volume, options, NoProgress())
            array = open_image(probabilities_path(volume, precision)).levels[0]
            found[precision] = array[full_roi(array.shape)]
    exact, fast = (found[p].astype(int) for p in ("float32", "bfloat16"))
    difference = np.abs(fast - exact)
    print("probabilities in bfloat16 less those in float32, in steps of 1/255:")
    print(
        f"mean {difference.mean():.4f}, 99.9th percentile {np.percentile(difference, 99.9):.0f}, "
    )
    print(f"largest {difference.max()}")
    sides = np.mean((fast >= level) != (exact >= level))
    print(f"voxels on the other side of the threshold: {sides:.5%}")
    for precision, probabilities in found.items():
        mask = probabilities >= level
        jaccard = np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)
        print(f"{precision}: Jaccard index {jaccard:.4f}")


if __name__ == "__main__":
    main()
