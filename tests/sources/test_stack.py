"""Source stacks: every common form is read as it is, and everything else is named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import h5py
import imagecodecs
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "lzw"},
        {"compression": "zstd", "predictor": True},
        {"compression": "packbits"},
        {"tile": (16, 16)},
        {"contiguous": False},
    ],
)
def test_every_form_of_tiff(tmp_path, dtype, form):
    raw = make_stack(dtype=dtype)
    contiguous = form.pop("contiguous", True)
    with tifffile.TiffWriter(
        tmp_path / "s.tif",
        bigtiff=form.pop("bigtiff", False),
        byteorder=form.pop("byteorder", "<"),
    ) as writer:
        for plane in raw:
            writer.write(plane, contiguous=contiguous and not form, **form)
        form["bigtiff"] = False
    assert (read_pages(tmp_path / "s.tif") == raw).all()


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("ZYX", (4, 9, 11)), ("TYX", (4, 9, 11)), ("TZCYX", (1, 4, 1, 9, 11)), ("CYX", (1, 9, 11))],
)
def test_imagej_stacks_whatever_they_call_z(tmp_path, axes, shape):
    raw = make_stack(shape)
    tifffile.imwrite(tmp_path / "s.tif", raw, imagej=True, metadata={"axes": axes})
    assert (read_pages(tmp_path / "s.tif") == raw.reshape(-1, *shape[-2:])).all()
    told = [w for w in open_stack(tmp_path / "s.tif").warnings if "calls its planes times" in w]
    assert len(told) == (axes == "TYX")


@pytest.mark.parametrize("compression", ["lzma", "jpegxl", "jpeg2000", "lerc", "png", "deflate"])
def test_rarer_compressions_without_loss(tmp_path, compression):
    raw = make_stack((3, 40, 50), "uint16")
    tifffile.imwrite(
        tmp_path / "s.tif", raw, compression=compression, photometric="minisblack", tile=(16, 32)
    )
    assert (read_pages(tmp_path / "s.tif") == raw).all()


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "ZCYX", "CZYX"])
def test_ome_tiff(tmp_path, axes):
    raw = make_stack((4, *[2] * (len(axes) - 3), 9, 11), "uint16")
    tifffile.imwrite(tmp_path / "s.ome.tif", raw, metadata={"axes": axes})
    several = "C" in axes
    expected = np.take(raw, 1, axes.index("C")) if several else raw
    assert (read_pages(tmp_path / "s.ome.tif", 1 if several else None) == expected).all()


def test_a_pyramid_within_the_file_is_not_part_of_the_stack(tmp_path):
    raw = make_stack((4, 32, 32))
    with tifffile.TiffWriter(tmp_path / "s.ome.tif") as writer:
        writer.write(raw, subifds=1, metadata={"axes": "ZYX"})
        writer.write(raw[:, ::2, ::2], subfiletype=1)
    assert (read_pages(tmp_path / "s.ome.tif") == raw).all()


@pytest.mark.parametrize(
    ("axes", "form"), [("TZYX", {}), ("TZCYX", {"imagej": True}), ("TCZYX", {}), ("CTZYX", {})]
)
def test_one_time_of_a_series_is_chosen(tmp_path, axes, form):
    sizes = {"T": 3, "Z": 4, "C": 2, "Y": 9, "X": 11}
    series = make_stack([sizes[axis] for axis in axes])
    tifffile.imwrite(tmp_path / "s.ome.tif", series, metadata={"axes": axes}, **form)
    channel = 1 if "C" in axes else None
    expected = np.take(series, 2, axes.index("T"))
    if channel is not None:
        expected = np.take(expected, 1, axes.replace("T", "").index("C"))
    read = read_pages(tmp_path / "s.ome.tif", channel, time=2)
    np.testing.assert_array_equal(read, expected)
    with pytest.raises(SourceError, match="time series of 3 volumes: choose with --time 0 to 2"):
        read_pages(tmp_path / "s.ome.tif", channel)
    with pytest.raises(SourceError, match=r"--time is 3, but .* has 3, counted from 0"):
        read_pages(tmp_path / "s.ome.tif", channel, time=3)


def test_a_channel_is_chosen(tmp_path):
    colours = make_stack((6, 9, 11, 3))
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    with pytest.raises(
        SourceError, match="3 channels, a volume has one: choose with --channel 0 to 2"
    ):
        read_pages(tmp_path / "rgb.tif")
    assert (read_pages(tmp_path / "rgb.tif", 1) == colours[..., 1]).all()
    channels = make_stack((6, 2, 9, 11))
    tifffile.imwrite(tmp_path / "c.tif", channels, imagej=True, metadata={"axes": "ZCYX"})
    assert (read_pages(tmp_path / "c.tif", 1) == channels[:, 1]).all()
    with pytest.raises(SourceError, match=r"--channel is 5, but .* has 2"):
        read_pages(tmp_path / "c.tif", 5)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_damaged_tiff_is_called_damaged_in_plain_words(bigtiff, tmp_path):
    raw = np.random.default_rng(1).integers(0, 99, (6, 40, 40), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "whole.tif", raw, photometric="minisblack", bigtiff=bigtiff)
    content = (tmp_path / "whole.tif").read_bytes()
    first = 16 if bigtiff else 8  # where the first list of tags begins
    harmed = {
        "overwritten": content[:first] + b"\xff" * 200 + content[first + 200 :],
        "cut": content[: len(content) * 2 // 3],
    }
    words = "begins as a TIFF file|its pages can be found|its first page can|page [0-9]+ ends"
    for name, bad in harmed.items():
        (tmp_path / f"{name}.tif").write_bytes(bad)
        with pytest.raises(SourceError, match=rf"damaged: .*({words})") as raised:
            read_pages(tmp_path / f"{name}.tif")
        assert "tifffile" not in str(raised.value)
        assert "fetch or export the file again" in str(raised.value)


def test_not_an_image(tmp_path):
    (tmp_path / "s.tif").write_text("this is text")
    with pytest.raises(SourceError, match=r"s\.tif is not a TIFF file"):
        read_pages(tmp_path / "s.tif")
    (tmp_path / "s.png").write_text("this is text")
    with pytest.raises(SourceError, match=r"s\.png is not a PNG"):
        read_pages(tmp_path / "s.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="found nothing; expected a stack"):
        read_pages(tmp_path / "empty")
    with pytest.raises(SourceError, match="found nothing"):
        read_pages(tmp_path / "nothing*.tif")


def test_no_pages(tmp_path):
    (tmp_path / "s.tif").write_bytes(b"II*\0" + bytes(4))
    with pytest.raises(SourceError, match=r"s\.tif has no pages"):
        read_pages(tmp_path / "s.tif")


def test_planes_that_are_described_but_missing(tmp_path):
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, make_stack(), metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes().replace(b'SizeZ="5"', b'SizeZ="9"'))
    with pytest.raises(SourceError, match="describes 9 planes but holds 5"):
        read_pages(path)


def test_any_damaged_byte_is_read_over_or_named(tmp_path):
    """Never another exception, whatever the byte: descriptions are free text."""
    path, rng = tmp_path / "s.ome.tif", np.random.default_rng(0)
    tifffile.imwrite(path, make_stack(), compression="zlib", metadata={"axes": "ZYX"})
    content, messages = path.read_bytes(), []
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_pages(path)
        except SourceError as error:
            messages.append(str(error))
    assert 0 < len(messages) < 200
    assert all(path.name in message for message in messages)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files(tmp_path, compression, kept):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, make_stack((20, 64, 64)), compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SourceError, match=r"s\.tif.*(truncated|damaged)"):
        read_pages(path)


def test_a_page_without_tags_is_damaged_and_not_one_of_another_kind(tmp_path):
    """What stood at its offset is overwritten with zeros."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path, np.ones((5, 20, 30), np.uint16), photometric="minisblack", rowsperstrip=3
    )
    with tifffile.TiffFile(path) as tif:
        pages = [page.offset for page in tif.pages]
    content = bytearray(path.read_bytes())
    # its number of tags and the next page's place stay
    first, tags = pages[3] + 2, int.from_bytes(content[pages[3] : pages[3] + 2], "little")
    content[first : first + 12 * tags] = bytes(12 * tags)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"truncated or damaged: .*page 4"):
        open_stack(path)


