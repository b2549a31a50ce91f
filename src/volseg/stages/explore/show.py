"""Draw an exploration: three planes, intensities, and correlation of slices along each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.storage.plots import save_figure

INSIDE, OUTSIDE, PLAIN, FLIPPED = "#d55e00", "#0072b2", "#000000", "#009e73"
"""Colours of Okabe and Ito, which colour-blind people tell apart."""
STYLES = ("--", "-.", ":")


@dataclass(frozen=True)
class Exploration:
    """Contents of a figure.

    Attributes
    ----------
    planes, labels : across z, y and x; no labels without objects.
    extent : of the volume along (z, y, x), in nm or voxels.
    physical : whether that is nm.
    found : what `volseg.stages.explore.run.explore` returns.
    """

    planes: Sequence[NDArray[Any]]
    labels: Sequence[NDArray[Any]] | None
    extent: Sequence[float]
    physical: bool
    found: Mapping[str, Any]


def draw_exploration(path: Path, shown: Exploration) -> None:
    """Draw a figure; a file that is there is replaced."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.5), layout="constrained")
    grid = figure.add_gridspec(2, 12, height_ratios=(1.25, 1))
    scale, unit = (1e-3, "µm") if shown.physical else (1.0, "voxels")
    for axis in range(3):
        axes = figure.add_subplot(grid[0, 4 * axis : 4 * axis + 4])
        _draw_plane(axes, shown, axis, scale, unit)
    _draw_intensities(figure.add_subplot(grid[1, :3]), shown.found["intensities"])
    size, first = shown.found["voxel_size"], True
    for axis, name in enumerate("zyx"):
        if name in shown.found["correlation"]:  # as of unrelated images not along z
            axes = figure.add_subplot(grid[1, 3 + 3 * axis : 6 + 3 * axis])
            _draw_correlation(axes, name, shown.found["correlation"][name], size and size[axis])
            if first:
                axes.legend(fontsize="small")
            first = False
    name = Path(shown.found["volume"]).name
    figure.suptitle(f"{name}{_describe_objects(shown.found['objects'])}")
    save_figure(figure, path, parents=False)


def _draw_plane(axes: Any, shown: Exploration, axis: int, scale: float, unit: str) -> None:
    plane, name = shown.planes[axis], "zyx"[axis]
    down, across = (k for k in range(3) if k != axis)
    extent = (0, shown.extent[across] * scale, shown.extent[down] * scale, 0)
    seen = plane[np.isfinite(plane)]
    low, high = np.percentile(seen, (0.5, 99.5)) if seen.size else (0, 1)
    axes.imshow(plane, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest")
    if shown.labels is not None:
        labels = shown.labels[axis]
        inside = labels > 0
        rim = np.zeros_like(inside)
        rim[1:] |= labels[1:] != labels[:-1]
        rim[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        tint = np.zeros((*labels.shape, 4), np.float32)
        tint[inside] = (0.84, 0.37, 0, 0.18)
        tint[rim] = (0.84, 0.37, 0, 1)
        axes.imshow(tint, extent=extent, interpolation="nearest")
    position = shown.found["views"][name]
    axes.set(title=f"{name} = {position}", xlabel=f"{'zyx'[across]} ({unit})")
    axes.set_ylabel(f"{'zyx'[down]} ({unit})")


def _draw_intensities(axes: Any, counted: Mapping[str, Any]) -> None:
    axes.set(title="intensities", xlabel="intensity", ylabel="share of voxels")
    if not counted["edges"]:
        return
    for part, colour in (("outside", OUTSIDE), ("inside", INSIDE)):
        found = counted[part]
        if found["voxels"]:
            words = f"{part} objects, mean {found['mean']:.4g}, sd {found['sd']:.3g}"
            axes.stairs(found["shares"], counted["edges"], color=colour, label=words)
    if counted["overlap"] is not None:
        axes.set_title(f"intensities: {counted['overlap']:.0%} overlap")
    axes.legend(fontsize="small", loc="upper left")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])


def _draw_correlation(axes: Any, name: str, found: Mapping[str, Any], side: float | None) -> None:
    """Draw one axis, with the interval of what is not changed."""
    step, unit = (1, "voxels") if side is None else (side, "nm")
    distance = np.array(found["distance"]) * step
    low, high = (np.array(found[end], float) for end in ("low", "high"))
    axes.fill_between(distance, low, high, color=PLAIN, alpha=0.2, linewidth=0, label="95%")
    axes.plot(distance, np.array(found["correlation"], float), color=PLAIN, label="as it is")
    axes.plot(distance, np.array(found["flipped"], float), color=FLIPPED, label="flipped")
    noisy = [key for key in found if key.startswith("noise_")]
    for key, style in zip(noisy, STYLES, strict=True):
        words = f"noise of {key.removeprefix('noise_')} sd"
        axes.plot(distance, np.array(found[key], float), style, color=OUTSIDE, label=words)
    distorted = [key for key in found if key.startswith("elastic_")]
    for key, style in zip(distorted, STYLES, strict=False):
        words = f"distorted by {key.removeprefix('elastic_')} pixels"
        axes.plot(distance, np.array(found[key], float), style, color=INSIDE, label=words)
    axes.axhline(np.exp(-1), color="gray", linewidth=0.8)
    length = found["decay"]
    words = "1/e not reached"
    if length is not None:
        axes.axvline(length * step, color="gray", linewidth=0.8)
        words = f"1/e at {length * step:.3g} {unit}"
    axes.set(title=f"slices along {name}: {words}", xlabel=f"distance ({unit})")
    axes.set(ylabel="correlation", ylim=(min(-0.1, float(np.nanmin(low, initial=0))), 1.02))


def _describe_objects(objects: Mapping[str, Any] | None) -> str:
    if not objects or not objects["objects"]:
        return ""
    area, volume = f"{objects['mean_area_voxels']:.0f} pixels", ""
    if objects["mean_area_nm2"] is not None:
        area = f"{objects['mean_area_nm2']:,.0f} nm²"
    if "mean_voxels" in objects:
        volume = f", mean volume {objects['mean_voxels']:.0f} voxels"
    if objects.get("mean_um3") is not None:
        volume = f", mean volume {objects['mean_um3']:.4g} µm³"
    return f": {objects['objects']} objects, mean {area} in a slice{volume}"
