"""The data of the studies of the five documents: real ones, or blobs for a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

import volseg


@dataclass(frozen=True)
class Data:
    """An annotated stack, and which of its slices are for what.

    Attributes
    ----------
    train, validation, test : slices, start and stop; training sees the first alone.
    images : whether the slices are unrelated images.
    """

    name: str
    raw: str
    labels: str
    voxel_size: tuple[float, float, float]
    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]
    images: bool = False


EPFL = Data(
    *("epfl", "lucchi_pp/train_raw.tif", "lucchi_pp/train_labels.tif", (5, 5, 5)),
    *((0, 120), (120, 132), (132, 165)),
)
NCMIR = Data(
    *("ncmir", "ncmir/train_raw.tif", "ncmir/train_labels.tif", (24, 20, 20)),
    *((0, 12), (12, 15), (15, 20)),
)
ISBI = Data(
    *("isbi2012", "isbi2012/raw.tif", "isbi2012/labels.tif", (50, 4, 4)),
    *((0, 20), (20, 24), (24, 30)),
    images=True,
)
NUCLEI = Data(
    *("nuclei", "dsb2018/raw_128.tif", "dsb2018/instances_128.tif", (1, 1, 1)),
    *((0, 466), (466, 532), (532, 664)),
    images=True,
)


def rehearsed(data: Data, folder: Path) -> Data:
    """Write a stack of blobs in place of real data."""
    rng = np.random.default_rng(len(data.name))
    smooth = ndimage.gaussian_filter(rng.random((8, 64, 64)), (0 if data.images else 2, 5, 5))
    mask = smooth > np.quantile(smooth, 0.85)
    noise = rng.normal(0, 8, mask.shape)
    raw = (140 - 60 * mask + noise).clip(0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("raw", raw), ("labels", mask * np.uint8(255))):
        path = folder / f"{data.name}-{name}.tif"
        if not path.exists():
            tifffile.imwrite(path, values, photometric="minisblack")
    return replace(
        data,
        raw=str(folder / f"{data.name}-raw.tif"),
        labels=str(folder / f"{data.name}-labels.tif"),
        train=(0, 5),
        validation=(5, 6),
        test=(6, 8),
    )


def located(
    data: Data, annotated: Path | None, folder: Path, window: tuple[int, int, int] | None = None
) -> Data:
    """Find real data below a folder, or cut a window out of them; without a folder, rehearse."""
    if annotated is None:
        return rehearsed(data, folder / "data")
    found = replace(data, raw=str(annotated / data.raw), labels=str(annotated / data.labels))
    return found if window is None or data.images else cut_out(found, window, folder / "data")


def cut_out(data: Data, window: tuple[int, int, int], folder: Path) -> Data:
    """Write the last slices to train on, all that follow up to some to test, and their middle."""
    train, test, side = window
    first = max(data.train[1] - train, data.train[0])
    last = min(data.test[0] + test, data.test[1])
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{data.name}-{name}.tif" for name in ("raw", "labels")}
    for name, path in paths.items():
        if not path.exists():
            stack = tifffile.imread(getattr(data, name), key=range(first, last))
            y, x = (slice(max(n - side, 0) // 2, (n + side) // 2) for n in stack.shape[1:])
            part = path.with_suffix(".part.tif")  # a kill leaves no torn file for the next run
            tifffile.imwrite(part, stack[:, y, x], photometric="minisblack")
            part.replace(path)
    return replace(
        data,
        **{name: str(path) for name, path in paths.items()},
        train=(0, data.train[1] - first),
        validation=(data.validation[0] - first, data.validation[1] - first),
        test=(data.test[0] - first, last - first),
    )


def converted(data: Data, folder: Path) -> Path:
    """Make the volume of a stack, once."""
    volume = folder / "volumes" / f"{data.name}.zarr"
    if not volume.exists():
        volume.parent.mkdir(parents=True, exist_ok=True)
        volseg.convert(data.raw, volume, voxel_size=data.voxel_size, images=data.images)
    return volume


def truth_of(data: Data, part: tuple[int, int]) -> Any:
    """Read the labels of some slices."""
    return tifffile.imread(data.labels, key=range(*part))


def region(part: tuple[int, int]) -> str:
    """Write slices as `--roi` takes them."""
    return f"{part[0]}:{part[1]},:,:"


def slug(text: str) -> str:
    """Make a name of a result out of any words."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)
