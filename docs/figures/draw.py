"""Draw the figures of the explanation, from volseg's own functions.

    python docs/figures/draw.py [FOLDER]

`make docs` draws them anew for the site; docs/images/drawn is for the repository's web page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tifffile
from scipy import ndimage

import volseg
from volseg.geometry.lattice import AxisLattice
from volseg.measures.summary import poisson_interval
from volseg.voxels.blend import window

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"


def blending() -> Any:
    """Draw the weights of tiles along one axis, and their sum."""
    lattice = AxisLattice(length=384, tile=160, overlap=48)
    figure, axes = plt.subplots(figsize=(7, 2.4))
    at = np.arange(lattice.length, dtype=float)
    total = np.zeros(lattice.length)
    for k in range(lattice.count):
        ends = k == 0, k == lattice.count - 1
        weight = window(
            at - lattice.origin(k), lattice.tile, lattice.overlap, lattice.context, ends
        )
        axes.plot(at, weight, label=f"tile {k}", color=(BLUE, ORANGE, GREEN, RED)[k % 4])
        total += weight
    axes.plot(at, total, "k--", label=f"sum: {total.min():g} to {total.max():g}")
    axes.set(xlabel="voxel along x", ylabel="weight", ylim=(0, 1.1))
    axes.legend(loc="lower center", ncols=5, fontsize=8)
    return figure


def handover() -> Any:
    """Draw which block evaluates which tile along one axis, and what it hands on."""
    lattice = AxisLattice(length=384, tile=160, overlap=48)
    figure, axes = plt.subplots(figsize=(7, 2.6))
    block = 128
    for start in range(0, lattice.length, block):
        axes.axvline(start, color="k", lw=1)
        axes.text(start + block / 2, lattice.count + 0.2, f"block {start // block}", ha="center")
    for k in range(lattice.count):
        first, last = lattice.support(k)
        home = lattice.home(k) // block
        begin, end = home * block, (home + 1) * block
        for low, high, colour in (
            (first, min(begin, last), RED),
            (max(first, begin), min(last, end), BLUE),
            (max(end, first), last, ORANGE),
        ):
            if high > low:
                axes.barh(k, high - low, left=low, height=0.6, color=colour)
        axes.text(
            first + 4, k, f"tile {k}, evaluated by block {home}", va="center", color="w", fontsize=8
        )
    axes.set(
        xlabel="voxel along x",
        yticks=[],
        xlim=(0, lattice.length),
        ylim=(-0.6, lattice.count + 0.8),
    )
    return figure


def labels() -> Any:
    """Draw the two passes: labels of each block, and those that touch joined."""
    rng = np.random.default_rng(3)
    mask = ndimage.gaussian_filter(rng.random((60, 120)), 4) > 0.505
    left, right = ndimage.label(mask[:, :60])[0], ndimage.label(mask[:, 60:])[0]
    apart = np.concatenate([left, np.where(right > 0, right + left.max(), 0)], axis=1)
    together = volseg.label_array(mask[None].astype("float32"), threshold=0.5, min_size=0)[0]
    figure, (one, two) = plt.subplots(1, 2, figsize=(9, 2.6))
    colours = mpl.colors.ListedColormap(["w", *plt.get_cmap("tab20").colors] * 4)
    for axes, shown, title in (
        (one, apart, f"pass 1: {apart.max()} components of two blocks"),
        (two, together, f"pass 2: {together.max()} objects"),
    ):
        axes.imshow(
            np.where(shown, shown % 20 + 1, 0),
            cmap=colours,
            vmin=0,
            vmax=83,
            interpolation="nearest",
        )
        axes.axvline(59.5, color="k")
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def ball(radius: float, offset: np.ndarray) -> np.ndarray:
    """Make a ball about a place between voxels."""
    n = int(radius) + 3
    grid = np.stack(np.meshgrid(*[np.arange(-n, n + 1.0)] * 3, indexing="ij"), -1) - offset
    return (grid**2).sum(-1) <= radius**2


def surface() -> Any:
    """Draw how far three measures of a ball's surface are from the truth."""
    rng = np.random.default_rng(1)
    radii = (3, 4, 6, 8, 11, 15, 20)
    found: dict[str, list[float]] = {"Crofton": [], "marching cubes": [], "voxel faces": []}
    for radius in radii:
        balls = [ball(radius, rng.random(3) - 0.5) for _ in range(3)]
        row = np.concatenate([b * (k + 1) for k, b in enumerate(balls)], axis=2).astype("uint8")
        true = 4 * np.pi * radius**2
        for name, way in (("Crofton", "crofton"), ("marching cubes", "marching-cubes")):
            measures = volseg.measure_array(
                row, voxel_size=(1, 1, 1), surface=way, measure="shapes"
            )
            areas = measures.columns["surface_area_nm2"]
            found[name].append(100 * (np.mean(areas) / true - 1))
        padded = np.pad(row > 0, 1)
        faces = sum(np.count_nonzero(np.diff(padded.astype(int), axis=axis)) for axis in range(3))
        found["voxel faces"].append(100 * (faces / len(balls) / true - 1))
    figure, axes = plt.subplots(figsize=(6, 3))
    for (name, values), colour in zip(found.items(), (BLUE, ORANGE, RED), strict=True):
        axes.plot(radii, values, "o-", label=name, color=colour)
    axes.axhline(0, color="k", lw=0.8)
    axes.set(xlabel="radius of a ball, voxels", ylabel="error of its surface, %")
    axes.legend()
    return figure