def test_a_damaged_page_is_named(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, make_stack((6, 64, 64)), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"page 4 of 6 in .*s\.tif is damaged"):
        read_pages(path)


def test_mixed_shapes_and_types(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(make_stack((9, 11)))
        writer.write(make_stack((9, 12)))
    with pytest.raises(SourceError, match=r"page 2 of .* is \(9, 12\) uint8, page 1 is \(9, 11\)"):
        read_pages(tmp_path / "mixed.tif")
    folder = tmp_path / "folder"
    folder.mkdir()
    tifffile.imwrite(folder / "s1.tif", make_stack((9, 11)))
    tifffile.imwrite(folder / "s2.tif", make_stack((9, 11), "uint16"))
    with pytest.raises(SourceError, match="all slices must be equal"):
        read_pages(folder)


CONVERTED = {
    "bool": lambda raw: raw.astype("uint8"),
    "int8": lambda raw: (raw.astype(int) + 128).astype("uint8"),
    "float16": lambda raw: raw.astype("float32"),
    "float64": lambda raw: raw.astype("float32"),
    "int32": lambda raw: raw.astype("float32"),
    "uint32": lambda raw: raw.astype("float32"),
    "int64": lambda raw: raw.astype("float32"),
}


@pytest.mark.parametrize("form", ["tif", "h5", "zarr", "folder"])
@pytest.mark.parametrize("dtype", CONVERTED)
def test_other_types_are_converted_and_it_is_told(tmp_path, dtype, form):
    raw = (make_stack((5, 9, 11), "int16") / (300 if dtype == "int8" else 1)).astype(dtype)
    path = tmp_path / f"s.{form}"
    if form == "zarr":
        zarr.save_array(path, raw)
    elif form == "h5":
        with h5py.File(path, "w") as file:
            file["raw"] = raw
    elif form == "tif":
        tifffile.imwrite(path, raw, photometric="minisblack")
    else:
        path.mkdir()
        for k, plane in enumerate(raw):
            tifffile.imwrite(path / f"{k}.tif", plane, photometric="minisblack")
    stack = open_stack(path)
    read = read_pages(path)
    expected = CONVERTED[dtype](raw)
    np.testing.assert_array_equal(read, expected)
    assert stack.dtype == expected.dtype
    if stack.array is not None:
        np.testing.assert_array_equal(stack.array[1:3, 2:5, 0:11], expected[1:3, 2:5])
    if (form, dtype) != ("zarr", "bool"):  # which was 0 and 1 to begin with
        assert stack.warnings[-1].startswith(f"{path} holds {dtype}, converted to {stack.dtype}")
    stack.close()


def test_unsupported_types(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((5, 9, 11), "complex64"))
    with pytest.raises(SourceError, match="holds complex64; expected uint8"):
        read_pages(tmp_path / "s.tif")


def test_labels_may_have_other_types(tmp_path):
    labels = make_stack((3, 9, 11), "uint16").astype("int32") * 70000
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="minisblack")
    stack = open_stack(tmp_path / "l.tif", types=("int32",))
    page = np.empty((9, 11), stack.dtype)
    stack.read_page(2, page)
    stack.close()
    np.testing.assert_array_equal(page, labels[2])


