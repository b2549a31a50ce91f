"""Tell objects that touch apart by their contours or offsets, and count how many come out right.

Balls and rods of known number touch in a volume; what a network would say of them is drawn: class
and contour, blurred, with noise, and offsets, with noise. They are labelled in blocks and whole.
With weights that learned contours or offsets of the nuclei of ``dsb2018``, the images that training
held out are segmented, too.

    python studies/touching.py
    python studies/touching.py --data ../shared/data/dsb2018 --enlarge twice
    volseg train --config studies/nuclei.toml --images --voxel-size 1 --output nuclei \
      --data twice/raw_128.tif=twice/instances_128.tif
    python studies/touching.py --data twice --model nuclei/nuclei.safetensors --tta
    volseg train --config studies/pointing.toml --images --voxel-size 1 --output pointing \
      --data twice/raw_128.tif=twice/instances_128.tif
    python studies/touching.py --data twice --model pointing/pointing.safetensors --split offset

Nuclei of ``dsb2018`` are a few pixels wide, so contours leave small ones no inside: images are
enlarged twice. Objects are matched at that size, and at that of the annotation.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import volseg
from volseg.geometry.grid import full_roi
from volseg.objects.splitting import Splitter
from volseg.storage.arrays import ArraySpec
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path
from volseg.training.annotation import Annotation
from volseg.training.splitting import Touching, choose_seeds, choose_votes, count_matched
from volseg.types import Zyx

SHAPE: Zyx = (48, 144, 144)
OTHER: Zyx = (32, 96, 96)
"""Of the drawing that settings are chosen on."""
MOST = 80
BLOCKS: tuple[Zyx, ...] = ((16, 32, 64), SHAPE)
NAME = "mitochondria"
REACH, AWAY = 32.0, 2.0
"""Voxels that drawn offsets reach, and standard deviation of their noise."""
SPLITS: tuple[tuple[Any, dict[str, Any]], ...] = (
    ("none", {}),
    ("distance", {"split_depth": 0.75}),
)
HELD_OUT, CHOSEN_ON = 5, 48
"""Every fifth image is held out in training, and of those settings are chosen on so many."""
DARK = 100
"""Highest median of images whose nuclei shine; those of others are stained."""
SIZES = (1, 10, 20, 50, 100, 1 << 30)
"""Annotated pixels of nuclei, from which a column of the table of what is lost begins."""
SIDE, TIMES = 128, 2
"""Annotated pixels of an image's side, and how much it is enlarged."""
FILES = "raw_128.tif", "instances_128.tif"


def grow_groups(rods: bool, shape: Zyx, seed: int = 0) -> NDArray[np.int64]:
    """Draw groups of balls, or of rods, each of which touches one that was drawn before it."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).astype(np.float32)
    truth = np.zeros(shape, np.int64)
    places: list[tuple[NDArray[Any], NDArray[Any], float]] = []
    for _ in range(4000):
        radius, along = rng.uniform(5, 8), rng.normal(size=3)
        half = along / np.linalg.norm(along) * (rng.uniform(8, 14) if rods else 0)
        if places and rng.random() < 0.9:
            near, _, other = places[rng.integers(len(places))]
            step = rng.normal(size=3)
            centre = near + step / np.linalg.norm(step) * (radius + other + (half**2).sum() ** 0.5)
        else:
            centre = rng.uniform(0, shape)
        reach = np.abs(half) + radius + 1
        if ((centre < reach) | (centre > np.array(shape) - reach)).any():
            continue
        box = tuple(slice(int(c - r), int(c + r) + 2) for c, r in zip(centre, reach, strict=True))
        away = np.moveaxis(grid[:, *box], 0, -1) - centre
        share = np.clip(away @ half / max((half**2).sum(), 1e-9), -1, 1)[..., None]
        inside = ((away - share * half) ** 2).sum(-1) < radius**2
        if (truth[box][inside] > 0).any():
            continue
        truth[box][inside] = len(places) + 1
        places.append((centre, half, radius))
        if len(places) == MOST:
            break
    # what is one voxel apart touches
    distance, at = ndimage.distance_transform_edt(truth == 0, return_indices=True)
    return np.where(distance < 2, truth[tuple(at)], 0)


def draw_maps(truth: NDArray[np.int64], seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Draw what a network would say: blurred, with noise, with gaps in contours, and offsets."""
    rng, contour = np.random.default_rng(seed), np.zeros(truth.shape, bool)
    for axis in range(3):
        for step in (1, -1):
            contour |= truth != np.roll(truth, step, axis)
    maps = {"": truth > 0, "-contour": contour & (truth > 0)}
    found = {}
    for kind, mask in maps.items():
        soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)
        noise = ndimage.gaussian_filter(rng.normal(0, 0.6, truth.shape), 1)
        found[kind] = (255 * (soft / soft.max() + noise).clip(0, 1)).astype(np.uint8)
    box = full_roi((truth.shape[0], truth.shape[1], truth.shape[2]))
    aims = Annotation(truth).centred(flat=False).aim(truth, box)
    for axis, aim in zip("zyx", aims, strict=True):
        noise = ndimage.gaussian_filter(rng.normal(0, 1, truth.shape), 1)
        vector = np.where(truth > 0, aim, 0) + AWAY * noise / noise.std()
        level = (127.5 + 127.5 * vector / REACH).round().clip(0, 255)
        found[f"-offset-{axis}"] = level.astype(np.uint8)
    return found


