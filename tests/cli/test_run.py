"""``volseg run``: the whole job in one command, again and again, for one stack and for several."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import volseg.api.whole as api_whole
from volseg.errors import ConflictError

# loops are compiled first, which takes long on a busy machine
pytestmark = pytest.mark.timeout(300)


def write_stack(path, seed=8):
    raw = ndimage.gaussian_filter(np.random.default_rng(seed).random((20, 70, 60)), 2)
    raw = ((raw - raw.min()) / np.ptp(raw) * 255).astype(np.uint8)
    tifffile.imwrite(path, raw, photometric="minisblack")


@pytest.fixture
def whole(volseg, toy_model):
    quick = ("--model", toy_model, "--voxel-size", "5", "--measure", "basic")
    return lambda *words: volseg("run", *words, *quick)


def test_one_stack_becomes_a_row_beside_it(whole, volseg, tmp_path):
    write_stack(tmp_path / "a.tif")
    done = whole(tmp_path / "a.tif", "--json", "-q")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (row,) = found["volumes"]
    page = tmp_path / "a-report.html"
    assert found["report"]["path"] == str(page)
    assert "The network was asked again about" in page.read_text()  # though it is none of volseg's
    assert row["volume"] == str(tmp_path / "a.zarr")
    (alone,) = json.loads(volseg("stats", tmp_path / "a.zarr", "--json", "-q").stdout)
    assert row["objects"] == alone["objects"] > 1
    assert row["total_nm3"] == alone["total_nm3"]


def test_again_it_does_nothing_anew(whole, tmp_path):
    write_stack(tmp_path / "a.tif")
    assert whole(tmp_path / "a.tif", tmp_path / "vol.zarr").exit_code == 0
    files = [
        p for p in (tmp_path / "vol.zarr").rglob("*") if p.is_file() and "tables" not in str(p)
    ]
    before = {p: p.stat().st_mtime_ns for p in files}
    assert whole(tmp_path / "a.tif", tmp_path / "vol.zarr").exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in files} == before


def test_a_source_that_seems_to_come_from_the_future_is_gone_on_with(whole, tmp_path):
    """Clocks of microscopes are ahead, or of another time zone, and copies keep dates."""
    write_stack(tmp_path / "a.tif")
    ahead = time.time() + 3 * 3600
    os.utime(tmp_path / "a.tif", (ahead, ahead))
    assert whole(tmp_path / "a.tif", tmp_path / "vol.zarr").exit_code == 0
    written = (tmp_path / "vol.zarr" / "zarr.json").stat().st_ino
    os.utime(tmp_path / "a.tif", (int(ahead), int(ahead)))  # as a copy to another disk may have it
    assert whole(tmp_path / "a.tif", tmp_path / "vol.zarr").exit_code == 0
    assert (tmp_path / "vol.zarr" / "zarr.json").stat().st_ino == written


CHANGES = ["another source", "a newer source", "an older source", "another voxel size"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_volume_of_something_else_is_not_taken_for_this_one(whole, volseg, tmp_path, change):
    source, volume = tmp_path / "a.tif", tmp_path / "a.zarr"
    write_stack(source)
    size = "6" if change == "another voxel size" else "5"
    assert volseg("convert", source, volume, "--voxel-size", size).exit_code == 0
    if change == "another source":
        source = source.rename(tmp_path / "b.tif")
    elif change in ("a newer source", "an older source"):
        later = (volume / "zarr.json").stat().st_mtime + (10 if "newer" in change else -1000)
        os.utime(source, (later, later))
    refused = whole(source, volume)
    assert refused.exit_code == 2
    assert f"{volume} is not what {source} gives now" in refused.stderr
    assert whole(source, volume, "--overwrite").exit_code == 0


def test_a_folder_of_stacks_gives_a_row_each(whole, tmp_path):
    (tmp_path / "stacks").mkdir()
    for seed, name in enumerate(("a.tif", "b.tif")):
        write_stack(tmp_path / "stacks" / name, seed)
    told = whole(tmp_path / "stacks", "--dry-run")
    assert told.stdout.splitlines()[:2] == [
        f"{tmp_path}/stacks/{n}.tif -> {tmp_path}/stacks-volseg/{n}.zarr" for n in "ab"
    ]
    assert not (tmp_path / "stacks-volseg").exists()
    done = whole(tmp_path / "stacks")
    assert done.exit_code == 0, done.output
    *table, _, _, last = done.stdout.splitlines()  # and what precision to expect of each
    assert [line.split()[0] for line in table] == [
        "volume",
        *(f"{tmp_path}/stacks-volseg/{n}.zarr" for n in "ab"),
    ]
    assert last == f"report: {tmp_path}/stacks-volseg/report.html"
    assert "2 volumes</h1>" in (tmp_path / "stacks-volseg" / "report.html").read_text()


def test_labels_beside_stacks_are_left_out_and_told(whole, tmp_path):
    (tmp_path / "stacks").mkdir()
    write_stack(tmp_path / "stacks" / "b.tif")
    raw = tifffile.imread(tmp_path / "stacks" / "b.tif")
    mask = tmp_path / "stacks" / "b_labels.tif"
    tifffile.imwrite(mask, np.where(raw > 120, 255, 0).astype(np.uint8), photometric="minisblack")
    told = whole(tmp_path / "stacks", "--dry-run")
    done = whole(tmp_path / "stacks", "--json")
    for line in (told.stderr, done.stderr):
        assert f"left out, because they hold labels or masks, and no image: {mask}; to" in line
        assert f"`volseg run {mask}`" in line
    found = json.loads(done.stdout)
    assert [Path(row["volume"]).name for row in found["volumes"]] == ["b.zarr"]
    assert found["left_out"] == [str(mask)]
    assert whole(mask, "--dry-run").stdout.startswith(f"{mask} -> ")


def test_a_run_that_was_interrupted_again_and_again_ends_as_one_that_was_not(
    whole, tmp_path, monkeypatch
):
    for place in ("cut", "straight"):
        (tmp_path / place).mkdir()
        for seed, name in enumerate(("a.tif", "b.tif")):
            write_stack(tmp_path / place / name, seed)
    for step in ("segment", "report"):
        calls, last, act = [], step == "segment", getattr(api_whole, step)

        def cut(*args, calls=calls, last=last, act=act, **options):
            calls.append(args)
            if len(calls) == 1 + last:  # of stacks, the second
                raise KeyboardInterrupt
            return act(*args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(api_whole, step, cut)
            assert whole(tmp_path / "cut").exit_code != 0
        assert not (tmp_path / "cut-volseg" / "report.html").exists()
    outputs = []
    for place in ("cut", "straight"):
        done = whole(tmp_path / place)
        assert done.exit_code == 0, done.output
        outputs.append(done.stdout.replace(f"{place}-volseg", ""))
        assert (tmp_path / f"{place}-volseg" / "report.html").exists()
    assert outputs[0].split() == outputs[1].split()
    for name in ("a.zarr", "b.zarr"):
        cut, straight = (tmp_path / f"{p}-volseg" / name / "labels" for p in ("cut", "straight"))
        chunks = [path.relative_to(cut) for path in cut.rglob("c/*/*/*")]
        assert chunks
        for chunk in chunks:
            assert (cut / chunk).read_bytes() == (straight / chunk).read_bytes()


def test_a_damaged_stack_does_not_stop_the_others(whole, tmp_path):
    (tmp_path / "stacks").mkdir()
    write_stack(tmp_path / "stacks" / "a.tif")
    (tmp_path / "stacks" / "b.tif").write_bytes(b"no image")
    truth = np.zeros((20, 70, 60), np.uint8)
    truth[5:9, 10:30, 10:30], truth[:, 50:, 40:] = 1, 2
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    truths = ("--truth", tmp_path / "truth.tif") * 2
    refused = whole(tmp_path / "stacks", *truths, "--truth", "third")
    assert (refused.exit_code, "found 3" in refused.stderr) == (2, True)
    done = whole(tmp_path / "stacks", *truths)
    assert done.exit_code == 1
    assert "1 of 2 stacks failed; the others are done" in done.stderr
    assert "b.tif" in done.stderr
    assert (tmp_path / "stacks-volseg" / "a.zarr" / "tables").is_dir()
    page = tmp_path / "stacks-volseg" / "report.html"  # as if none had failed
    assert "Against the truth" in page.read_text()
    assert list(page.parent.glob("*.html")) == [page]


def test_where_all_stacks_fail_each_is_told(whole, tmp_path, monkeypatch):
    def fail(volume, **_):
        raise ConflictError(f"{volume} stands")

    monkeypatch.setattr(api_whole, "segment", fail)
    (tmp_path / "stacks").mkdir()
    for name in ("a.tif", "b.tif"):
        write_stack(tmp_path / "stacks" / name)
    done = whole(tmp_path / "stacks")
    assert done.exit_code == 1
    assert "2 of 2 stacks failed:\n" in done.stderr
    assert "others are done" not in done.stderr
    for name in "ab":
        assert f"{name}.tif: {tmp_path}/stacks-volseg/{name}.zarr stands" in done.stderr


def test_what_is_told_of_a_stack_is_told_once(whole, tmp_path):
    write_stack(tmp_path / "a.tif")
    raw = np.where(tifffile.imread(tmp_path / "a.tif") > 120, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", raw, photometric="minisblack")
    done = whole(tmp_path / "a.tif")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("is this a mask") == 1  # which conversion and segmentation both see


@pytest.mark.parametrize("place", ["missing.tif", "a.tif/labels", "nothing"])
def test_a_truth_that_is_missing_is_refused_before_any_work(whole, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    write_stack(tmp_path / "a.tif")
    refused = whole("a.tif", "--truth", place)
    assert refused.exit_code == 2
    assert f"there is nothing at {place}" in refused.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif"}


def test_a_volume_in_a_folder_that_is_missing_is_refused(whole, tmp_path):
    write_stack(tmp_path / "a.tif")
    refused = whole(tmp_path / "a.tif", tmp_path / "x" / "y" / "vol.zarr")
    assert refused.exit_code == 2
    assert f"there is no folder {tmp_path / 'x' / 'y'} to write vol.zarr in" in refused.stderr


def test_a_volume_is_segmented_where_it_is(whole, volseg, toy_model, tmp_path):
    write_stack(tmp_path / "a.tif")
    assert volseg("convert", tmp_path / "a.tif", tmp_path / "v.zarr", "-q").exit_code == 0
    refused = whole(tmp_path / "v.zarr")
    assert refused.exit_code == 2
    assert f"--voxel-size cannot change {tmp_path / 'v.zarr'}" in refused.stderr
    done = volseg("run", tmp_path / "v.zarr", "--model", toy_model, "--measure", "basic")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "v.zarr" / "tables" / "mitochondria.parquet").is_file()
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "v.zarr", "v-report.html"}


def test_a_plain_array_is_converted_beside_it(whole, tmp_path):
    import zarr

    write_stack(tmp_path / "a.tif")
    raw = tifffile.imread(tmp_path / "a.tif")
    for name in ("plain", "named.zarr"):
        zarr.create_array(tmp_path / name, data=raw, chunks=(8, 32, 32))
    done = whole(tmp_path / "plain", "--json", "-q")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["volumes"][0]["volume"] == str(tmp_path / "plain.zarr")
    refused = whole(tmp_path / "named.zarr")
    assert refused.exit_code == 2
    assert f"{tmp_path / 'named.zarr'} is a plain Zarr array" in refused.stderr
    assert whole(tmp_path / "named.zarr", tmp_path / "v.zarr", "--dry-run").exit_code == 0


def test_a_report_that_cannot_be_written_is_refused_before_any_work(whole, tmp_path):
    write_stack(tmp_path / "a.tif")
    refused = whole(tmp_path / "a.tif", "--output", tmp_path / "missing" / "r.html")
    assert refused.exit_code == 2
    assert "there is no folder" in refused.stderr
    assert not (tmp_path / "a.zarr").exists()
