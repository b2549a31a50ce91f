"""Voxel sizes: read where they stand, in nm, and never invented."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from volseg.errors import VoxelSizeError
from volseg.sources.formats.ome_tiff import read_ome
from volseg.sources.open import open_stack
from volseg.sources.voxel_size import StatedSize, settle_voxel_size

RAW = np.zeros((5, 8, 9), np.uint8)


def size_of(path, given=None):
    stack = open_stack(path)
    stack.close()
    return settle_voxel_size(stack.stated, given)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("nm", 1), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("um", 1e-3), ("mm", 1e-6)],
)
def test_imagej_units(tmp_path, unit, scale):
    tifffile.imwrite(
        tmp_path / "s.tif",
        RAW,
        imagej=True,
        resolution=(1 / (4 * scale), 1 / (6 * scale)),
        metadata={"spacing": 50 * scale, "unit": unit, "axes": "ZYX"},
    )
    size, origin, _ = size_of(tmp_path / "s.tif")
    np.testing.assert_allclose(size, (50, 6, 4), rtol=1e-4)
    assert origin == "its ImageJ description"


def test_a_negative_spacing_of_imagej_is_a_direction(tmp_path):
    form = {"spacing": -50, "unit": "nm", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "s.tif", RAW, imagej=True, resolution=(0.25, 0.25), metadata=form)
    assert size_of(tmp_path / "s.tif")[0] == (50.0, 4.0, 4.0)


@pytest.mark.parametrize(("unit", "scale"), [("nm", 1), ("µm", 1e-3), ("Å", 10), (None, 1e-3)])
def test_ome_xml_units(tmp_path, unit, scale):
    metadata = {"axes": "ZYX"}
    for axis, value in zip("ZYX", (50, 6, 4), strict=True):
        metadata[f"PhysicalSize{axis}"] = value * scale
        if unit:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    tifffile.imwrite(tmp_path / "s.ome.tif", RAW, metadata=metadata)
    size, _, _ = size_of(tmp_path / "s.ome.tif")
    np.testing.assert_allclose(size, (50, 6, 4), rtol=1e-6)


def test_resolution_tags_alone_leave_the_size_unknown(tmp_path):
    tifffile.imwrite(
        tmp_path / "s.tif", RAW, resolution=(2.5e6, 2.5e6), resolutionunit="CENTIMETER"
    )
    size, _, warnings = size_of(tmp_path / "s.tif")
    assert size is None
    assert warnings == ("the source says only unknown,4,4 nm (z,y,x) of its voxels' size",)


@pytest.mark.parametrize("dpi", [72, 96, 300, 2540, 4800, 25400])
def test_screen_resolutions_are_no_voxel_sizes(tmp_path, dpi):
    tifffile.imwrite(tmp_path / "s.tif", RAW, resolution=(dpi, dpi), resolutionunit="INCH")
    size, origin, warnings = size_of(tmp_path / "s.tif")
    assert (size, origin, warnings) == (None, None, ())


def test_the_flag_overrides_and_says_so(tmp_path):
    tifffile.imwrite(
        tmp_path / "s.tif",
        RAW,
        imagej=True,
        resolution=(0.25, 0.25),
        metadata={"spacing": 50, "unit": "nm", "axes": "ZYX"},
    )
    size, origin, warnings = size_of(tmp_path / "s.tif", (40.0, 4.0, 4.0))
    assert (size, origin) == ((40.0, 4.0, 4.0), "--voxel-size")
    assert warnings == ("--voxel-size 40,4,4 nm overrides 50,4,4 nm in its ImageJ description",)
    assert size_of(tmp_path / "s.tif", (50.0, 4.0, 4.0))[2] == ()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((50.0, 4.6, 4.6), None),
        ((4.0, 8.0, 8.0), None),
        ((50.0, 4.6, 4.8), None),
        ((4.6, 4.6, 50.0), "pixels of 4.6 x 50 nm, not square; the order is Z,Y,X"),
        ((0.2, 0.01, 0.01), "smaller than an atom; of µm, give 1000 times as much"),
    ],
)
def test_another_order_or_unit_on_the_command_line_is_told(given, told):
    size, _, warnings = settle_voxel_size([], given)
    assert size == given
    assert [w.endswith(told) for w in warnings] == ([True] if told else [])


def test_a_file_that_contradicts_itself_is_an_error_that_prints_both(tmp_path):
    sizes = {f"PhysicalSize{axis}": 5 for axis in "ZYX"}
    sizes |= {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    tifffile.imwrite(
        tmp_path / "s.ome.tif",
        RAW,
        metadata={"axes": "ZYX", **sizes},
        resolution=(1e6, 1e6),
        resolutionunit="CENTIMETER",
    )
    both = r"OME-XML says 5,5,5 nm.*resolution tags unknown,10,10 nm.*--voxel-size"
    with pytest.raises(VoxelSizeError, match=both):
        size_of(tmp_path / "s.ome.tif")
    assert size_of(tmp_path / "s.ome.tif", (5.0, 5.0, 5.0))[0] == (5.0, 5.0, 5.0)


def test_parts_that_agree_are_put_together():
    stated = [StatedSize((50.0, None, None), "a"), StatedSize((None, 4.0, 4.0), "b")]
    assert settle_voxel_size(stated, None) == ((50.0, 4.0, 4.0), "a and b", ())


@pytest.mark.parametrize("size", [(0.0, 1.0, 1.0), (5.0, -1.0, 5.0), (5.0, float("nan"), 5.0)])
def test_a_size_is_three_positive_numbers(size):
    with pytest.raises(VoxelSizeError, match="three positive numbers"):
        settle_voxel_size([], size)


@pytest.mark.parametrize("text", ["", "<a/>", "not xml", "<Pixels PhysicalSizeX='x'/>"])
def test_damaged_ome_xml_describes_nothing(text):
    assert read_ome(text) == []


def test_entities_that_expand_without_bound_are_not_expanded():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><Pixels PhysicalSizeX="&a;"/>'
    assert read_ome(bomb) == []


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (34682, b"[Scan]\r\nPixelWidth=4e-009\r\nPixelHeight=6e-009\r\n[Stage]\r\n", (6, 4)),
        (34680, b"[EScan]\r\nPixelWidth=4e-009\r\nPixelHeight=6e-009\r\n", (6, 4)),
        (34118, b"\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 5.500 nm\r\n", (5.5, 5.5)),
        (
            34118,
            "\r\nAP_PIXEL_SIZE\r\nPixel Size = 0.0055 \u00b5m\r\n".encode("cp1252"),
            (5.5, 5.5),
        ),
        (50431, b"\0\1[MAIN]\r\nPixelSizeX=4e-9\r\nPixelSizeY=6e-9\r\n", (6, 4)),
    ],
)
def test_microscopes_say_how_large_pixels_are(tmp_path, code, text, expected):
    tags = [(code, 7 if code == 50431 else 2, len(text), text, True)]
    tifffile.imwrite(
        tmp_path / "s.tif", RAW, photometric="minisblack", metadata=None, extratags=tags
    )
    size, _, warnings = size_of(tmp_path / "s.tif")
    assert size is None
    y, x = expected
    assert f"says only unknown,{y:g},{x:g} nm (z,y,x)" in warnings[0]


@pytest.mark.parametrize(
    ("dpi", "unit"),
    [
        *((240, "INCH"), (10, "CENTIMETER"), (1, "CENTIMETER"), (72, "INCH"), (2540, "INCH")),
        *((4800, "INCH"), (25400, "INCH"), (1000, "CENTIMETER"), (10000, "CENTIMETER"), (1, 1)),
    ],
)
def test_defaults_of_programs_do_not_contradict_ome_xml(tmp_path, dpi, unit):
    sizes = {f"PhysicalSize{axis}": 5000 for axis in "ZYX"}
    sizes |= {f"PhysicalSize{axis}Unit": "pm" for axis in "ZYX"}
    form = {"resolution": (dpi, dpi), "resolutionunit": unit, "metadata": {"axes": "ZYX", **sizes}}
    tifffile.imwrite(tmp_path / "s.ome.tif", RAW, **form)
    assert size_of(tmp_path / "s.ome.tif")[0] == (5, 5, 5)


def test_resolutions_of_prints_fill_no_gap_of_ome_xml(tmp_path):
    form = {"axes": "ZYX", "PhysicalSizeZ": 30, "PhysicalSizeZUnit": "nm"}
    for dpi, size in ((4800, None), (25.4e6 / 5, (30, 5, 5))):
        path = tmp_path / f"{dpi}.ome.tif"
        tifffile.imwrite(path, RAW, metadata=form, resolution=(dpi, dpi), resolutionunit="INCH")
        assert size_of(path)[0] == size


@pytest.mark.parametrize("unit", ["nm", "um"])
def test_a_pixel_of_one_unit_is_told_of(tmp_path, unit):
    # written by tifffile, and by whoever sets a spacing alone
    form = {"spacing": 2, "unit": unit, "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "s.tif", RAW, imagej=True, metadata=form)
    size, _, warnings = size_of(tmp_path / "s.tif")
    scale = 1 if unit == "nm" else 1000
    assert size == (2 * scale, scale, scale)
    assert f"says {2 * scale:g},{scale:g},{scale:g} nm (z,y,x), and programs that" in warnings[0]


@pytest.mark.parametrize("dpi", [72, 4800])
def test_imagej_at_pixels_per_inch_of_paper_knows_no_size(tmp_path, dpi):
    form = {"unit": "inch", "spacing": 1 / dpi, "axes": "ZYX"}
    form = {"resolution": (dpi, dpi), "metadata": form}
    tifffile.imwrite(tmp_path / "s.tif", RAW, imagej=True, **form)
    assert size_of(tmp_path / "s.tif") == (None, None, ())