def choose_settings(truth: NDArray[np.int64], maps: dict[str, NDArray[np.uint8]]) -> dict[str, Any]:
    """Choose, as training does, how objects are split by contours, and by offsets."""
    offsets = [maps[f"-offset-{axis}"] for axis in "zyx"]
    seeds = choose_seeds([Touching((maps[""], maps["-contour"]), truth)], 0.5, smallest=50)
    splitter = Splitter("offset", smallest=50, reach=(REACH, REACH, REACH))
    return asdict(seeds) | choose_votes([Touching((maps[""], *offsets), truth)], 0.5, splitter)


def write_volume(
    folder: Path, maps: dict[str, NDArray[np.uint8]], settings: dict[str, Any]
) -> Path:
    """Write a volume with these maps as though a network had given them, with such a card."""
    spec = ArraySpec(SHAPE, "uint8", (16, 32, 32), (16, 32, 32))
    size = (5.0, 5.0, 5.0)
    volume = create_image(folder / "vol.zarr", spec, size, attributes={}).path
    for kind, values in maps.items():
        noted = {
            "complete": True,
            "fingerprint": kind or "class",
            "run": {"roi": [[0, n] for n in SHAPE]},
            "model": {
                "threshold": 0.5,
                "splitting": settings,
                "offsets": {"reach_nm": REACH * size[0], "voxel_size": list(size)},
            },
        }
        path = probabilities_path(volume, NAME + kind)
        create_image(path, spec, size, attributes=noted).levels[0].write(full_roi(SHAPE), values)
    return volume


def read_labels(volume: Path, name: str) -> NDArray[np.int64]:
    """Read all labels of a result."""
    level = open_image(labels_path(volume, name)).levels[0]
    return np.asarray(level[full_roi(level.shape)], np.int64)


def describe(found: NDArray[np.int64], truth: NDArray[np.int64]) -> str:
    """Write a line of the table: found, matched at IoU 0.5, and F1."""
    matched, ours, theirs = count_matched(found, truth)
    return (
        f"{theirs} | {ours} | {matched} ({matched / theirs:.3f}) | "
        f"{2 * matched / (ours + theirs):.3f}"
    )


def drawn() -> None:
    """Label balls and rods."""
    for rods in (False, True):
        other = grow_groups(rods, OTHER, seed=1)
        settings = choose_settings(other, draw_maps(other, seed=1))
        print(settings, flush=True)
        truth = grow_groups(rods, SHAPE)
        maps, kept = draw_maps(truth), []
        splits: tuple[Any, ...] = ("none", "distance", "contour", "offset")
        for split in splits:
            for block in BLOCKS if split in splits[2:] else BLOCKS[:1]:
                with tempfile.TemporaryDirectory() as folder:
                    volume = write_volume(Path(folder), maps, settings)
                    volseg.label(volume, split=split, block=block, min_size=50, workers=1)
                    found = read_labels(volume, NAME)
                kept.append(found)
                what = "rods" if rods else "balls"
                print(f"| {what} | `{split}` | {block} | {describe(found, truth)} |", flush=True)
        if not (np.array_equal(kept[-1], kept[-2]) and np.array_equal(kept[-3], kept[-4])):
            raise SystemExit("labels depend on the block")


def enlarge(data: Path, folder: Path) -> None:
    """Write the images and what is annotated in them, enlarged."""
    folder.mkdir(parents=True)
    raw, truth = (tifffile.imread(data / f) for f in FILES)
    rules = {"order": 3, "mode": "nearest", "grid_mode": True}
    large = np.stack([ndimage.zoom(i.astype(np.float32), TIMES, **rules) for i in raw])
    images = large.round().clip(0, 255).astype(np.uint8), truth.repeat(TIMES, 1).repeat(TIMES, 2)
    for name, image in zip(FILES, images, strict=True):
        tifffile.imwrite(folder / name, image, photometric="minisblack", compression="zlib")


