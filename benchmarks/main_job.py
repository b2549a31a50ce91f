"""Run the main job as a user does, and measure time, peak memory, count and accuracy.

The three commands run one after the other, each in a process of its own. With ``--truth``, the
labels are compared with an annotation: objects of at least ``--min-size`` voxels, and the Jaccard
index on the slices ``--held-out``. With ``--deep N`` it runs again on N copies, mirrored and on top
of each other: what a command takes should not grow.

    python benchmarks/main_job.py                      # the bundled crop
    python benchmarks/main_job.py --source raw.tif --truth labels.tif --held-out 132:165 --deep 4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import tifffile

from volseg.storage.volumes import labels_path, open_image

CROP = Path(__file__).parents[1] / "examples" / "crop"
NAME = "mitochondria"


def run(*words: str | Path) -> dict[str, Any]:
    """Run a command; return its report, seconds, and the peak of its memory in MB."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "volseg", *map(str, words), "--json", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        output = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {process.returncode}: {output!r}")
    seconds, megabytes = time.perf_counter() - begun, usage.ru_maxrss / 1024
    processor = usage.ru_utime + usage.ru_stime
    print(
        f"{words[0]:8} {seconds:8.1f} s   processor {processor:8.1f} s   peak {megabytes:6.0f} MB",
        flush=True,
    )
    return {"report": json.loads(output), "seconds": seconds, "megabytes": megabytes}


def main_job(source: Path, volume: Path, options: list[str]) -> dict[str, dict[str, Any]]:
    """Run the three commands."""
    return {
        "convert": run("convert", source, volume, "--voxel-size", "5,5,5"),
        "segment": run("segment", volume, *options),
        "stats": run("stats", volume),
    }


def stack_up(source: Path, target: Path, copies: int) -> None:
    """Write a stack that is ``copies`` times as deep, every other copy upside down."""
    with tifffile.TiffFile(source) as file, tifffile.TiffWriter(target, bigtiff=True) as writer:
        for copy in range(copies):
            for page in file.pages if copy % 2 == 0 else reversed(list(file.pages)):
                writer.write(page.asarray(), contiguous=True)


def compare(volume: Path, truth_path: Path, held_out: str | None, min_size: int) -> None:
    """Print counts beside the annotation's, and the Jaccard index."""
    truth = tifffile.imread(truth_path) > 0
    objects = cc3d.connected_components(truth, connectivity=26)
    sizes = np.bincount(objects.reshape(-1))
    stored = open_image(labels_path(volume, NAME)).levels[0]
    labels = stored[0 : stored.shape[0]]
    found_sizes = np.bincount(labels.reshape(-1))
    both = truth & (labels > 0)
    pairs, shared = np.unique(np.stack([objects[both], labels[both]]), axis=1, return_counts=True)
    unions = sizes[pairs[0]] + found_sizes[pairs[1]] - shared
    matched = np.count_nonzero((2 * shared > unions) & (sizes[pairs[0]] >= min_size))
    false = len(found_sizes) - 1 - len(np.unique(pairs[1]))
    print(
        f"annotated objects of at least {min_size} voxels: "
        f"{np.count_nonzero(sizes[1:] >= min_size)}; matched at IoU above 0.5: {matched}; "
        f"objects found that touch no annotated one: {false}"
    )
    start, stop = (int(v) for v in held_out.split(":")) if held_out else (0, len(truth))
    for name, part in ((f"z {start}:{stop}", slice(start, stop)), ("all slices", slice(None))):
        found, wanted = labels[part] > 0, truth[part]
        jaccard = np.count_nonzero(found & wanted) / np.count_nonzero(found | wanted)
        print(f"Jaccard index on {name}: {jaccard:.4f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=CROP / "raw.tif")
    parser.add_argument("--truth", type=Path, default=CROP / "labels.tif")
    parser.add_argument("--held-out", help="slices that no training saw, such as 132:165")
    parser.add_argument("--min-size", type=int, default=500)
    parser.add_argument("--deep", type=int, default=0)
    parser.add_argument("--model", help="as `segment` takes it; what it chooses by default")
    parser.add_argument("--device", default="auto", help="as `segment` takes it")
    parser.add_argument("--keep", type=Path, help="keep the volume in this folder")
    arguments = parser.parse_args()
    options = ["--min-size", str(arguments.min_size), "--device", arguments.device]
    if arguments.model:
        options += ["--model", arguments.model]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        once = main_job(arguments.source, folder / "vol.zarr", options)
        if arguments.deep:
            deep = Path(temporary) / "deep.tif"
            stack_up(arguments.source, deep, arguments.deep)
            again = main_job(deep, Path(temporary) / "deep.zarr", options)
            for command, found in again.items():
                ratio = found["megabytes"] / once[command]["megabytes"]
                print(f"{command:8} {arguments.deep} times as deep: {ratio:.2f} times the memory")
        # last, because the memory of this process counts as its children's where they begin
        (row,) = once["stats"]["report"]
        print(f"objects: {row['objects']}, of which {row['touching_border']} reach the border")
        compare(folder / "vol.zarr", arguments.truth, arguments.held_out, arguments.min_size)


if __name__ == "__main__":
    main()
