"""Zarr images of several channels and times, and of axes in any order: one volume of them."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
import zarr

import volseg
from toy_stacks import make_stack, read_pages
from volseg.errors import ConflictError, SourceError
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection
from volseg.sources.stamps import find_stamp
from volseg.stages.convert.plan import ConvertOptions, is_converted
from volseg.storage.volumes import open_image

SIZES = {"t": 3, "c": 2, "z": 9, "y": 20, "x": 17, "f": 1}
SCALE = {"t": 7.0, "c": 1.0, "z": 0.03, "y": 0.004, "x": 0.005, "f": 1.0}
KINDS = {"t": "time", "c": "channel", "f": "filter"}
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def write(path, axes, version=3, raw=None):
    """Write an image of axes of those sizes, of voxels of 30, 4 and 5 nm, not at the origin."""
    raw = make_stack([SIZES[a] for a in axes], "uint16") if raw is None else raw
    root = zarr.create_group(path, zarr_format=version)
    scale = [SCALE[a] for a in axes]
    moved = [100 * SCALE[a] if a in "zyx" else 0.0 for a in axes]
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": moved}]
    named = [
        {"name": a, "type": KINDS.get(a, "space")} | ({"unit": "micrometer"} if a in "zyx" else {})
        for a in axes
    ]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    ome = {"multiscales": [{"version": "0.4", "axes": named, "datasets": datasets}]}
    root.attrs.update(ome if version == 2 else {"ome": {"version": "0.5", **ome}})
    root.create_array("0", data=raw, chunks=tuple(min(n, 8) for n in raw.shape))
    return raw


def pick(raw, axes, **fixed):
    """Pick from an array, by plain numpy, and put what is left in the order z, y, x."""
    for axis, k in fixed.items():
        raw, axes = np.take(raw, k, axes.index(axis)), axes.replace(axis, "")
    return raw.transpose([axes.index(a) for a in "zyx"])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("axes", ["tczyx", "ctzyx", "zyxc", "cxyz", "xyz", "tyzx", "fcxyz"])
def test_one_volume_of_an_image_of_any_axes(tmp_path, volseg, axes, version):
    raw = write(tmp_path / "a.zarr", axes, version)
    chosen = {a: k for a, k in {"t": 2, "c": 1}.items() if a in axes}
    expected = pick(raw, axes, **chosen, **({"f": 0} if "f" in axes else {}))
    flags = [w for a, k in chosen.items() for w in ({"t": "--time", "c": "--channel"}[a], k)]
    done = volseg("convert", tmp_path / "a.zarr", tmp_path / "v.zarr", *flags)
    assert done.exit_code == 0, done.output
    image = open_image(tmp_path / "v.zarr")
    np.testing.assert_array_equal(image.levels[0][:], expected)
    assert image.voxel_size == pytest.approx((30, 4, 5))
    assert image.space.origin == pytest.approx((3, 0.4, 0.5))
    np.testing.assert_array_equal(
        read_pages(tmp_path / "a.zarr", chosen.get("c"), time=chosen.get("t")), expected
    )


@pytest.mark.parametrize("axes", ["tczyx", "cxyz"])
def test_channels_and_times_are_asked_for(tmp_path, axes):
    write(tmp_path / "a.zarr", axes)
    with pytest.raises(SourceError, match="2 channels, a volume has one: choose with --channel"):
        open_stack(tmp_path / "a.zarr", Selection(time=0))
    if "t" in axes:
        with pytest.raises(SourceError, match="time series of 3 volumes: choose with --time 0"):
            open_stack(tmp_path / "a.zarr", Selection(channel=0))
    else:
        with pytest.raises(SourceError, match="--time is 2"):
            open_stack(tmp_path / "a.zarr", Selection(channel=0, time=2))


def test_unrelated_images_keep_their_names_and_sizes_in_any_order_of_axes(tmp_path):
    write(tmp_path / "a.zarr", "yxz")
    names, sizes = [f"{k}.png" for k in range(9)], [[20, 17 - k] for k in range(9)]
    noted = {"images": {"count": 9, "names": names, "sizes": sizes}}
    zarr.open_group(tmp_path / "a.zarr").attrs["volseg"] = noted
    for flags in ({}, {"images": True}):
        volseg.convert(tmp_path / "a.zarr", tmp_path / "v.zarr", overwrite=True, **flags)
        image = open_image(tmp_path / "v.zarr")
        assert image.attributes["images"] == noted["images"]
        assert image.space.planar


def test_sizes_go_with_axes_that_the_user_names(tmp_path):
    raw = write(tmp_path / "a.zarr", "zyx")
    np.testing.assert_array_equal(read_pages(tmp_path / "a.zarr", axes="xyz"), raw.T)
    stack = open_stack(tmp_path / "a.zarr", Selection(axes="xyz"))
    assert stack.stated[0].axes == pytest.approx((5, 4, 30))
    assert stack.space.origin == (0, 0, 0)


def test_a_plane_is_a_stack_of_one_whose_depth_is_unknown(tmp_path):
    raw = write(tmp_path / "a.zarr", "cyx")
    stack = open_stack(tmp_path / "a.zarr", Selection(1))
    np.testing.assert_array_equal(read_pages(tmp_path / "a.zarr", 1), raw[1][None])
    assert stack.stated[0].axes == pytest.approx((None, 4, 5))


def test_axes_of_an_array_by_its_dimensions_or_by_request(tmp_path):
    raw = make_stack((17, 20, 9))
    dimensions = {"dimension_names": ("x", "y", "z")}
    zarr.create_array(tmp_path / "named", data=raw, **dimensions)
    zarr.create_array(tmp_path / "odd", data=raw, dimension_names=("dim_0", "dim_1", "dim_2"))
    np.testing.assert_array_equal(read_pages(tmp_path / "named"), raw.T)
    np.testing.assert_array_equal(read_pages(tmp_path / "odd"), raw)
    np.testing.assert_array_equal(read_pages(tmp_path / "odd", axes="xyz"), raw.T)
    zarr.create_array(tmp_path / "four", data=raw[None].repeat(2, 0))
    with pytest.raises(SourceError, match="does not say which axes are z, y and x: say so with"):
        read_pages(tmp_path / "four")
    np.testing.assert_array_equal(read_pages(tmp_path / "four", 1, axes="cxyz"), raw.T)


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.ozx"])
def test_a_zip_file_of_channels(tmp_path, name):
    raw = write(tmp_path / "a.zarr", "czyx")
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for file in sorted((tmp_path / "a.zarr").rglob("*")):
            archive.write(file, file.relative_to(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(read_pages(tmp_path / name, 1), raw[1])


def test_an_array_in_a_zip_file_is_converted_and_known_again(tmp_path):
    raw = np.random.default_rng(0).integers(0, 255, (4, 20, 20)).astype(np.uint8)
    source, volume = tmp_path / "a.zarr.zip", tmp_path / "v.zarr"
    zarr.create_array(tmp_path / "a" / "em", data=raw, chunks=(2, 10, 10))

    with zipfile.ZipFile(source, "w") as archive:
        for path in (tmp_path / "a").rglob("*"):
            archive.write(path, path.relative_to(tmp_path / "a"))
    volseg.convert(source / "em", volume)
    np.testing.assert_array_equal(open_image(volume).levels[0][:], raw)
    assert is_converted(source / "em", volume, ConvertOptions())
    before = find_stamp(source / "em")
    os.utime(source, (0, 0))
    assert find_stamp(source / "em") != before
    with pytest.raises(ConflictError, match="the date of its source"):
        is_converted(source / "em", volume, ConvertOptions())


@pytest.mark.parametrize(
    ("axes", "units", "told"),
    [
        ("zyx", {}, "a.zarr has a scale of 0.03,0.004,0.005 (z,y,x) without a unit; if that is µm"),
        ("tczyx", {}, "if that is µm, give --voxel-size 30,4,5"),
        ("zyx", {"z": "micrometer", "y": "micrometer"}, "says only 30,4,unknown nm (z,y,x)"),
        ("zyx", dict.fromkeys("zyx", "pixel"), "if that is µm, give --voxel-size 30,4,5"),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_a_scale_without_a_unit_is_told_and_not_taken(tmp_path, axes, units, told, version):
    write(tmp_path / "a.zarr", axes, version)
    root = zarr.open_group(tmp_path / "a.zarr")
    ome = dict(root.attrs) if version == 2 else root.attrs["ome"]
    for axis in ome["multiscales"][0]["axes"]:
        axis.pop("unit", None)
        axis.update({"unit": units[axis["name"]]} if axis["name"] in units else {})
    root.attrs.update(ome if version == 2 else {"ome": ome})
    chosen = {"time": 0, "channel": 0} if axes == "tczyx" else {}
    done = volseg.convert(tmp_path / "a.zarr", tmp_path / "v.zarr", **chosen)
    assert done.voxel_size is None
    assert any(told in warning for warning in done.warnings)


@pytest.mark.parametrize("axes", ["ZYX", "CZYX"])
def test_axes_in_capitals_are_the_same(tmp_path, axes):
    raw = write(tmp_path / "a.zarr", axes.lower())
    ome = zarr.open_group(tmp_path / "a.zarr").attrs["ome"]
    for axis in ome["multiscales"][0]["axes"]:
        axis["name"] = axis["name"].upper()
    zarr.open_group(tmp_path / "a.zarr").attrs["ome"] = ome
    chosen = {"channel": 1} if "C" in axes else {}
    done = volseg.convert(tmp_path / "a.zarr", tmp_path / "v.zarr", **chosen)
    assert done.voxel_size == pytest.approx((30, 4, 5))
    image = open_image(tmp_path / "v.zarr")
    assert image.space.origin == pytest.approx((3, 0.4, 0.5))
    np.testing.assert_array_equal(image.levels[0][:], raw[1] if "C" in axes else raw)
