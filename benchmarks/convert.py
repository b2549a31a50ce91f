"""Measure `volseg convert` against copying the file, and against writers of the same shards.

Contestants, in turn: cp of the source; volseg's arrays and zarr-python writing level 0 with the
same shards, chunks and codecs from a memory map; volseg convert with everything (decoding, pyramid,
histogram, fingerprint). The source is the bundled crop, mirrored and repeated: real EM compresses
as real EM does.

    python benchmarks/convert.py --tiles 8,4,4 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import zarr
from zarr.codecs import ZstdCodec

from volseg.engine.memory import keep_freed_memory
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.storage.arrays import ArraySpec, create_array, fit_spec

RAW = Path(__file__).parents[1] / "examples" / "crop" / "raw.tif"


def make_source(path: Path, tiles: tuple[int, int, int]) -> tuple[int, int, int]:
    """Write a plain stack of pages, one after the other; return its shape."""
    raw = tifffile.imread(RAW)
    pad = [(0, 0), *((0, (t - 1) * n) for t, n in zip(tiles[1:], raw.shape[1:], strict=True))]
    layer = np.pad(raw, pad, mode="symmetric")
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for copy in range(tiles[0]):
            for page in layer if copy % 2 == 0 else layer[::-1]:
                writer.write(page, contiguous=True)
    return tiles[0] * raw.shape[0], layer.shape[1], layer.shape[2]


def write_shards(source: Path, target: Path, spec: ArraySpec) -> None:
    """Write level 0, a row of shards at a time."""
    raw, array = tifffile.memmap(source, mode="r"), create_array(target, spec)
    for z in range(0, spec.shape[0], spec.shard[0]):
        box = (slice(z, min(z + spec.shard[0], spec.shape[0])), *full_roi(spec.shape)[1:])
        array.write(box, raw[box])


def write_zarr(source: Path, target: Path, spec: ArraySpec) -> None:
    """Write level 0 with zarr-python."""
    raw = tifffile.memmap(source, mode="r")
    array = zarr.create_array(
        target,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunk,
        shards=spec.shard,
        compressors=ZstdCodec(level=1),
    )
    for z in range(0, spec.shape[0], spec.shard[0]):
        array[z : z + spec.shard[0]] = raw[z : z + spec.shard[0]]


def seconds(work: Callable[[], object], target: Path) -> tuple[float, float]:
    """Time one contestant, by the clock and in processor time; remove what it wrote."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    taken = time.perf_counter() - begun, time.process_time() - used
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    return taken


def write_volseg(source: Path, target: Path) -> None:
    """Convert by volseg."""
    with plan_conversion(source, target, ConvertOptions(voxel_size=(5.0, 5.0, 5.0))) as plan:
        convert(plan, NoProgress())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", default="8,4,4", help="crops of 32 x 384 x 384 per axis")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    z, y, x = (int(t) for t in arguments.tiles.split(","))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "raw.tif", Path(folder) / "target"
        spec = fit_spec(make_source(source, (z, y, x)), "uint8")
        contestants: dict[str, Callable[[], object]] = {
            "cp": lambda: shutil.copyfile(source, target),
            "shards": lambda: write_shards(source, target, spec),
            "zarr-python": lambda: write_zarr(source, target, spec),
            "volseg": lambda: write_volseg(source, target),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for _ in range(arguments.repeats):
            for name, work in contestants.items():
                os.sync()
                taken[name].append(seconds(work, target))
        megabytes = np.prod(spec.shape) / 1e6
    print(f"{spec.shape} uint8, {megabytes:.0f} MB, medians of {arguments.repeats} rounds:")
    for name, found in taken.items():
        # by the clock, what else the machine does and how fast its disk is count too
        ratios = [
            statistics.median(v[k] / t[k] for v, t in zip(taken["volseg"], found, strict=True))
            for k in (0, 1)
        ]
        rate = megabytes / statistics.median(t[0] for t in found)
        print(
            f"{name:12} {rate:6.0f} MB/s   volseg convert takes {ratios[0]:5.2f} times as long, "
            f"{ratios[1]:5.2f} times the processor time"
        )


if __name__ == "__main__":
    main()
