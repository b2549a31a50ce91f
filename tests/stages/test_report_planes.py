"""Planes of a report are those of the volume, whatever its chunks and levels."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.stages.report.planes import Frame, Source, frame_of, read_image, read_planes


@pytest.mark.parametrize("chunk", [(4, 5, 6), (32, 64, 64)])
def test_planes_are_those_of_the_array(chunk):
    array = np.random.default_rng(5).integers(0, 255, (17, 23, 31), np.uint8)
    region = slice(2, 15), slice(0, 23), slice(5, 31)
    pixels = tuple(np.arange(s.start, s.stop) for s in region)
    picks = np.array([3, 14]), np.array([0, 11, 22]), np.array([30])
    frame = Frame(region, pixels, picks, 64)
    found = read_planes(Source(array, array.shape, chunk, (1.0, 1.0, 1.0)), frame)
    for axis in range(3):
        assert (
            found[axis] == np.moveaxis(array[region], axis, 0)[picks[axis] - region[axis].start]
        ).all()


def test_levels_show_the_same_places(volseg, tmp_path):
    import tifffile

    from volseg.storage.volumes import open_image

    z, y, x = np.indices((40, 80, 96))
    raw = (z * 2 + y + x // 2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", raw, photometric="minisblack")
    assert volseg("convert", tmp_path / "a.tif", tmp_path / "a.zarr", "-q").exit_code == 0
    image = open_image(tmp_path / "a.zarr")
    region = slice(0, 40), slice(0, 80), slice(0, 96)
    frame = frame_of(image, region, 50, (3, 2, 2))
    assert frame.shape == (20, 40, 48)
    coarse = read_image(image, frame)
    fine = read_planes(Source(raw, raw.shape, (8, 80, 96), (1.0, 1.0, 1.0)), frame)
    for a, b in zip(coarse, fine, strict=True):
        assert a.shape == b.shape
        assert np.abs(a.astype(int) - b).max() <= 4


def test_a_small_region_has_as_many_planes_as_voxels(volseg, tmp_path):
    import tifffile

    from volseg.storage.volumes import open_image

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 32, 32), np.uint8), photometric="minisblack")
    assert volseg("convert", tmp_path / "a.tif", tmp_path / "a.zarr", "-q").exit_code == 0
    frame = frame_of(
        open_image(tmp_path / "a.zarr"), (slice(2, 4), slice(0, 32), slice(3, 8)), 64, (24, 3, 12)
    )
    assert frame.picks[0].tolist() == [2, 3]
    assert frame.picks[2].tolist() == [3, 4, 5, 6, 7]
    assert frame.shape == (2, 32, 5)
