"""Sequences of slices: natural order, gaps and odd ones out named, threads that do not mix."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError, VoxelSizeError
from volseg.sources.names import find_gaps, natural_key
from volseg.sources.open import open_stack
from volseg.sources.stack import check_finite
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


def test_a_sequence_of_stacks_is_refused(tmp_path):
    for n in range(2):
        tifffile.imwrite(tmp_path / f"s{n}.tif", make_stack())
    with pytest.raises(SourceError, match=r"s0\.tif holds 5 pages; in a sequence each file is one"):
        read_pages(tmp_path)


def test_gaps_in_the_numbering_are_named(tmp_path):
    for n in (1, 2, 5):
        tifffile.imwrite(tmp_path / f"s{n}.tif", make_stack()[0])
    assert "has gaps: 3-4 missing" in open_stack(tmp_path).warnings[0]
    assert find_gaps(["a1", "b2", "c3"]) == []


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
    ordered = [str(p) for p in sorted(names, key=natural_key)]
    assert ordered == ["9", "9a", "10", "b2/s1", "b10/s1", "x"]


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
