"""Labels from anyone: masks of type bool, too."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from volseg.geometry.grid import full_roi
from volseg.sources.labels import open_label_path

SHAPE = (5, 13, 19)


@pytest.mark.parametrize("form", ["plain.tif", "zlib.tif", "v2.zarr", "v3.zarr"])
def test_a_mask_of_type_bool_is_read_as_0_and_1(tmp_path, form):
    mask, path = np.random.default_rng(1).random(SHAPE) < 0.3, tmp_path / form
    name, kind = form.split(".")
    if kind == "tif":
        how = {} if name == "plain" else {"compression": name}
        tifffile.imwrite(path, mask, photometric="minisblack", **how)
    else:
        zarr.create_array(path, data=mask, chunks=(2, 8, 8), zarr_format=int(name[1]))
    source = open_label_path(path)
    assert source[full_roi(SHAPE)].dtype == np.uint8
    np.testing.assert_array_equal(source[full_roi(SHAPE)], mask)
