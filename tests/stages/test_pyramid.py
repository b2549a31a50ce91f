"""Coarser levels built block by block equal those of the whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.stages.levels import build_pyramid
from volseg.storage.arrays import ArraySpec
from volseg.storage.volumes import create_image
from volseg.voxels.downsample import reduce_labels, reduce_mean

SPEC = ArraySpec((45, 131, 150), "uint32", (3, 16, 16), (6, 32, 48))


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("size", [None, (40.0, 5.0, 5.0)])
def test_any_block_equals_the_whole(tmp_path, label, size):
    dtype = "uint32" if label else "uint8"
    content = np.random.default_rng(0).integers(0, 4, SPEC.shape, dtype)
    spec = dataclasses.replace(SPEC, dtype=dtype)
    image = create_image(tmp_path / "v", spec, size, label=label, attributes={})
    image.levels[0].write(full_roi(SPEC.shape), content)
    build_pyramid(image, EngineOptions(workers=2), NoProgress(), label=label)
    assert len(image.levels) > 2
    for k in range(1, len(image.levels)):
        pair = zip(image.factors[k], image.factors[k - 1], strict=True)
        factor = tuple(round(a / b) for a, b in pair)
        content = (reduce_labels if label else reduce_mean)(content, factor)
        level = image.levels[k]
        np.testing.assert_array_equal(level[full_roi(level.shape)], content)
