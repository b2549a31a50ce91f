"""Levels written from the top down equal those of the whole, however the rows come in."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.geometry.grid import full_roi
from volseg.stages.convert.run import LevelWriter
from volseg.storage.arrays import ArraySpec
from volseg.storage.volumes import create_image
from volseg.voxels.downsample import reduce_mean

SPEC = ArraySpec((45, 70, 65), "uint8", (2, 16, 16), (4, 32, 32))


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("size", [None, (12.0, 5.0, 5.0)])
def test_rows_in_parts_of_a_shard(tmp_path, depth, size):
    content = np.random.default_rng(0).integers(0, 256, SPEC.shape, np.uint8)
    image = create_image(tmp_path / "v", SPEC, size, attributes={})
    writer = LevelWriter(image, 0)
    for start in range(0, SPEC.shape[0], depth):
        writer.add(content[start : start + depth])
    assert len(image.levels) > 1
    for k, level in enumerate(image.levels):
        np.testing.assert_array_equal(level[full_roi(level.shape)], content)
        if k + 1 < len(image.levels):
            pair = zip(image.factors[k + 1], image.factors[k], strict=True)
            content = reduce_mean(content, tuple(round(a / b) for a, b in pair))