def test_white_as_zero_is_kept_and_told(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make_stack(), photometric="miniswhite")
    stack = open_stack(tmp_path / "s.tif")
    stack.close()
    assert "0 is white" in stack.warnings[0]
    np.testing.assert_array_equal(read_pages(tmp_path / "s.tif"), make_stack())


def test_pages_are_read_by_many_threads_at_once(tmp_path):
    raw = make_stack((40, 65, 33), "uint16")
    tifffile.imwrite(tmp_path / "s.tif", raw, compression="zlib", rowsperstrip=7)
    stack = open_stack(tmp_path / "s.tif")
    read = np.empty(stack.shape, stack.dtype)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stack.read_page(n, read[n]), range(40)))
    stack.close()
    np.testing.assert_array_equal(read, raw)


@pytest.mark.parametrize("kind", ["mrc", "png", "zarr"])
def test_choices_that_a_source_does_not_offer_are_not_ignored(tmp_path, kind):
    raw = make_stack((3, 9, 11))
    source = tmp_path / f"s.{kind}"
    if kind == "mrc":
        mrcfile.write(source, raw.view(np.int8))
    elif kind == "png":
        source = tmp_path
        for k, page in enumerate(raw):
            (source / f"{k}.png").write_bytes(imagecodecs.png_encode(page))
    else:
        zarr.create_array(source, data=raw)
    assert open_stack(source, Selection(series=0, axes="zyx")).shape == raw.shape
    with pytest.raises(SourceError, match="--series is 1, but"):
        open_stack(source, Selection(series=1))
    said = {"zarr": r"has the shape \(3, 9, 11\), and axes CZYX: name each by one of"}
    with pytest.raises(
        SourceError, match=said.get(kind, r"--axes is CZYX, but .* has the axes ZYX")
    ):
        open_stack(source, Selection(axes="CZYX"))
