"""Folders as bioformats2raw lays them out: images by their numbers in one group."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError, VolumeError
from volseg.sources.open import open_stack
from volseg.storage.volumes import open_image

RAW = make_stack((9, 20, 17))
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def write(path, count, version):
    """Write images whose axes are t, c, z, y, x and whose voxels measure 30, 4 and 5 nm."""
    layout = {"bioformats2raw.layout": 3}
    root = zarr.create_group(path, zarr_format=version)
    root.attrs.update(layout if version == 2 else {"ome": {"version": "0.5", **layout}})
    root.create_group("OME").attrs["series"] = [str(k) for k in range(count)]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    for k in range(count):
        image = root.create_group(str(k))
        scale = [{"type": "scale", "scale": [1.0, 1.0, 0.03, 0.004, 0.005]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        multiscales = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        ome = {"multiscales": multiscales}
        image.attrs.update(ome if version == 2 else {"ome": {"version": "0.5", **ome}})
        image.create_array("0", data=RAW[None, None] + k, chunks=(1, 1, 1, 8, 8))
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_the_only_image_is_converted(tmp_path, volseg, version):
    source = write(tmp_path / "a.zarr", 1, version)
    done = volseg("convert", source, tmp_path / "v.zarr")
    assert done.exit_code == 0, done.output
    image = open_image(tmp_path / "v.zarr")
    np.testing.assert_array_equal(image.levels[0][:], RAW)
    assert image.voxel_size == pytest.approx((30, 4, 5))
    noted = image.attributes["source"]
    assert (noted["first"], noted["image"]) == ("a.zarr", "0")


@pytest.mark.parametrize("version", [2, 3])
def test_one_of_several_is_chosen(tmp_path, version):
    source = write(tmp_path / "a.zarr", 3, version)
    np.testing.assert_array_equal(read_pages(source, series=2), RAW + 2)
    np.testing.assert_array_equal(read_pages(source / "1"), RAW + 1)
    with pytest.raises(SourceError, match="choose with --series 0 to 2"):
        open_stack(source)
    for series in (-1, 3):
        with pytest.raises(SourceError, match=r"has 3 image\(s\)"):
            read_pages(source, series=series)


@pytest.mark.parametrize("version", [2, 3])
def test_commands_that_write_into_a_volume_name_the_image(tmp_path, volseg, version):
    source = write(tmp_path / "a.zarr", 1, version)
    with pytest.raises(VolumeError, match=rf"name one: {source}/0"):
        open_image(source)
    assert volseg("info", source).exit_code == 2
    assert volseg("info", source / "0").exit_code == 0
