"""Measure volseg beside the programs that others use for the same work, in turn.

Jobs: ``convert`` a TIFF stack to OME-Zarr with a pyramid (ngff-zarr, ome-zarr-py); ``segment`` by
the same weights, tile and overlap, one view (MONAI's SlidingWindowInferer and Dask's `map_overlap`,
raw in memory); ``label`` (cc3d, dask-image); ``table`` of objects (scikit-image); ``evaluate``
(scikit-image). Each contestant runs in a process of its own; start-up and imports are not counted.
Those that are not installed are left out, and said to be.

    pip install monai dask-image connected-components-3d scikit-image ngff-zarr ome-zarr
    python benchmarks/peers.py --repeats 5
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
import zarr
from _contestants import median, peak_megabytes, times_as_much
from scipy import ndimage

import volseg
from volseg.engine.memory import keep_freed_memory
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.arrays import fit_spec
from volseg.storage.cards import find_weights, load_card
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path

CROP = Path(__file__).parents[1] / "examples" / "crop"
OPENVINO = "volseg --device openvino"
NEEDS = {
    OPENVINO: "openvino",
    "monai": "monai",
    "map_overlap": "dask",
    "cc3d": "cc3d",
    "dask-image": "dask_image",
    "scikit-image": "skimage",
    "ngff-zarr": "ngff_zarr",
    "ome-zarr-py": "ome_zarr",
}
JOBS: dict[str, tuple[str, ...]] = {
    "convert": ("volseg", "ngff-zarr", "ome-zarr-py"),
    "segment": ("volseg", OPENVINO, "monai", "map_overlap"),
    "label": ("volseg", "cc3d", "dask-image"),
    "table": ("volseg", "scikit-image"),
    "evaluate": ("volseg", "scikit-image"),
}
NAME, SIZE, CHUNK = "mitochondria", (5.0, 5.0, 5.0), (32, 128, 128)
RULES = {"threshold": 0.5, "min_size": 0, "min_probability": 0.0}
MEASURED = ("seconds", "processor", "megabytes")
Work = Callable[[], object]


def convert_job(who: str, folder: Path) -> Work:
    """From a TIFF stack to OME-Zarr with a pyramid."""
    source, target = folder / "large.tif", folder / "out.zarr"
    if who == "volseg":
        return lambda: volseg.convert(source, target, voxel_size=SIZE)
    if who == "ngff-zarr":
        import ngff_zarr

        shrink = ngff_zarr.Methods.ITKWASM_BIN_SHRINK

        def by_ngff() -> None:
            image = ngff_zarr.to_ngff_image(tifffile.imread(source), dims=("z", "y", "x"))
            levels = ngff_zarr.to_multiscales(image, [2, 4], chunks=64, method=shrink)
            ngff_zarr.to_ngff_zarr(str(target), levels, version="0.5")

        return by_ngff
    from ome_zarr.writer import write_image

    def by_ome() -> None:
        group = zarr.open_group(str(target), mode="w")
        write_image(tifffile.imread(source), group, axes="zyx", storage_options={"chunks": CHUNK})

    return by_ome


def how(model: str, device: str = "cpu") -> PredictOptions:
    """Say what all contestants do: one view, float32, no other rule."""
    return PredictOptions(model=model, device=device, precision="float32", views="xy")


def network_of(folder: Path) -> tuple[torch.nn.Module, tuple[int, int, int], tuple[int, ...]]:
    """Load the network of all contestants, its tile and its overlap; slices lie along z."""
    plan = json.loads((folder / "plan.json").read_text())
    predictor = predictor_for(NetworkChoice(str(find_weights(plan["model"])), "cpu", "float32"))
    z, y, x = plan["tile"]
    return predictor.network, (z, y, x), tuple(plan["overlap"])


def segment_job(who: str, folder: Path) -> Work:
    """From raw to probabilities, by the same weights in tiles of one size and overlap."""
    volume = folder / "vol.zarr"
    model = json.loads((folder / "plan.json").read_text())["model"]
    if who in {"volseg", OPENVINO}:
        fresh = folder / "out.zarr"  # without results: these would be kept
        shutil.copytree(volume, fresh)
        chosen = how(model, "cpu" if who == "volseg" else "openvino")
        return lambda: predict(plan_prediction(fresh, chosen), NoProgress())
    network, tile, overlap = network_of(folder)
    slices = load_card(model).form.dimensions == 2
    raw = open_image(volume).levels[0]
    low, high = json.loads((folder / "plan.json").read_text())["window"]

    def toned(values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float32) - np.float32(low)) * np.float32(2 / (high - low)) - 1

    @torch.inference_mode()
    def evaluate(values: torch.Tensor) -> torch.Tensor:
        """Map (1, 1, z, y, x) to probabilities; of slices, all of a tile make a batch."""
        if slices:
            return network(values[0, 0][:, None]).sigmoid().transpose(0, 1)[None]
        return network(values).sigmoid()

    if who == "monai":
        from monai.inferers import SlidingWindowInferer

        share = tuple(o / t for o, t in zip(overlap, tile, strict=True))
        infer = SlidingWindowInferer(tile, 1, share, mode="gaussian")

        @torch.inference_mode()
        def by_monai() -> None:
            values = torch.from_numpy(toned(raw[:, :, :]))[None, None]
            found = infer(values, evaluate)[0, 0].mul(255).round().to(torch.uint8).numpy()
            zarr.save_array(str(folder / "out.zarr"), found)

        return by_monai
    import dask
    import dask.array

    depth = tuple(o // 2 for o in overlap)
    size = tuple(t - 2 * d for t, d in zip(tile, depth, strict=True))

    def one(block: np.ndarray) -> np.ndarray:
        lacking = [(0, t - n) for t, n in zip(tile, block.shape, strict=True)]
        whole = np.pad(toned(block), lacking, mode="symmetric")
        found = evaluate(torch.from_numpy(whole)[None, None])[0, 0].numpy()
        z, y, x = block.shape
        return np.rint(found[:z, :y, :x] * 255).astype(np.uint8)

    def by_dask() -> None:
        values = dask.array.from_array(raw[:, :, :], chunks=size)
        with dask.config.set(scheduler="synchronous"):
            found = dask.array.map_overlap(
                one, values, depth=depth, boundary="reflect", dtype=np.uint8
            )
            found.rechunk(CHUNK).to_zarr(str(folder / "out.zarr"), overwrite=True)

    return by_dask


def label_job(who: str, folder: Path) -> Work:
    """From probabilities to labels: 26 neighbours above a half."""
    found, target = folder / "found.zarr", str(folder / "out.zarr")
    probabilities = open_image(probabilities_path(found, NAME)).levels[0]
    if who == "volseg":
        shutil.copytree(found, target, ignore=shutil.ignore_patterns("labels", "tables"))
        return lambda: volseg.label(target, **RULES)
    if who == "cc3d":
        import cc3d

        def by_cc3d() -> None:
            labels = cc3d.connected_components(probabilities[:, :, :] >= 128, connectivity=26)
            zarr.save_array(target, labels)

        return by_cc3d
    import dask.array
    from dask_image.ndmeasure import label

    def by_dask_image() -> None:
        whole = dask.array.from_array(probabilities[:, :, :], chunks=(64, 256, 256)) >= 128
        labels, count = label(whole, structure=np.ones((3, 3, 3)))
        count.compute()
        labels.rechunk(CHUNK).to_zarr(target, overwrite=True)

    return by_dask_image


def table_job(who: str, folder: Path) -> Work:
    """From labels and raw to a table: size, centroid, box, mean intensity."""
    found = folder / "found.zarr"
    if who == "volseg":
        fresh = folder / "out.zarr"
        shutil.copytree(found, fresh, ignore=shutil.ignore_patterns("tables"))
        return lambda: volseg.stats(fresh, measure="basic")
    from skimage.measure import regionprops_table

    labels = open_image(labels_path(found, NAME)).levels[0]
    raw = open_image(found).levels[0]

    def by_skimage() -> None:
        wanted = ("label", "area", "centroid", "bbox", "mean_intensity")
        table = regionprops_table(labels[:, :, :], raw[:, :, :], properties=wanted)
        np.savez(folder / "out.npz", **table)

    return by_skimage


def evaluate_job(who: str, folder: Path) -> Work:
    """From labels and truth to overlaps, errors and variation of information."""
    found, truth = folder / "found.zarr", folder / "truth.tif"
    if who == "volseg":
        return lambda: volseg.evaluate(found, truth=truth)
    from skimage.metrics import adapted_rand_error, contingency_table, variation_of_information

    labels = open_image(labels_path(found, NAME)).levels[0]

    def by_skimage() -> None:
        theirs, ours = tifffile.imread(truth), labels[:, :, :]
        contingency_table(theirs, ours)
        adapted_rand_error(theirs, ours)
        variation_of_information(theirs, ours)
        np.logical_and(theirs, ours).sum() / np.logical_or(theirs, ours).sum()

    return by_skimage


MAKE = {
    "convert": convert_job,
    "segment": segment_job,
    "label": label_job,
    "table": table_job,
    "evaluate": evaluate_job,
}


def prepare(folder: Path, model: str, tiles: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Write what the jobs begin from: stacks, volumes, probabilities, labels and a truth."""
    raw, labels = (tifffile.imread(CROP / f"{name}.tif") for name in ("raw", "labels"))
    times = [-(-n // m) for n, m in zip(shape, raw.shape, strict=True)]
    cut = np.tile(raw, times)[tuple(slice(n) for n in shape)]
    tifffile.imwrite(folder / "small.tif", cut)
    volseg.convert(folder / "small.tif", folder / "vol.zarr", voxel_size=SIZE)
    plan = plan_prediction(folder / "vol.zarr", how(model))
    (lattice,) = plan.handover.lattices
    told = {"model": model, "tile": lattice.tile, "window": plan.known_look.tone.window}
    told["overlap"] = [axis.overlap for axis in lattice.axes]
    (folder / "plan.json").write_text(json.dumps(told), encoding="utf-8")
    tifffile.imwrite(folder / "large.tif", np.tile(raw, tiles))
    found = folder / "found.zarr"
    volseg.convert(folder / "large.tif", found, voxel_size=SIZE)
    soft = ndimage.gaussian_filter((labels > 0).astype(np.float32), 1.5)
    soft = np.tile(np.rint(soft * 255).astype(np.uint8), tiles)
    run = {"roi": [[0, n] for n in soft.shape]}
    noted = {"complete": True, "fingerprint": "benchmark", "run": run, "model": {"threshold": 0.5}}
    path = probabilities_path(found, NAME)
    image = create_image(path, fit_spec(soft.shape, "uint8"), SIZE, attributes=noted)
    image.levels[0].write(full_roi(soft.shape), soft)
    volseg.label(found, **RULES)
    objects = open_image(labels_path(found, NAME)).levels[0][full_roi(soft.shape)]
    tifffile.imwrite(folder / "truth.tif", np.roll(objects, 2, axis=2).astype(np.uint16))


def run_alone(job: str, who: str, folder: Path) -> None:
    """Do a job, as a process of its own, and print what it took."""
    if who in {"volseg", OPENVINO}:
        keep_freed_memory()  # as its commands do before anything else
    work = MAKE[job](who, folder)
    begun, used = time.perf_counter(), time.process_time()
    work()
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    found = {"seconds": seconds, "processor": processor + children, "megabytes": peak_megabytes()}
    print(json.dumps(found))


def compare(job: str, folder: Path, repeats: int, limit: float) -> None:
    """Let all contestants do a job, in turn, and print a table; who takes too long leaves."""
    here = [w for w in JOBS[job] if w == "volseg" or importlib.util.find_spec(NEEDS[w])]
    for absent in sorted(set(JOBS[job]) - set(here)):
        print(f"{job}: {absent} is not installed")
    results: dict[str, list[dict[str, float]]] = {who: [] for who in here}
    for _ in range(repeats):
        for who in list(results):
            shutil.rmtree(folder / "out.zarr", ignore_errors=True)
            command = [sys.executable, __file__, "--only", f"{job}:{who}", "--folder", str(folder)]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=limit
                )
            except subprocess.TimeoutExpired:
                print(f"| {job} | {who} | over {limit:.0f} s | | | | |", flush=True)
                del results[who]
                continue
            if done.returncode:
                raise SystemExit(f"{job} by {who} failed: {done.stderr.strip()[-2000:]}")
            results[who].append(json.loads(done.stdout.splitlines()[-1]))
    for who, found in results.items():
        clock, processor, megabytes = (median(found, what) for what in MEASURED)
        ours = results.get("volseg")  # which may have left, too
        more, room = (
            f"{times_as_much(found, ours, what):.2f}" if ours else "" for what in MEASURED[1:]
        )
        print(
            f"| {job} | {who} | {clock:.2f} s | {processor:.2f} s | {megabytes:.0f} MB | "
            f"{more} | {room} |",
            flush=True,
        )


def main() -> None:
    """Prepare, and compare job by job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--model", default="unet2d")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiles", default="4,3,3", help="copies of the crop, but for segment")
    parser.add_argument("--shape", default="32,512,512", help="of what is segmented")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one run of a job")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run_alone(*arguments.only.split(":"), arguments.folder)
        return
    sizes = [tuple(int(n) for n in text.split(",")) for text in (arguments.tiles, arguments.shape)]
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.model, *sizes)
        print("| job | program | clock | processor | peak | times volseg's processor | its peak |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for job in arguments.jobs.split(","):
            compare(job, Path(folder), arguments.repeats, arguments.limit)


if __name__ == "__main__":
    main()