def tiles() -> Any:
    """Draw what a network says of one slice in one tile, and in small ones."""
    raw = tifffile.imread(ROOT / "examples" / "crop" / "raw.tif", key=16)[None, :256, :256]
    given = {"voxel_size": (5, 5, 5), "model": "unet2d", "views": "xy"}
    whole = volseg.predict_array(raw, **given)[0].astype(int)
    small = volseg.predict_array(raw, tile=(1, 96, 96), **given)[0].astype(int)
    figure, panels = plt.subplots(1, 4, figsize=(11, 3))
    off = np.abs(whole - small)
    for axes, picture, title, top in (
        (panels[0], raw[0], "raw", 255),
        (panels[1], whole, "one tile", 255),
        (panels[2], small, "tiles of 96", 255),
        (panels[3], off, f"difference, mean {off.mean():.2f}, most {off.max()}", off.max()),
    ):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=top)
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    return figure


def statistics() -> Any:
    """Draw the interval of a count, and how often it holds where objects lie in clusters."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    counts = np.arange(1, 201)
    low, high = np.array([poisson_interval(int(n)) for n in counts]).T
    left.fill_between(
        counts, 100 * (low / counts - 1), 100 * (high / counts - 1), color=BLUE, alpha=0.3
    )
    left.axhline(0, color="k", lw=0.8)
    left.set(
        xlabel="objects counted",
        ylabel="95% interval, % of the count",
        ylim=(-100, 200),
        title="what a count of one volume says",
        xscale="log",
    )
    rng = np.random.default_rng(0)
    sizes, mean = np.arange(1, 11), 40
    held = []
    for size in sizes:
        drawn = rng.poisson(mean / size, 2000)
        totals = 1 + rng.poisson(size - 1, (2000, drawn.max()))
        sums = np.array([row[:n].sum() for row, n in zip(totals, drawn, strict=True)])
        bounds = np.array([poisson_interval(int(n)) for n in sums])
        held.append(100 * np.mean((bounds[:, 0] <= mean) & (mean <= bounds[:, 1])))
    right.plot(sizes, held, "o-", color=ORANGE)
    right.axhline(95, color="k", lw=0.8)
    right.set(
        xlabel="mean objects of a cluster",
        ylabel="intervals that hold the truth, %",
        ylim=(0, 100),
        title=f"{mean} objects expected, drawn 2,000 times",
    )
    return figure


FIGURES: tuple[Callable[[], Any], ...] = (blending, handover, labels, surface, tiles, statistics)


def draw(folder: Path) -> list[Path]:
    """Draw all figures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for figure in FIGURES:
        made.append(folder / f"{figure.__name__}.png")
        drawn = figure()
        drawn.savefig(made[-1], dpi=110, bbox_inches="tight")
        plt.close(drawn)
    return made


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "drawn")
