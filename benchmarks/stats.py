"""Measure measuring, Zarr to table, against scikit-image on the whole volume in memory.

The volume holds bent tubes of the size that mitochondria have at 5 nm, and noise. Each contestant
runs in a process of its own, in turn, so that peak memory can be told apart; it measures a small
volume first, so that imports, and what is only once, are not counted, and reads all files, so that
the disk is not either. On a busy machine the processor time says more than the clock.

"meshes" is marching cubes of each object alone, and nothing else. "same table" has, by
scikit-image, what volseg's full set has: also moments, Euler numbers and intensities.

    python benchmarks/stats.py --repeats 5

An annotated stack can stand in its place, mirrored until it is four times as large, its components
the objects of each part:

    python benchmarks/stats.py --repeats 5 --annotated train_raw.tif train_labels.tif

The start and end of Dask and the tables, 0.03 to 0.05 s, take a tenth of the time of the full set.
A larger volume, such as --shape 1024,1024,1024, needs 12 GB for the peers.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from _contestants import Found, median, parser_of, peak_megabytes, take_turns, times_as_much
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes, mesh_surface_area, regionprops, regionprops_table

from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import Grid, full_roi
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats
from volseg.storage.arrays import StoredArray, fit_spec
from volseg.storage.tables import write_table
from volseg.storage.volumes import create_image, labels_path, open_image, register_label
from volseg.types import Zyx

CONTESTANTS = ("basic", "shapes", "full", "regionprops", "meshes", "same table")
PEERS = {
    "basic": ("regionprops",),
    "shapes": ("meshes",),
    "full": ("meshes", "same table"),
}
BASIC = ("label", "area", "bbox", "centroid")
SHAPES = (
    "euler_number",
    "inertia_tensor",
    "axis_major_length",
    "axis_minor_length",
    "equivalent_diameter_area",
)
INTENSITIES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
NAME = "mitochondria"
FRACTION = 0.08
SIZE = (5.0, 5.0, 5.0)
SMALL = (64, 128, 128)
Array = NDArray[Any]


def draw_tube(labels: Array, label: int, width: float, rng: np.random.Generator) -> None:
    """Draw a bent tube where there is nothing yet."""
    radius, length = width * rng.uniform(0.6, 1.4), width * rng.uniform(2.6, 18)
    middle = rng.uniform(0, labels.shape)
    along, across = rng.normal(size=(2, 3))
    along /= np.linalg.norm(along)
    across -= along * (across @ along)
    across /= np.linalg.norm(across)
    t = np.linspace(-1, 1, 200)[:, None]
    bend = rng.uniform(0, 0.25) * length
    path = middle + t * along * length / 2 + (t**2) * across * bend
    low = np.maximum(np.floor(path.min(0) - radius), 0).astype(int)
    high = np.minimum(np.ceil(path.max(0) + radius), labels.shape).astype(int)
    if (high <= low).any():
        return
    view = labels[tuple(map(slice, low, high))]
    points = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    near = cKDTree(path).query(points, distance_upper_bound=radius, workers=2)[0] < radius
    view[near & (view == 0)] = label


def make_volume(volume: Path, shape: Zyx, width: float) -> None:
    """Write noise, and tubes until they fill their fraction."""
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint32)
    label = 0
    while np.count_nonzero(labels) < FRACTION * labels.size:
        for _ in range(4):
            label += 1
            draw_tube(labels, label, width, rng)
    raw = np.empty(shape, np.uint8)
    for plane in raw:
        plane[:] = np.clip(rng.normal(128, 20, plane.shape), 0, 255)
    write_volume(volume, raw, labels)


def mirror_volume(volume: Path, raw: Path, marked: Path) -> None:
    """Write an annotated stack and three mirror images of it, one behind the other."""
    parts = [tifffile.imread(raw)]
    components, count = ndimage.label(tifffile.imread(marked) > 0, np.ones((3, 3, 3)))
    labels = [components.astype(np.uint32)]
    for axis in (0, 1):
        parts += [np.flip(part, axis) for part in parts]
        labels += [np.flip(part, axis) for part in labels]
    for k, part in enumerate(labels):
        labels[k] = np.where(part > 0, part + k * count, 0).astype(np.uint32)
    write_volume(volume, np.concatenate(parts), np.concatenate(labels))


def write_volume(volume: Path, raw: Array, labels: Array) -> None:
    """Write raw and labels as volseg does."""
    image = create_image(volume, fit_spec(_zyx(raw), "uint8"), SIZE, attributes={}).levels[0]
    spec = fit_spec(_zyx(raw), "uint32")
    marked = create_image(labels_path(volume, NAME), spec, SIZE, label=True, attributes={})
    for block in Grid(_zyx(raw), image.shard).blocks():
        image.write(block.core, raw[block.core])
        marked.levels[0].write(block.core, labels[block.core])
    register_label(volume, NAME)


def _zyx(array: Array) -> Zyx:
    z, y, x = array.shape
    return z, y, x


def measure(contestant: str, volume: Path, workers: int) -> int:
    """Write a table of all objects; return how many there are."""
    if contestant in PEERS:
        options = StatsOptions(engine=EngineOptions(workers=workers), measure=contestant)
        return stats(plan_stats(volume, options), NoProgress()).summary.objects
    source = open_image(labels_path(volume, NAME)).levels[0]
    labels = source[full_roi(source.shape)]
    columns = measure_in_memory(contestant, labels, open_image(volume).levels[0])
    write_table(volume / "peer.parquet", columns, {}, {})
    return len(columns["label"])


def small_volume(volume: Path) -> Path:
    """Say where the volume lies that is measured first."""
    return volume.with_name(f"small-{volume.name}")


def run(contestant: str, volume: Path, workers: int) -> dict[str, float]:
    """Measure once; return seconds, objects, and peak memory in MB beyond that at the start."""
    measure(contestant, small_volume(volume), workers)
    for file in volume.rglob("c/**/*"):
        if file.is_file():
            file.read_bytes()
    gc.collect()
    gc.freeze()  # or a collection of all that was imported may fall into any contestant's time
    idle = peak_megabytes()
    begun, spent = time.perf_counter(), time.process_time()
    objects = measure(contestant, volume, workers)
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "cpu": time.process_time() - spent,
        "objects": objects,
        "megabytes": peak_megabytes() - idle,
    }


def measure_in_memory(contestant: str, labels: Array, raw: StoredArray) -> dict[str, Array]:
    """Measure as scikit-image does: the basic set, each object's mesh, or all that volseg has."""
    if contestant == "regionprops":
        return regionprops_table(labels, properties=BASIC)
    if contestant == "meshes":
        return mesh_areas(labels)
    table = regionprops_table(
        labels, raw[full_roi(raw.shape)], properties=(*BASIC, *SHAPES, *INTENSITIES), spacing=SIZE
    )
    return {**table, **mesh_areas(labels)}


