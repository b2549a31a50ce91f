"""Volumes that `volseg convert` could have made, in shards as small as a test wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from volseg.geometry.grid import full_roi
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.volumes import create_image, labels_path, register_label
from volseg.voxels.downsample import reduce_labels, reduce_mean


def write_raw(
    path: Path,
    raw: np.ndarray,
    shard=(8, 32, 32),
    voxel_size=(5.0, 5.0, 5.0),
    *,
    chunk=None,
    **noted: Any,
) -> Path:
    """Write a volume with its histogram and all levels; a chunk is half a shard unless told."""
    values, counts = np.unique(raw, return_counts=True)
    histogram = {"values": values.tolist(), "counts": counts.tolist()}
    spec = ArraySpec(raw.shape, "uint8", chunk or tuple(s // 2 for s in shard), shard)
    attributes = {"histogram": histogram, "fingerprint": "test", "complete": True, **noted}
    image = create_image(path, spec, voxel_size, attributes=attributes)
    for k, level in enumerate(image.levels):
        if k > 0:
            factor = np.divide(image.factors[k], image.factors[k - 1]).astype(int)
            raw = reduce_mean(raw, tuple(factor.tolist()))
        level.write(full_roi(level.shape), raw)
    return path


def write_labels(
    volume: Path, labels: np.ndarray, space, name="mitochondria", **noted: Any
) -> Path:
    """Write complete labels, with all levels, into a volume."""
    path = labels_path(volume, name)
    noted = {"complete": True, "fingerprint": name, "objects": int(labels.max()), **noted}
    spec = fit_spec(labels.shape, labels.dtype.name)
    image = create_image(path, spec, space, label=True, attributes=noted)
    for k, level in enumerate(image.levels):
        if k > 0:
            factor = np.divide(image.factors[k], image.factors[k - 1]).astype(int)
            labels = reduce_labels(labels, tuple(factor.tolist()))
        level.write(full_roi(level.shape), labels)
    register_label(volume, name)
    return path
