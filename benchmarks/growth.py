"""Measure how time and memory grow with a volume, command by command, and draw both.

Each command runs in a process of its own, start-up included, on volumes of the same kind: 8, 67
and 268 million voxels, with `--sizes 5` 1.1 and 8.6 gigavoxels too. `convert`, `segment` and
`verify` work on copies of the bundled crop, the others on what `_large_volume.py` draws. `segment`
looks along one axis; from 268 million voxels on a mask leaves it 8 million, which take a minute:
its memory is that of the whole volume, and its time is drawn where it sees all.

    python benchmarks/growth.py --rows rows.jsonl
    python benchmarks/growth.py --rows rows.jsonl --draw docs/images/growth.png
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from _large_volume import make_volume
from large import COMMANDS, run

CROP = Path(__file__).parents[1] / "examples" / "crop" / "raw.tif"
SHAPES = (
    (64, 256, 512),
    (128, 512, 1024),
    (256, 512, 2048),
    (512, 1024, 2048),
    (1024, 2048, 4096),
)
SEGMENTED = 100e6
"""Voxels of the largest volume of which `segment` evaluates all."""
PART = (64, 256, 512)
"""What it evaluates of larger ones."""
MASKED = 16
"""Voxels of a volume along each axis to one of the mask."""
JOBS = ("convert", "segment", *COMMANDS, "verify")
SEGMENT = ["segment", "--model", "unet2d"]
COMMANDS["segment"] = SEGMENT
COMMANDS["verify"] = ["verify", "--sample", "0"]


def write_stack(path: Path, shape: tuple[int, ...]) -> None:
    """Write copies of the crop, slice by slice."""
    crop = tifffile.imread(CROP)
    times = [-(-n // m) for n, m in zip(shape[1:], crop.shape[1:], strict=True)]
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for z in range(shape[0]):
            plane = np.tile(crop[z % len(crop)], times)[: shape[1], : shape[2]]
            writer.write(plane, contiguous=True, photometric="minisblack")


def write_mask(path: Path, shape: tuple[int, ...]) -> None:
    """Write a coarse mask of the first voxels of a volume, as many as `PART`."""
    mask = np.zeros([n // MASKED for n in shape], np.uint8)
    mask[tuple(slice(n // MASKED) for n in PART)] = 1
    tifffile.imwrite(path, mask, photometric="minisblack")


def measure(shape: tuple[int, ...], jobs: list[str], rows: Path) -> None:
    """Run all jobs on a volume; add a row for each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        volume = folder / "vol.zarr"
        if not {"convert", "segment"}.issuperset(jobs):
            make_volume(volume, shape)
        for job in jobs:
            place, counted = volume, math.prod(shape)
            if job in {"segment", "verify"}:
                place = folder / "out.zarr"  # of `convert`, which comes before
            if job == "segment" and counted > SEGMENTED:
                write_mask(folder / "mask.tif", shape)
                COMMANDS[job] = [*SEGMENT, "--mask", str(folder / "mask.tif")]
                counted = math.prod(PART)
            elif job == "convert":
                place = folder / "stack.tif"
                write_stack(place, shape)
                # `run` puts the place before what is listed here
                COMMANDS[job] = [job, str(folder / "out.zarr"), "--voxel-size", "8,8,8"]
            done = run(job, place)
            row = {"command": job, "voxels": math.prod(shape), "worked": counted}
            row |= {"seconds": done.seconds, "processor": done.processor, "megabytes": done.peak}
            print(row, flush=True)
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def draw(rows: Path, picture: Path) -> None:
    """Draw processor time for each voxel, and peak memory, against voxels."""
    from matplotlib.figure import Figure

    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for job in dict.fromkeys(row["command"] for row in found):
        own = sorted((r for r in found if r["command"] == job), key=lambda r: r["voxels"])
        whole = [r for r in own if r["worked"] == r["voxels"]]
        times = [r["processor"] / r["voxels"] * 1e9 for r in whole]
        left.loglog([r["voxels"] for r in whole], times, "o-", label=job)
        right.semilogx([r["voxels"] for r in own], [r["megabytes"] for r in own], "o-")
    left.set(xlabel="voxels", ylabel="processor time per voxel, ns")
    right.set(xlabel="voxels", ylabel="peak memory, MB", ylim=(0, None))
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="lines of JSON")
    parser.add_argument(
        "--sizes", type=int, default=3, help=f"of {len(SHAPES)}, the smallest first"
    )
    parser.add_argument("--only", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--draw", type=Path, help="draw the rows in place of measuring")
    arguments = parser.parse_args()
    if arguments.draw is not None:
        draw(arguments.rows, arguments.draw)
        return
    jobs = arguments.only.split(",") if arguments.only else list(JOBS)
    for shape in SHAPES[: arguments.sizes]:
        measure(shape, jobs, arguments.rows)


if __name__ == "__main__":
    main()