def mesh_areas(labels: Array) -> dict[str, Array]:
    """Measure surfaces by marching cubes, object by object."""
    rows = []
    for region in regionprops(labels):
        mask = np.pad(region.image, 1).astype(np.float32)
        vertices, faces, _, _ = marching_cubes(mask, 0.5, spacing=SIZE)
        rows.append((region.label, mesh_surface_area(vertices, faces)))
    label, area = zip(*rows, strict=True)
    return {"label": np.array(label), "surface": np.array(area)}


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, CONTESTANTS)
    parser.add_argument("--shape", default="512,1024,1024")
    parser.add_argument("--width", type=float, default=23, help="mean radius of a tube, voxels")
    parser.add_argument("--annotated", type=Path, nargs=2, metavar=("RAW", "LABELS"))
    parser.add_argument("--volume", type=Path, help="where to keep the volume for another time")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run(arguments.only, arguments.volume, arguments.workers)))
        return
    z, y, x = (int(n) for n in arguments.shape.split(","))
    with tempfile.TemporaryDirectory() as folder:
        volume = arguments.volume or Path(folder) / "vol.zarr"
        if arguments.annotated and volume.exists():
            parser.error(f"{volume} is there already: leave out --annotated, or give another")
        if not volume.exists() or not small_volume(volume).exists():
            make_volume(small_volume(volume), SMALL, arguments.width)
            if arguments.annotated:
                mirror_volume(volume, *arguments.annotated)
            else:
                make_volume(volume, (z, y, x), arguments.width)
        voxels = float(np.prod(open_image(volume).levels[0].shape))
        results = take_turns(CONTESTANTS, volume, arguments)
    report(results, voxels / 1e6)


def report(results: dict[str, list[Found]], megavoxels: float) -> None:
    """Print the medians, and by how much each of volseg's sets is faster than its peer."""
    for contestant, found in results.items():
        seconds, cpu = median(found), median(found, "cpu")
        peak = max(f["megabytes"] for f in found)
        line = f"{contestant:11} {megavoxels / seconds:6.0f} Mvoxel/s   {cpu:5.2f} s of cpu time"
        line += f"   peak {peak:5.0f} MB"
        for peer in PEERS.get(contestant, ()):
            fast, less = (times_as_much(results[peer], found, k) for k in ("seconds", "cpu"))
            line += f"   {fast:.1f} times as fast as {peer}, {less:.1f} in cpu time"
        print(line)


if __name__ == "__main__":
    main()
