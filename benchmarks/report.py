"""Measure report on a gigavoxel with 10,240 objects: time, memory and size of the page.

Volume, probabilities and labels are made first, then measured by stats; report runs in a process of
its own, start-up included. A page above 20 MB, or 120 s of processor time, fails this benchmark.

    python benchmarks/report.py                   # 3 GB of disk
    python benchmarks/report.py --blocks 2,4,4    # 67 Mvoxel
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import Grid
from volseg.stages.levels import build_pyramid
from volseg.storage.arrays import fit_spec
from volseg.storage.volumes import create_image, labels_path, probabilities_path, register_label

SIDE, EACH = 128, 20
"""Voxels of a block, and objects in it."""
SHARD = (SIDE, 2 * SIDE, 2 * SIDE)
MOST_BYTES, MOST_SECONDS = 20e6, 120


def draw_block(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw raw and labels of a block: ellipsoids in cells of a third of its side."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((SIDE,) * 3, np.uint32)
    cell = SIDE // 3
    grid = np.indices((cell,) * 3).astype(np.float32)
    for k in range(EACH):
        corner = [cell * n for n in np.unravel_index(k, (3, 3, 3))]
        radii = rng.uniform(7, 18, 3)[:, None, None, None]
        inside = (((grid - cell / 2) / radii) ** 2).sum(axis=0) < 1
        z, y, x = (slice(c, c + cell) for c in corner)
        labels[z, y, x][inside] = k + 1
    raw = rng.normal(170, 18, labels.shape) - 60 * (labels > 0)
    return raw.clip(1, 254).astype(np.uint8), labels


def make_volume(path: Path, blocks: tuple[int, int, int]) -> int:
    """Write a volume of so many blocks; return its voxels."""
    shape = (blocks[0] * SIDE, blocks[1] * SIDE, blocks[2] * SIDE)
    size, noted = (8.0, 8.0, 8.0), {"complete": True, "fingerprint": "drawn"}
    name = "mitochondria"
    kinds = {path: "uint8", probabilities_path(path, name): "uint8", labels_path(path, name): "u4"}
    images = [
        create_image(
            place, fit_spec(shape, np.dtype(kind).name, (SIDE // 2,) * 3, SHARD), size,
            label=kind == "u4", attributes=noted,
        )
        for place, kind in kinds.items()
    ]  # fmt: skip
    drawn = [draw_block(seed) for seed in range(8)]
    shard = images[0].levels[0].shard
    for k, block in enumerate(Grid(shape, shard).blocks()):
        sizes = [s.stop - s.start for s in block.core]
        raw, labels = drawn[k % len(drawn)]
        copies = [-(-n // SIDE) for n in sizes]
        cut = tuple(slice(n) for n in sizes)
        tiled = np.tile(labels, copies)[cut]
        numbers = np.arange(np.prod(copies), dtype=np.uint32).reshape(copies)
        numbers = numbers.repeat(SIDE, 0).repeat(SIDE, 1).repeat(SIDE, 2)[cut]
        first = np.uint32(k * np.prod(copies) * EACH)
        own = np.where(tiled > 0, tiled + numbers * np.uint32(EACH) + first, 0).astype(np.uint32)
        images[0].levels[0].write(block.core, np.tile(raw, copies)[cut])
        images[1].levels[0].write(block.core, (tiled > 0).astype(np.uint8) * np.uint8(240))
        images[2].levels[0].write(block.core, own)
    for image, kind in zip(images, kinds.values(), strict=True):
        build_pyramid(image, EngineOptions(), NoProgress(), label=kind == "u4")
    register_label(path, name)
    return int(np.prod(shape))


def run(*words: object) -> tuple[float, float, float]:
    """Run a command; return its seconds, those of processors, and its peak memory in GB."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "volseg", *map(str, words), "-q"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begun, used, after.ru_maxrss / 1e6


def main() -> None:
    """Make, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", default="8,8,8", help="of 128 voxels a side, along z, y and x")
    z, y, x = (int(n) for n in parser.parse_args().blocks.split(","))
    with tempfile.TemporaryDirectory() as folder:
        volume, page = Path(folder) / "v.zarr", Path(folder) / "r.html"
        voxels = make_volume(volume, (z, y, x))
        print(f"{voxels / 1e6:,.0f} Mvoxel, {z * y * x * EACH:,} objects")
        for words in (("stats", volume), ("report", volume, "--output", page)):
            seconds, used, peak = run(*words)
            print(f"{words[0]}: {seconds:.1f} s, {used:.1f} s of processors, {peak:.2f} GB")
        size = page.stat().st_size
        print(f"page: {size / 1e6:.1f} MB")
        if size > MOST_BYTES or used > MOST_SECONDS:
            sys.exit(f"more than {MOST_BYTES / 1e6:g} MB or {MOST_SECONDS} s")


if __name__ == "__main__":
    main()
