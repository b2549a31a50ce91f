"""Images in TIFF files: axes, order and number of planes are what the file says they are."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection
from volseg.sources.voxel_size import settle_voxel_size

RAW = make_stack((8, 24, 32))
OTHER = 255 - RAW
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def warnings_of(path, **selection):
    stack = open_stack(path, Selection(**selection))
    stack.close()
    return stack.warnings


def size_of(path, **selection):
    stack = open_stack(path, Selection(**selection))
    stack.close()
    return settle_voxel_size(stack.stated, None)[0]


@pytest.mark.parametrize("form", [{}, {"compression": "zlib"}, {"bigtiff": True}])
@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
def test_channels_that_tifffile_describes_are_chosen(tmp_path, axes, form):
    both = np.stack([RAW, OTHER], axes.index("C"))
    tifffile.imwrite(
        tmp_path / "s.tif", both, photometric="minisblack", metadata={"axes": axes}, **form
    )
    with pytest.raises(SourceError, match="2 channels, a volume has one: choose with --channel"):
        read_pages(tmp_path / "s.tif")
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif", 1), OTHER)
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif", 0), RAW)


def test_axes_that_nobody_named_are_asked_for(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, np.stack([RAW, OTHER]), photometric="minisblack")
    with pytest.raises(SourceError, match=r"holds Q 2, Q 8, Y 24, X 32, slowest first.*--axes"):
        read_pages(path)
    np.testing.assert_array_equal(read_pages(path, 1, axes="CZYX"), OTHER)
    np.testing.assert_array_equal(read_pages(path, 3, axes="ZCYX"), np.stack([RAW[3], OTHER[3]]))
    with pytest.raises(SourceError, match="time series of 2 volumes"):
        read_pages(path, axes="TZYX")


@pytest.mark.parametrize("axes", ["ZYX", "CZXY", "CCYX", "CZYQ", "YXCZ"])
def test_axes_that_do_not_fit_are_refused(tmp_path, axes):
    tifffile.imwrite(tmp_path / "s.tif", np.stack([RAW, OTHER]), photometric="minisblack")
    with pytest.raises(SourceError, match="name each by one of Z, C, T, Y and X"):
        read_pages(tmp_path / "s.tif", axes=axes)


@pytest.mark.parametrize("axes", ["YXZ", "ZXY", "YZX"])
def test_pages_of_other_axes_than_y_and_x_are_refused(tmp_path, axes):
    tifffile.imwrite(tmp_path / "s.tif", RAW, photometric="minisblack", metadata={"axes": axes})
    with pytest.raises(SourceError, match="the last two must be Y and X"):
        read_pages(tmp_path / "s.tif")


@pytest.mark.parametrize("form", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_slices_that_were_written_as_colours(tmp_path, planar, form):
    """Older programs took a stack of three or four slices for one page of colours."""
    few = RAW[:4] if planar == "separate" else np.moveaxis(RAW[:4], 0, 2)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, few, photometric="rgb", planarconfig=planar, **form)
    with pytest.raises(SourceError, match=r"4 channels.*--axes ZYX if they are slices"):
        read_pages(path)
    if planar == "separate":  # images of colours become greys, but not four images one
        with pytest.raises(SourceError, match=r"4 channels.*--axes ZYX if they are slices"):
            read_pages(path, images=True, grey=True)
    np.testing.assert_array_equal(read_pages(path, 2)[0], RAW[2])
    axes = "ZYX" if planar == "separate" else "YXZ"
    np.testing.assert_array_equal(read_pages(path, axes=axes), RAW[:4])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_one_page_that_describes_many_planes(tmp_path, dtype):
    raw = make_stack((8, 24, 32), dtype)
    tifffile.imwrite(tmp_path / "s.tif", raw, truncate=True, photometric="minisblack")
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), raw)
    content = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(content[: -3 * raw[0].nbytes])
    with pytest.raises(SourceError, match=r"truncated or damaged: .*8 images, 5 are complete"):
        read_pages(tmp_path / "s.tif")


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_one_page_that_describes_many_planes_of_colours(tmp_path, planar):
    colours = make_stack((5, 3, 24, 32))
    written = colours if planar == "separate" else np.moveaxis(colours, 1, 3)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, written, truncate=True, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_pages(path, 1), colours[:, 1])


def test_imagej_keeps_large_stacks_in_one_page(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", RAW, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), RAW)


def test_metamorph_stacks(tmp_path):
    """One page; the number of planes is that of the values of the tag UIC2."""
    path, count = tmp_path / "s.stk", len(RAW)
    places = np.tile(np.array([30, 1, 1, 1, 1, 1], "<u4"), (count, 1))
    # tifffile writes neither these tags nor fewer values than there are
    tags = [(65028, 5, count, (30, 1) * count, True), (65029, 5, 3 * count, places.tobytes(), True)]
    tifffile.imwrite(
        path, RAW, truncate=True, photometric="minisblack", metadata=None, extratags=tags
    )
    content = bytearray(path.read_bytes())
    for code, true in ((65028, 33628), (65029, 33629)):
        struct.pack_into(
            "<HHI", content, content.index(struct.pack("<HH", code, 5)), true, 5, count
        )
    path.write_bytes(content)
    assert tifffile.imread(path).shape == RAW.shape
    np.testing.assert_array_equal(read_pages(path), RAW)


def test_planes_without_a_page_are_told_of(tmp_path):
    path = tmp_path / "s.tif"
    raw = make_stack((8, 256, 256))
    tifffile.imwrite(path, raw[0], photometric="minisblack", metadata=None)
    assert warnings_of(path) == ()
    path.write_bytes(path.read_bytes() + raw[1:].tobytes())
    assert "as large as 7 planes" in warnings_of(path)[0]


def test_two_images_in_a_file_are_chosen_from(tmp_path):
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(RAW, photometric="minisblack", metadata={"name": "first"})
        writer.write(OTHER[:6], photometric="minisblack")
    listed = r"holds 2 images \(0: 8 x 24 x 32 uint8 'first'; 1: 6 x 24 x 32 uint8\).*--series"
    with pytest.raises(SourceError, match=listed):
        read_pages(path)
    np.testing.assert_array_equal(read_pages(path, series=0), RAW)
    np.testing.assert_array_equal(read_pages(path, series=1), OTHER[:6])
    with pytest.raises(SourceError, match=r"--series is 2, but .* has 2 image\(s\), counted from"):
        read_pages(path, series=2)


def write_ome(path, images, place=None, resolution=None):
    """Write OME-TIFF images (name, planes, nm) with a page for each plane, placed as asked."""
    described, ifd = "", 0
    for name, planes, (z, y, x) in images:
        order = range(len(planes)) if place is None else place
        tiff_data = "".join(
            f'<TiffData IFD="{ifd + page}" FirstZ="{k}" PlaneCount="1"/>'
            for k, page in enumerate(order)
        )
        described += (
            f'<Image ID="Image:{ifd}" Name="{name}"><Pixels ID="Pixels:{ifd}" Type="uint8" '
            f'DimensionOrder="XYZCT" SizeX="{planes.shape[2]}" SizeY="{planes.shape[1]}" SizeC="1" '
            f'SizeT="1" SizeZ="{len(planes)}" PhysicalSizeZ="{z}" PhysicalSizeZUnit="nm" '
            f'PhysicalSizeY="{y}" PhysicalSizeYUnit="nm" PhysicalSizeX="{x}" '
            f'PhysicalSizeXUnit="nm"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            f"{tiff_data}</Pixels></Image>"
        )
        ifd += len(planes)
    xml = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}">{described}</OME>'
    with tifffile.TiffWriter(path) as writer:
        for _, planes, _ in images:
            for plane in planes:
                writer.write(
                    plane,
                    photometric="minisblack",
                    metadata=None,
                    description=xml or None,
                    contiguous=False,
                    resolution=resolution,
                    resolutionunit="CENTIMETER" if resolution else None,
                )
                xml = ""


def test_ome_planes_come_in_the_order_of_z(tmp_path):
    path, order = tmp_path / "s.ome.tif", [7, 2, 0, 1, 6, 5, 3, 4]
    write_ome(path, [("a", RAW, (30, 5, 5))], order)
    np.testing.assert_array_equal(read_pages(path), RAW[order])
    np.testing.assert_array_equal(read_pages(path), tifffile.imread(path))


def test_a_plane_before_the_stack_is_left_out_and_told_of(tmp_path):
    path = tmp_path / "s.ome.tif"
    write_ome(path, [("overview", OTHER[:1], (1, 50, 50)), ("stack", RAW, (30, 5, 5))])
    np.testing.assert_array_equal(read_pages(path), RAW)
    assert size_of(path) == (30, 5, 5)
    (told,) = warnings_of(path)
    assert "took image 1, 8 x 24 x 32 uint8 'stack', and left out 1 image(s) of one plane" in told
    np.testing.assert_array_equal(read_pages(path, series=0), OTHER[:1])
    assert size_of(path, series=0) == (1, 50, 50)


def test_several_ome_images_have_each_its_size(tmp_path):
    path = tmp_path / "s.ome.tif"
    write_ome(path, [("a", RAW, (30, 5, 5)), ("b", OTHER, (40, 8, 8))])
    with pytest.raises(SourceError, match=r"0: 8 x 24 x 32 uint8 'a'; 1: .*'b'\); choose with --s"):
        read_pages(path)
    np.testing.assert_array_equal(read_pages(path, series=1), OTHER)
    assert size_of(path, series=0), size_of(path, series=1) == ((30, 5, 5), (40, 8, 8))


def test_single_planes_of_several_ome_images_are_no_stack(tmp_path):
    write_ome(tmp_path / "s.ome.tif", [(n, RAW[:1], (30, 5, 5)) for n in "ab"])
    with pytest.raises(SourceError, match="holds 2 images"):
        read_pages(tmp_path / "s.ome.tif")


@pytest.mark.parametrize("damaged", ["SizeX=24", 'SizeZ="?"', 'SizeT=" "', "<"])
def test_broken_ome_xml_leaves_the_pages_and_no_size(tmp_path, damaged):
    path = tmp_path / "s.ome.tif"
    xml = f'<?xml version="1.0"?><OME xmlns="{OME}"><Image><Pixels {damaged}></Image></OME>'
    tifffile.imwrite(path, RAW, description=xml, metadata=None, photometric="minisblack")
    np.testing.assert_array_equal(read_pages(path), RAW)
    assert size_of(path) is None
    assert "the OME-XML of" in warnings_of(path)[0]


def test_ome_xml_that_leaves_the_order_of_pages_to_its_axes(tmp_path):
    path = tmp_path / "s.ome.tif"
    pixels = (
        'DimensionOrder="XYCZT" Type="uint8" SizeX="32" SizeY="24" SizeC="2" SizeZ="4" SizeT="1" '
        'PhysicalSizeX="5" PhysicalSizeXUnit="nm"'
    )
    xml = f'<?xml version="1.0"?><OME xmlns="{OME}"><Image><Pixels {pixels}/></Image></OME>'
    tifffile.imwrite(path, RAW, description=xml, metadata=None, photometric="minisblack")
    np.testing.assert_array_equal(read_pages(path, 1), RAW[1::2])
    tifffile.imwrite(path, RAW[1:], description=xml, metadata=None, photometric="minisblack")
    with pytest.raises(SourceError, match="describes 8 planes but holds 7: it is truncated"):
        read_pages(path)


def test_more_pages_than_imagej_describes(tmp_path):
    text = "ImageJ=1.53t\nimages=3\nslices=3\n"
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        for plane in RAW[:6]:
            writer.write(plane, description=text, metadata=None, contiguous=False)
            text = None
    with pytest.raises(SourceError, match="describes 3 planes but holds 6: it was changed"):
        read_pages(tmp_path / "s.tif")


def test_pages_that_are_stored_in_different_ways_are_one_stack(tmp_path):
    forms = [{}, {"compression": "lzw"}, {"rowsperstrip": 7}, {"compression": "zlib"}]
    forms += [
        {"compression": "lzw", "rowsperstrip": 5},
        {"tile": (16, 16)},
        {},
        {"predictor": True, "compression": "zlib"},
    ]
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        for plane, form in zip(RAW, forms, strict=True):
            writer.write(plane, photometric="minisblack", metadata=None, contiguous=False, **form)
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), RAW)


def test_an_inverted_page_among_others_is_named(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        for k, plane in enumerate(RAW):
            kind = "miniswhite" if k == 3 else "minisblack"
            writer.write(plane, photometric=kind, metadata=None, contiguous=False)
    with pytest.raises(SourceError, match=r"page 4 of .* is .*MINISWHITE.*, page 1 is"):
        read_pages(tmp_path / "s.tif")


@pytest.mark.parametrize("scale", [257, 256])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_palette_of_greys_is_read_as_grey(tmp_path, inverted, scale):
    greys = np.arange(256, dtype=np.uint16)[:: -1 if inverted else 1]
    form = {"photometric": "palette", "colormap": np.stack([greys * scale] * 3)}
    tifffile.imwrite(tmp_path / "s.tif", RAW, metadata=None, **form)
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), OTHER if inverted else RAW)
    told = [w for w in open_stack(tmp_path / "s.tif").warnings if "greys that it shows" in w]
    assert len(told) == inverted


def test_a_calibration_of_values_is_told_of(tmp_path):
    """ImageJ keeps signed numbers as unsigned ones, and what to subtract."""
    words = {"axes": "ZYX", "cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}
    tifffile.imwrite(tmp_path / "s.tif", RAW.astype(np.uint16), imagej=True, metadata=words)
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), RAW)
    (told,) = open_stack(tmp_path / "s.tif").warnings
    assert "calibration of grey values: they are taken as they are stored" in told


def test_a_palette_of_colours_is_refused(tmp_path):
    colours = np.random.default_rng(1).integers(0, 1 << 16, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", RAW, photometric="palette", colormap=colours)
    with pytest.raises(SourceError, match="has palette colours"):
        read_pages(tmp_path / "s.tif")


@pytest.mark.parametrize("form", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("planar", ["separate", "contig"])
@pytest.mark.parametrize("samples", [3, 4])
def test_colours_that_are_greys_are_read_as_grey(tmp_path, samples, planar, form):
    opaque = np.full_like(RAW, 255)
    axis = 1 if planar == "separate" else 3
    colours = np.stack([RAW, RAW, RAW, opaque][:samples], axis)
    more = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    options = {"photometric": "rgb", "planarconfig": planar, **form, **more}
    tifffile.imwrite(tmp_path / "s.tif", colours, **options)
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), RAW)
    colours[(5, 2) if planar == "separate" else (5, slice(None), slice(None), 2)] ^= 1
    tifffile.imwrite(tmp_path / "s.tif", colours, **options)
    with pytest.raises(SourceError, match=f"has {samples} channels"):
        read_pages(tmp_path / "s.tif")
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif", 0), RAW)
