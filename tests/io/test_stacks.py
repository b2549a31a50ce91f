"""Source stacks: every common form is read as it is, and everything else is named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from volseg.errors import SourceError
from volseg.io.sequences import find_gaps, natural_key
from volseg.io.stacks import open_stack


def make(shape=(5, 13, 17), dtype="uint8"):
    rng = np.random.default_rng(7)
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def planes(source, channel=None):
    stack = open_stack(source, channel)
    try:
        read = np.empty(stack.shape, stack.dtype)
        for n, page in enumerate(read):
            stack.read_page(n, page)
        assert stack.dtype.isnative
        return read
    finally:
        stack.close()


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
    raw = make(dtype=dtype)
    contiguous = form.pop("contiguous", True)
    with tifffile.TiffWriter(
        tmp_path / "s.tif",
        bigtiff=form.pop("bigtiff", False),
        byteorder=form.pop("byteorder", "<"),
    ) as writer:
        for plane in raw:
            writer.write(plane, contiguous=contiguous and not form, **form)
        form["bigtiff"] = False
    assert (planes(tmp_path / "s.tif") == raw).all()


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("ZYX", (4, 9, 11)), ("TYX", (4, 9, 11)), ("TZCYX", (1, 4, 1, 9, 11)), ("CYX", (1, 9, 11))],
)
def test_imagej_stacks_whatever_they_call_z(tmp_path, axes, shape):
    raw = make(shape)
    tifffile.imwrite(tmp_path / "s.tif", raw, imagej=True, metadata={"axes": axes})
    assert (planes(tmp_path / "s.tif") == raw.reshape(-1, *shape[-2:])).all()


def test_ome_tiff(tmp_path):
    raw = make((4, 9, 11), "uint16")
    tifffile.imwrite(tmp_path / "s.ome.tif", raw, metadata={"axes": "ZYX"})
    assert (planes(tmp_path / "s.ome.tif") == raw).all()


def test_a_channel_is_chosen(tmp_path):
    colours = make((6, 9, 11, 3))
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    with pytest.raises(
        SourceError, match="3 channels, a volume has one: choose with --channel 0 to 2"
    ):
        planes(tmp_path / "rgb.tif")
    assert (planes(tmp_path / "rgb.tif", 1) == colours[..., 1]).all()
    channels = make((6, 2, 9, 11))
    tifffile.imwrite(tmp_path / "c.tif", channels, imagej=True, metadata={"axes": "ZCYX"})
    assert (planes(tmp_path / "c.tif", 1) == channels[:, 1]).all()
    with pytest.raises(SourceError, match=r"--channel is 5, but .* has 2"):
        planes(tmp_path / "c.tif", 5)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_slices_come_in_natural_order(tmp_path, suffix):
    raw = make((12, 9, 11))
    for n, plane in enumerate(raw):
        if suffix == ".tif":
            tifffile.imwrite(tmp_path / f"s{n + 1}{suffix}", plane)
        else:
            (tmp_path / f"s{n + 1}{suffix}").write_bytes(imagecodecs.png_encode(plane))
    assert (planes(tmp_path) == raw).all()
    assert (planes(str(tmp_path / f"s*{suffix}")) == raw).all()


def test_gaps_in_the_numbering_are_named(tmp_path):
    for n in (1, 2, 5):
        tifffile.imwrite(tmp_path / f"s{n}.tif", make()[0])
    assert "has gaps: 3-4 missing" in open_stack(tmp_path).warnings[0]
    assert find_gaps(["a1", "b2", "c3"]) == []


def test_natural_order_does_not_mix_words_and_numbers():
    names = [Path(n) for n in ("x", "10", "9a", "9", "b2/s1", "b10/s1")]
    ordered = [str(p) for p in sorted(names, key=natural_key)]
    assert ordered == ["9", "9a", "10", "b2/s1", "b10/s1", "x"]


def test_not_an_image(tmp_path):
    (tmp_path / "s.tif").write_text("this is text")
    with pytest.raises(SourceError, match=r"s\.tif is not a TIFF file"):
        planes(tmp_path / "s.tif")
    (tmp_path / "s.png").write_text("this is text")
    with pytest.raises(SourceError, match=r"s\.png is not a PNG"):
        planes(tmp_path / "s.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="found nothing; expected a TIFF stack"):
        planes(tmp_path / "empty")
    with pytest.raises(SourceError, match="found nothing"):
        planes(tmp_path / "nothing*.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files(tmp_path, compression, kept):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, make((20, 64, 64)), compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SourceError, match=r"s\.tif.*(truncated|damaged)"):
        planes(path)


def test_a_damaged_page_is_named(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, make((6, 64, 64)), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"page 4 of 6 in .*s\.tif is damaged"):
        planes(path)


def test_mixed_shapes_and_types(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(make((9, 11)))
        writer.write(make((9, 12)))
    with pytest.raises(SourceError, match=r"page 2 of .* is \(9, 12\) uint8, page 1 is \(9, 11\)"):
        planes(tmp_path / "mixed.tif")
    folder = tmp_path / "folder"
    folder.mkdir()
    tifffile.imwrite(folder / "s1.tif", make((9, 11)))
    tifffile.imwrite(folder / "s2.tif", make((9, 11), "uint16"))
    with pytest.raises(SourceError, match="all slices must be equal"):
        planes(folder)


def test_unsupported_types(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((5, 9, 11), "float64"))
    with pytest.raises(SourceError, match="holds float64; expected uint8"):
        planes(tmp_path / "s.tif")


def test_labels_may_have_other_types(tmp_path):
    labels = make((3, 9, 11), "uint16").astype("int32") * 70000
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="minisblack")
    stack = open_stack(tmp_path / "l.tif", types=("int32",))
    page = np.empty((9, 11), stack.dtype)
    stack.read_page(2, page)
    stack.close()
    np.testing.assert_array_equal(page, labels[2])


def test_a_mixed_folder_asks_for_a_glob(tmp_path):
    tifffile.imwrite(tmp_path / "s1.tif", make((9, 11)))
    (tmp_path / "s2.png").write_bytes(imagecodecs.png_encode(make((9, 11))))
    with pytest.raises(SourceError, match="mixes TIFF and PNG"):
        planes(tmp_path)
    assert planes(str(tmp_path / "*.png")).shape == (1, 9, 11)


def test_a_volume_is_no_source(tmp_path):
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(SourceError, match="is a Zarr volume already"):
        planes(tmp_path)


def test_a_damaged_png_is_named(tmp_path):
    whole = imagecodecs.png_encode(make((64, 64)))
    (tmp_path / "s1.png").write_bytes(whole)
    (tmp_path / "s2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"s2\.png is damaged"):
        planes(tmp_path)


def test_pages_are_read_by_many_threads_at_once(tmp_path):
    raw = make((40, 65, 33), "uint16")
    tifffile.imwrite(tmp_path / "s.tif", raw, compression="zlib", rowsperstrip=7)
    stack = open_stack(tmp_path / "s.tif")
    read = np.empty(stack.shape, stack.dtype)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stack.read_page(n, read[n]), range(40)))
    stack.close()
    np.testing.assert_array_equal(read, raw)