def reduced(found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each annotated pixel the label of most of its four; of two the larger number's."""
    count, side = len(found), found.shape[1] // TIMES
    parts = found.reshape(count, side, TIMES, -1, TIMES).swapaxes(2, 3).reshape(count, side, -1, 4)
    parts.sort(axis=-1)
    return np.where(parts[..., 1] == parts[..., 2], parts[..., 1], parts[..., 3])


def nuclei(data: Path, model: Path, by: Any, *, tta: bool) -> None:
    """Segment the held-out images, and match objects image by image."""
    raw, truth = (tifffile.imread(data / f) for f in FILES)
    held = np.arange(HELD_OUT - 1, len(raw), HELD_OUT)
    chosen = np.linspace(0, len(held) - 1, CHOSEN_ON).round().astype(int)
    others = np.setdiff1d(np.arange(len(held)), chosen)
    dark = np.median(raw[held], axis=(1, 2)) <= DARK
    parts = ("all", slice(None)), ("no setting chosen", others), ("dark background", dark)
    with tempfile.TemporaryDirectory() as folder:
        stack, known, volume = (Path(folder) / f for f in ("raw.tif", "truth.tif", "vol.zarr"))
        tifffile.imwrite(stack, raw[held], photometric="minisblack")
        tifffile.imwrite(known, truth[held], photometric="minisblack")
        volseg.convert(stack, volume, images=True)
        volseg.segment(volume, model=str(model), split=by, tta=tta, workers=1)
        for split, more in ((by, dict[str, Any]()), *SPLITS):
            if split != by:
                volseg.label(volume, split=split, overwrite=True, **more)
            scores = volseg.evaluate(volume, truth=known, instances=True, min_size=0)
            counts = np.array([(i.matched, i.predicted, i.truth) for i in scores.images])
            for what, rows in parts:
                print_matched(f"{what}, {len(counts[rows])} | `{split}`", counts[rows])
            found, annotated = read_labels(volume, NAME), truth[held].astype(np.int64)
            if raw.shape[1] > SIDE:
                found, annotated = reduced(found), annotated[:, ::TIMES, ::TIMES]
                pairs = zip(found[:, None], annotated[:, None], strict=True)
                counts = np.array([count_matched(*pair) for pair in pairs])
                print_matched(f"all, at {SIDE} pixels | `{split}`", counts)
            if split == by:
                print_lost(found, annotated, dark)


def print_matched(what: str, counts: NDArray[np.int64]) -> None:
    """Print a row: nuclei, found, matched, F1 of all and as the mean of the images."""
    matched, ours, theirs = counts.T
    each = np.mean(2 * matched / np.maximum(ours + theirs, 1))
    f1 = 2 * matched.sum() / (ours.sum() + theirs.sum())
    line = f"{theirs.sum()} | {ours.sum()} | {matched.sum()} ({matched.sum() / theirs.sum():.3f})"
    print(f"| {what} | {line} | {f1:.3f} | {each:.3f} |", flush=True)


def print_lost(found: NDArray[np.int64], truth: NDArray[np.int64], dark: NDArray[np.bool_]) -> None:
    """Print which part is matched of nuclei that stand alone, and of those that touch, by size."""
    rows = []
    for ours, image, shines in zip(found, truth, dark, strict=True):
        sides = [(image[1:], image[:-1]), (image[:, 1:], image[:, :-1])]
        touch = {n for a, b in sides for n in a[(a != b) & (b > 0)].tolist()}
        touch |= {n for a, b in sides for n in b[(a != b) & (a > 0)].tolist()}
        sizes = np.bincount(ours.ravel())
        for number in np.unique(image[image > 0]).tolist():
            mask = image == number
            shared = np.bincount(ours[mask], minlength=len(sizes))
            share = shared[1:] / (sizes[1:] + mask.sum() - shared[1:])
            best = share.max(initial=0, where=sizes[1:] > 0)
            rows.append((shines, number in touch, mask.sum(), best >= 0.5))
    shine, touching, pixels, matched = np.array(rows).T
    for kind in ((1, 0), (1, 1), (0, 0), (0, 1)):
        columns = []
        for low, high in itertools.pairwise(SIZES):
            these = (shine == kind[0]) & (touching == kind[1]) & (pixels >= low) & (pixels < high)
            columns.append(f"{matched[these].mean() if these.any() else 0:.2f} of {these.sum()}")
        what = "dark" if kind[0] else "bright", "touching another" if kind[1] else "alone"
        print("|", f"{what[0]} background, {what[1]}", "|", " | ".join(columns), "|")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tta", action="store_true")
    parser.add_argument("--split", default="contour", choices=("contour", "offset"))
    parser.add_argument("--enlarge", type=Path, help="write the data there, twice as large")
    given = parser.parse_args()
    if given.enlarge is not None:
        enlarge(given.data, given.enlarge)
    elif given.model is None:
        drawn()
    else:
        nuclei(given.data, given.model, given.split, tta=given.tta)


if __name__ == "__main__":
    main()
