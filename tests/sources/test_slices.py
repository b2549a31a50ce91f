"""Sequences of slices: natural order, gaps and odd ones out named, threads that do not mix."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError, VoxelSizeError
from volseg.sources.names import find_gaps, sort_names
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection, check_finite
from volseg.sources.voxel_size import settle_voxel_size


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_slices_come_in_natural_order(tmp_path, suffix):
    raw = make_stack((12, 9, 11))
    for n, plane in enumerate(raw):
        if suffix == ".tif":
            tifffile.imwrite(tmp_path / f"s{n + 1}{suffix}", plane)
        else:
            (tmp_path / f"s{n + 1}{suffix}").write_bytes(imagecodecs.png_encode(plane))
    assert (read_pages(tmp_path) == raw).all()
    assert (read_pages(str(tmp_path / f"s*{suffix}")) == raw).all()


def test_a_channel_of_png_slices(tmp_path):
    colours = make_stack((3, 9, 11, 4), "uint16")
    for n, plane in enumerate(colours):
        (tmp_path / f"s{n}.png").write_bytes(imagecodecs.png_encode(plane))
    assert (read_pages(tmp_path, 2) == colours[..., 2]).all()
    with pytest.raises(SourceError, match="4 channels, a volume has one"):
        read_pages(tmp_path)


@pytest.mark.parametrize("form", ["tif", "ome.tif", "mrc"])
def test_files_of_several_pages_are_joined_along_z(tmp_path, form):
    raw = make_stack((12, 9, 11), "int16")
    for n, part in enumerate((raw[:5], raw[5:6], raw[6:])):
        path = tmp_path / f"part{n + 9}.{form}"
        if form == "mrc":
            mrcfile.new(path, data=part[None][0]).close()
        else:
            tifffile.imwrite(path, part, photometric="minisblack", metadata={"axes": "ZYX"})
    for source in (tmp_path, tmp_path / "part*"):
        np.testing.assert_array_equal(read_pages(source), raw)
        (told,) = open_stack(source).warnings
        assert "3 files of 12 pages are joined along z, from part9" in told


def test_stacks_whose_names_do_not_belong_together_are_joined_only_on_request(tmp_path):
    raw = make_stack((6, 9, 11))
    tifffile.imwrite(tmp_path / "control.tif", raw[:3], photometric="minisblack")
    tifffile.imwrite(tmp_path / "treated.tif", raw[3:], photometric="minisblack")
    with pytest.raises(SourceError, match="names do not say that they belong together"):
        read_pages(tmp_path)
    np.testing.assert_array_equal(read_pages(tmp_path / "*.tif"), raw)


def test_colours_that_are_greys_are_read_as_grey(tmp_path):
    raw = make_stack((4, 9, 11))
    modes = {"RGB": 3, "RGBA": 4, "LA": 2, "P": 0}
    for plane, (mode, count) in zip(raw, modes.items(), strict=True):
        if mode == "P":
            grey = PIL.Image.fromarray(plane)
            picture = grey.quantize(256, dither=PIL.Image.Dither.NONE).convert("P")
            plane[...] = np.asarray(picture.convert("L"))
        else:
            samples = [plane] * count if count == 3 else [plane] * (count - 1) + [plane * 0 + 200]
            picture = PIL.Image.fromarray(np.stack(samples, -1), mode)
        picture.save(tmp_path / f"s{list(modes).index(mode)}.png")
    np.testing.assert_array_equal(read_pages(tmp_path), raw)
    see_through = PIL.Image.fromarray(np.stack([raw[0]] * 3 + [raw[1]], -1), "RGBA")
    see_through.save(tmp_path / "s3.png")
    with pytest.raises(SourceError, match=r"s3\.png has 4 channels, a volume has one"):
        read_pages(tmp_path)


@pytest.mark.parametrize(("dpi", "size"), [(25.4e6 / 5, (None, 5, 5)), (72, None), (None, None)])
def test_png_says_how_many_pixels_there_are_to_a_metre(tmp_path, dpi, size):
    more = {} if dpi is None else {"dpi": (dpi, dpi)}
    PIL.Image.fromarray(make_stack((9, 11))).save(tmp_path / "s.png", **more)
    stated = open_stack(tmp_path / "s.png").stated
    assert [s.axes for s in stated] == ([size] if size else [])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits(tmp_path, bits):
    raw = make_stack((9, 11)) >> (8 - bits)
    palette = PIL.Image.fromarray(raw, "L").convert("P")
    palette.putpalette([v for k in range(256) for v in (7 * k % 256,) * 3])
    palette.save(tmp_path / "s.png", bits=bits)
    np.testing.assert_array_equal(read_pages(tmp_path / "s.png")[0], raw * 7)


def test_jpeg_slices_are_read_and_told_of(tmp_path):
    smooth = np.indices((3, 32, 40)).sum(0).astype(np.uint8)
    for n, plane in enumerate(smooth):
        picture = PIL.Image.fromarray(plane)
        (picture.convert("RGB") if n % 2 else picture).save(tmp_path / f"s{n}.jpg", quality=95)
        expected = np.asarray(PIL.Image.open(tmp_path / f"s{n}.jpg").convert("L"))
        smooth[n] = expected
    np.testing.assert_array_equal(read_pages(tmp_path), smooth)
    assert "is a JPEG file" in open_stack(tmp_path).warnings[0]
    tifffile.imwrite(tmp_path / "s.tif", smooth[0])  # beside which a JPEG file is an overview
    assert open_stack(tmp_path).shape == (1, 32, 40)


@pytest.mark.parametrize("form", [".tif", ".png"])
def test_slices_of_other_sizes_are_padded_or_cropped_on_request(tmp_path, form):
    raw = make_stack((3, 20, 22)) | 1
    parts = [raw[0, :18, :22], raw[1, :20, :20], raw[2, :19, :21]]
    for n, part in enumerate(parts):
        if form == ".tif":
            tifffile.imwrite(tmp_path / f"s{n}.tif", part)
        else:
            PIL.Image.fromarray(part).save(tmp_path / f"s{n}.png")
    with pytest.raises(SourceError, match=r"s1.* is 20 x 20 .*, s0.* is 22 x 18 .*--crop or --pad"):
        read_pages(tmp_path)
    np.testing.assert_array_equal(read_pages(tmp_path, fit="crop"), raw[:, :18, :20])
    padded = np.zeros((3, 20, 22), np.uint8)
    for k, part in enumerate(parts):
        padded[k, : part.shape[0], : part.shape[1]] = part
    np.testing.assert_array_equal(read_pages(tmp_path, fit="pad"), padded)
    told = open_stack(tmp_path, Selection(fit="pad")).warnings[-1]
    assert "20 to 22 x 18 to 20 pixels, and are padded with 0" in told


def test_gaps_in_the_numbering_are_named(tmp_path):
    for n in (1, 2, 5):
        tifffile.imwrite(tmp_path / f"s{n}.tif", make_stack()[0])
    assert "has gaps: 3-4 missing" in open_stack(tmp_path).warnings[0]
    assert find_gaps(["a1", "b2", "c3"]) == []


def test_links_to_slices_that_were_not_fetched_are_refused(tmp_path):
    for n in (1, 2):
        tifffile.imwrite(tmp_path / f"s{n}.tif", make_stack()[0])
    (tmp_path / "overview.jpg").symlink_to(tmp_path / "elsewhere.jpg")  # no slice
    assert open_stack(tmp_path).shape[0] == 2
    (tmp_path / "s3.tif").symlink_to("annex/objects/s3")
    for source in (tmp_path, tmp_path / "s*.tif"):
        with pytest.raises(SourceError, match=r"s3\.tif is a link to annex/objects/s3, where"):
            open_stack(source)
    for n in (1, 2):
        (tmp_path / f"s{n}.tif").unlink()
    with pytest.raises(SourceError, match=r"s3\.tif is a link to annex"):
        open_stack(tmp_path)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("s1.tif", "s01.tif", "s2.tif"), "s01.tif and s1.tif"),
        (("s_0010_a.tif", "s_10_a.tif", "s_9_a.tif"), "s_0010_a.tif and s_10_a.tif"),
        (("s1.5.tif", "s1.05.tif", "s2.5.tif"), None),
        (("s-1.tif", "s0.tif", "s1.tif"), None),
    ],
)
def test_slices_of_the_same_number_are_told(tmp_path, names, told):
    for name in names:
        tifffile.imwrite(tmp_path / name, make_stack()[0])
    stack = open_stack(tmp_path)
    found = [w for w in stack.warnings if "have the same number" in w]
    assert stack.shape[0] == 3
    assert len(found) == (told is not None)
    if told is not None:
        one, other = told.split(" and ")
        assert f"{one} and {other}" in found[0] or f"{other} and {one}" in found[0]


def write_slices(folder, sizes):
    """Write slices of pixels so many nm wide; None states nothing."""
    for n, size in enumerate(sizes):
        stated = {"resolution": (1e7 / size,) * 2, "resolutionunit": "CENTIMETER"} if size else {}
        tifffile.imwrite(folder / f"s{n}.tif", make_stack()[0], **stated)
    return open_stack(folder).stated


def test_slices_that_contradict_each_other_are_an_error_that_prints_both(tmp_path):
    stated = write_slices(tmp_path, (5, 5, 8, 10))
    both = r"tags \(s0\.tif\) says unknown,5,5 nm.*tags \(s2\.tif\) unknown,8,8 nm; decide with --v"
    with pytest.raises(VoxelSizeError, match=both):
        settle_voxel_size(stated, None)
    size, _, warnings = settle_voxel_size(stated, (5.0, 5.0, 5.0))
    assert size == (5, 5, 5)
    (overridden,) = warnings
    assert overridden.endswith("overrides unknown,8,8 nm in its TIFF resolution tags (s2.tif)")


def test_slices_that_round_or_say_nothing_contradict_nobody(tmp_path):
    (stated,) = write_slices(tmp_path, (5, 5.004, None))
    assert stated.axes == (None, 5, 5)


def test_a_slice_that_is_not_finite_is_named(tmp_path):
    pages = np.full((2, 9, 11), 0, np.float32)
    pages[1, 2, 3] = np.inf
    for n, page in enumerate(pages):
        tifffile.imwrite(tmp_path / f"s{n}.tif", page)
    check_finite(open_stack(tmp_path), 0, pages[0])
    with pytest.raises(SourceError, match=r"s1\.tif holds values that are not finite"):
        check_finite(open_stack(tmp_path), 1, pages[1])


def test_natural_order_does_not_mix_words_and_numbers():
    names = [Path(n) for n in ("x", "10", "9a", "9", "b2/s1", "b10/s1")]
    ordered = [str(p) for p in sort_names(names)]
    assert ordered == ["9", "9a", "10", "b2/s1", "b10/s1", "x"]


@pytest.mark.parametrize(
    ("ordered", "taken"),
    [
        (["z_0.tif", "z_1.tif", "z_1.05.tif", "z_1.1.tif", "z_1.5.tif", "z_2.tif"], "decimals"),
        (["z_-1.5.tif", "z_-1.05.tif", "z_-1.tif", "z_0.tif", "z_0.05.tif", "z_0.5.tif"], ""),
        (["s1.tif", "s1.9.tif", "s1.10.tif", "s1.11.tif", "s2.1.tif"], "two numbers each"),
        (["s1.1.tif", "s1.11.tif", "s1.9.tif"], "decimals"),
        (["s1.09.tif", "s1.10.tif", "s1.11.tif"], ""),  # as the warning advises
        (["z0.5.tif", "z1.0.tif", "z1.5.tif", "z10.0.tif"], ""),
        (["2026.11.5_1.tif", "2026.11.5_2.tif", "2026.11.30_1.tif"], ""),
    ],
)
def test_numbers_with_dots_are_decimals_unless_they_are_two(tmp_path, ordered, taken):
    assert [str(p) for p in sort_names(map(Path, reversed(ordered)))] == ordered
    for name in ordered:
        tifffile.imwrite(tmp_path / name, make_stack()[0])
    told = [w for w in open_stack(tmp_path / "*.tif").warnings if "numbers with dots" in w]
    assert len(told) == bool(taken)
    assert all(f"are taken as {taken}, so that {ordered[1]}"[:-4] in w for w in told)
    assert all("if that is wrong, rename the files so that the same number" in w for w in told)
    assert not find_gaps([name[:-4] for name in ordered])


@settings(max_examples=50)
@given(st.lists(st.integers(-400, 400).filter(bool), min_size=1, max_size=9, unique=True))
def test_decimals_without_their_last_zeros_are_in_the_order_of_their_values(hundredths):
    values = [0, *(n / 100 for n in hundredths)]  # beside 0, hyphens are signs
    names = [Path(f"z_{value:g}.tif") for value in values]
    assert [p.name for p in sort_names(names)] == [f"z_{value:g}.tif" for value in sorted(values)]


def test_a_damaged_slice_is_not_blamed_on_others_that_are_opened_meanwhile(tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"II*\0\x08\0\0\0")
    tifffile.imwrite(tmp_path / "good.tif", make_stack()[0])

    def fails(n):
        try:
            read_pages(tmp_path / ("good.tif" if n % 4 else "bad.tif"))
        except SourceError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        messages = {m for m in pool.map(fails, range(400)) if m}
    assert len(messages) == 1
    assert "bad.tif is truncated or damaged" in messages.pop()
    assert logging.getLogger("tifffile").propagate


def test_a_mixed_folder_asks_for_a_glob(tmp_path):
    tifffile.imwrite(tmp_path / "s1.tif", make_stack((9, 11)))
    (tmp_path / "s2.png").write_bytes(imagecodecs.png_encode(make_stack((9, 11))))
    with pytest.raises(SourceError, match="mixes TIFF and PNG"):
        read_pages(tmp_path)
    assert read_pages(str(tmp_path / "*.png")).shape == (1, 9, 11)


def test_a_damaged_png_is_named(tmp_path):
    whole = imagecodecs.png_encode(make_stack((64, 64)))
    (tmp_path / "s1.png").write_bytes(whole)
    (tmp_path / "s2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"s2\.png is damaged"):
        read_pages(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ETD_{:03}.tif", "InLens_{:03}.tif"),
        ("raw_{:03}.tif", "raw_{:03}_mask.tif"),
        ("ch0_z{:03}.tif", "ch1_z{:03}.tif"),
        ("z{:03}_ch0.tif", "z{:03}_ch1.tif"),
    ],
)
def test_slices_of_two_sequences_are_not_mixed(tmp_path, one, other):
    raw = make_stack((6, 9, 11))
    for n, plane in enumerate(raw):
        tifffile.imwrite(tmp_path / one.format(n), plane)
        tifffile.imwrite(tmp_path / other.format(n), 255 - plane)
    with pytest.raises(SourceError, match=r"slices of several sequences: .*choose with a glob"):
        read_pages(tmp_path)
    glob = str(tmp_path / one.replace("{:03}", "???"))
    np.testing.assert_array_equal(read_pages(glob), raw)
    assert open_stack(glob).warnings == ()
    assert "slices of several sequences" in open_stack(tmp_path / "*.tif").warnings[0]


def test_a_lone_slice_of_another_name_is_not_mixed_in(tmp_path):
    for name in ("s1", "s2", "s3", "overview"):
        tifffile.imwrite(tmp_path / f"{name}.tif", make_stack()[0])
    with pytest.raises(SourceError, match=r"several sequences: overview\.tif, s\?\.tif"):
        read_pages(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [f"z_{n:+d}".replace("+", "") for n in range(-6, 6)],
        [f"z={n / 2:.2f}um" for n in range(-6, 6)],
        [f"2026-11-{n + 10}_s{n}_x" for n in range(12)],
        [f"s-{n}" for n in range(12)],
        [f"z{n:+d}" for n in range(-6, 6)],
        [f"run2-z_{n:+.1f}um" for n in range(-6, 6)],
        [f"z{n}" for n in range(-6, 6)],
        ["a-1", "a2", "a-3", "a4"],
        [f"Au+3-{n}" for n in range(12)],
    ],
)
def test_numbers_of_every_kind_are_in_order(tmp_path, names):
    raw = make_stack((len(names), 9, 11))
    for name, plane in zip(names, raw, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane)
    np.testing.assert_array_equal(read_pages(tmp_path), raw)
    assert open_stack(tmp_path).warnings == ()


def test_an_inverted_slice_among_others_is_named(tmp_path):
    for n in range(3):
        kind = "miniswhite" if n == 1 else "minisblack"
        tifffile.imwrite(tmp_path / f"s{n}.tif", make_stack()[0], photometric=kind)
    with pytest.raises(SourceError, match=r"s1\.tif is .*, 0 as white, s0\.tif is 17 x 13 uint8"):
        read_pages(tmp_path)


def test_what_is_told_of_a_file_is_told_of_a_folder(tmp_path):
    for n in range(3):
        tifffile.imwrite(tmp_path / f"s{n}.tif", make_stack()[0], photometric="miniswhite")
    (told,) = open_stack(tmp_path).warnings
    assert "0 is white" in told
