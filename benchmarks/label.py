"""Measure labelling, Zarr to Zarr, against scipy and cc3d on the whole volume in memory.

The volume is the annotation of the bundled crop, softened, mirrored side by side. Each contestant
runs in a process of its own, in turn, so that peak memory can be told apart; start-up and imports
are not counted. All of them leave the same image, pyramid included; those that hold all labels in
memory make theirs from there, with volseg's own reduction.

    python benchmarks/label.py --tiles 8,6,6 --repeats 3    # scipy and cc3d take 7.4 GB
    python benchmarks/label.py --tiles 4,6,6 --measured     # Zarr to table
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import cc3d
import numpy as np
import tifffile
from _contestants import parser_of, peak_megabytes, print_peers, take_turns
from scipy import ndimage
from skimage.measure import regionprops_table

from volseg.engine.memory import keep_freed_memory
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats
from volseg.storage.arrays import fit_spec
from volseg.storage.tables import write_table
from volseg.storage.volumes import (
    create_image,
    labels_path,
    open_image,
    probabilities_path,
    scratch_path,
)
from volseg.voxels.downsample import reduce_labels

TRUTH = Path(__file__).parents[1] / "examples" / "crop" / "labels.tif"
CONTESTANTS = ("volseg", "cc3d", "scipy")
NAME = "mitochondria"


def make_volume(volume: Path, tiles: tuple[int, int, int]) -> None:
    """Write probabilities that look like a real prediction."""
    truth = (tifffile.imread(TRUTH) > 0).astype(np.float32)
    soft = (ndimage.gaussian_filter(truth, 1.5) * 255).astype(np.uint8)
    shape = tuple(n * t for n, t in zip(soft.shape, tiles, strict=True))
    attributes = {
        "complete": True,
        "fingerprint": "benchmark",
        "run": {"roi": [[0, n] for n in shape]},
        "model": {"threshold": 0.5},
    }
    create_image(volume, fit_spec(shape, "uint8"), (5.0, 5.0, 5.0), attributes={})
    path = probabilities_path(volume, NAME)
    array = create_image(
        path, fit_spec(shape, "uint8"), (5.0, 5.0, 5.0), attributes=attributes
    ).levels[0]
    row = np.pad(
        soft,
        [(0, 0), *((0, (t - 1) * n) for n, t in zip(soft.shape[1:], tiles[1:], strict=True))],
        mode="symmetric",
    )
    pair = np.concatenate([row, row[::-1]])
    for z in range(0, shape[0], len(pair)):
        stop = min(z + len(pair), shape[0])
        array.write((slice(z, stop), *full_roi(shape)[1:]), pair[: stop - z])


def run(contestant: str, volume: Path, workers: int, *, measured: bool) -> dict[str, float]:
    """Label once; return seconds, objects, and peak memory in MB beyond that at the start."""
    idle = peak_megabytes()
    shutil.rmtree(labels_path(volume, NAME), ignore_errors=True)
    shutil.rmtree(scratch_path(volume), ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=volume.parent) as folder:
        begun = time.perf_counter()
        if contestant == "volseg":
            options = LabelOptions(engine=EngineOptions(workers=workers))
            objects = label(plan_labels(volume, NAME, options), NoProgress()).objects
            if measured:
                basic = StatsOptions(engine=EngineOptions(workers=workers), measure="basic")
                stats(plan_stats(volume, basic), NoProgress())
        else:
            source = open_image(probabilities_path(volume, NAME)).levels[0]
            mask = source[full_roi(source.shape)] >= 128
            if contestant == "cc3d":
                labels, objects = cc3d.connected_components(mask, connectivity=26, return_N=True)
            else:
                labels = np.empty(mask.shape, np.uint32)
                objects = ndimage.label(mask, np.ones((3, 3, 3)), output=labels)
            write_labels(Path(folder) / "labels", labels)
            if measured:
                found = regionprops_table(labels, properties=("label", "area", "bbox", "centroid"))
                write_table(Path(folder) / "objects.parquet", found, {}, {})
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "objects": objects, "megabytes": peak_megabytes() - idle}


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels that are in memory, and their pyramid."""
    spec = fit_spec(labels.shape, labels.dtype.name)
    image = create_image(path, spec, (5.0, 5.0, 5.0), label=True, attributes={})
    image.levels[0].write(full_roi(labels.shape), labels)
    for k in range(1, len(image.levels)):
        pairs = zip(image.factors[k], image.factors[k - 1], strict=True)
        z, y, x = (round(a / b) for a, b in pairs)
        labels = reduce_labels(labels, (z, y, x))
        image.levels[k].write(full_roi(labels.shape), labels)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, CONTESTANTS)
    parser.add_argument("--tiles", default="8,6,6", help="crops of 32 x 384 x 384 per axis")
    parser.add_argument(
        "--measured",
        action="store_true",
        help="and measure: regionprops_table for peers",
    )
    parser.add_argument("--volume", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        keep_freed_memory()  # as the command line does
        found = run(
            arguments.only, arguments.volume, arguments.workers, measured=arguments.measured
        )
        print(json.dumps(found))
        return
    z, y, x = (int(t) for t in arguments.tiles.split(","))
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "vol.zarr"
        make_volume(volume, (z, y, x))
        voxels = float(np.prod(open_image(volume).levels[0].shape))
        measured = ("--measured",) if arguments.measured else ()
        results = take_turns(CONTESTANTS, volume, arguments, *measured)
    print_peers(results, voxels, "{objects} objects", "{:7} {:6.0f}")


if __name__ == "__main__":
    main()
