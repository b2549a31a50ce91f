"""Measure evaluation, Zarr to scores, against scikit-image on arrays read whole.

The truth is the annotation of the bundled crop, its components numbered, mirrored side by side; the
prediction is the same, moved by two voxels, with every seventh object missing and some noise. Both
sides read the same two arrays and compute the contingency table, the adapted Rand error and the
variation of information; volseg also matches objects at eleven thresholds and lists the errors.
Each contestant runs in a process of its own, in turn, so that peak memory can be told apart;
start-up and imports are not counted.

    python benchmarks/evaluate.py --tiles 4,2,2 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from _contestants import parser_of, peak_megabytes, print_peers, take_turns
from scipy import ndimage
from skimage.metrics import adapted_rand_error, contingency_table, variation_of_information

from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.stages.evaluate.plan import EvaluateOptions, plan_evaluation
from volseg.stages.evaluate.run import evaluate
from volseg.storage.arrays import fit_spec
from volseg.storage.volumes import create_image, labels_path, open_image, register_label

TRUTH = Path(__file__).parents[1] / "examples" / "crop" / "labels.tif"
CONTESTANTS = ("volseg", "scikit-image", "scikit-image, table once")
PREDICTION = "mitochondria"
NOISE = 1e-4


def make_volume(volume: Path, tiles: tuple[int, int, int]) -> None:
    """Write a truth and a prediction that looks like a real one."""
    crop = tifffile.imread(TRUTH) > 0
    shape = tuple(n * t for n, t in zip(crop.shape, tiles, strict=True))
    wide = np.pad(
        crop,
        [(0, (t - 1) * n) for n, t in zip(crop.shape, tiles, strict=True)],
        mode="symmetric",
    )
    truth = np.empty(shape, np.uint32)
    ndimage.label(wide, np.ones((3, 3, 3)), output=truth)
    predicted = np.roll(truth, 2, axis=2)
    predicted[predicted % 7 == 0] = 0
    specks = np.random.default_rng(0).random(shape) < NOISE
    predicted[specks] = truth.max() + 1 + np.arange(np.count_nonzero(specks), dtype=np.uint32)
    create_image(volume, fit_spec(shape, "uint8"), (5.0, 5.0, 5.0), attributes={})
    for name, labels in (("truth", truth), (PREDICTION, predicted)):
        spec = fit_spec(shape, "uint32")
        image = create_image(labels_path(volume, name), spec, None, label=True, attributes={})
        image.levels[0].write(full_roi(shape), labels)
        register_label(volume, name)


def run(contestant: str, volume: Path, workers: int) -> dict[str, float]:
    """Evaluate once; return seconds, scores, and peak memory in MB beyond that at the start."""
    idle = peak_megabytes()
    begun = time.perf_counter()
    if contestant == "volseg":
        options = EvaluateOptions("truth", engine=EngineOptions(workers=workers))
        found = evaluate(plan_evaluation(volume, options), NoProgress())
        error, split, merge = found.rand.error, found.variation.split, found.variation.merge
    else:
        truth, predicted = (_read(volume, name) for name in ("truth", PREDICTION))
        if contestant == "scikit-image":
            contingency_table(truth, predicted)
            error = adapted_rand_error(truth, predicted)[0]
            split, merge = variation_of_information(truth, predicted)
        else:
            table = contingency_table(truth, predicted, sparse_type="array")
            shares = table / table.sum()
            split, merge = variation_of_information(truth, predicted, table=shares)
            # the Rand error leaves out the background of the truth: the first row
            table.data[: table.indptr[1]] = 0
            error = adapted_rand_error(table=table)[0]
    seconds = time.perf_counter() - begun
    scores = {"error": float(error), "split": float(split), "merge": float(merge)}
    return {"seconds": seconds, **scores, "megabytes": peak_megabytes() - idle}


def _read(volume: Path, name: str) -> np.ndarray:
    source = open_image(labels_path(volume, name)).levels[0]
    return source[full_roi(source.shape)]


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, CONTESTANTS)
    parser.add_argument("--tiles", default="4,2,2", help="crops of 32 x 384 x 384 per axis")
    parser.add_argument("--volume", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run(arguments.only, arguments.volume, arguments.workers)))
        return
    z, y, x = (int(t) for t in arguments.tiles.split(","))
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "vol.zarr"
        make_volume(volume, (z, y, x))
        voxels = float(np.prod(open_image(volume).levels[0].shape))
        results = take_turns(CONTESTANTS, volume, arguments)
    print_peers(results, voxels, "adapted Rand error {error:.6f}", "{:24} {:6.1f}")


if __name__ == "__main__":
    main()
