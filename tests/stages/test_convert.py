"""Convert: the same voxels, every level, the size and the histogram; or nothing at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image import Image as OmeImage

from toy_elsewhere import ORIGIN, write_elsewhere
from toy_stacks import make_stack
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, InputError, SourceError, StorageError
from volseg.geometry.grid import full_roi
from volseg.stages.convert import plan as plan_module
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.info.run import info
from volseg.storage.attributes import read_attributes, update_attributes
from volseg.storage.targets import drafting_folder
from volseg.storage.volumes import open_image
from volseg.voxels.downsample import reduce_mean


def make(shape=(75, 130, 93), dtype="uint8"):
    return make_stack(shape, dtype)


def run(source, target, **options):
    with plan_conversion(source, target, ConvertOptions(**options)) as plan:
        return convert(plan, NoProgress())


def read(array):
    return array[full_roi(array.shape)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("size", [(5.0, 5.0, 5.0), (50.0, 5.0, 5.0)])
def test_voxels_levels_and_histogram(tmp_path, dtype, size):
    raw = make(dtype=dtype)
    tifffile.imwrite(tmp_path / "s.tif", raw, compression="zlib")
    report = run(tmp_path / "s.tif", tmp_path / "v.zarr", voxel_size=size, workers=3)
    image = open_image(tmp_path / "v.zarr")
    assert (report.shape, report.dtype, report.levels) == (raw.shape, dtype, len(image.levels))
    np.testing.assert_array_equal(read(image.levels[0]), raw)
    for k in range(1, len(image.levels)):
        pair = zip(image.factors[k], image.factors[k - 1], strict=True)
        expected = reduce_mean(read(image.levels[k - 1]), tuple(round(a / b) for a, b in pair))
        np.testing.assert_array_equal(read(image.levels[k]), expected)
    OmeImage.from_zarr(zarr.open_group(tmp_path / "v.zarr", mode="r"))
    histogram = image.attributes["histogram"]
    assert sum(histogram["counts"]) == raw.size
    if dtype != "float32":
        values, counts = np.unique(raw, return_counts=True)
        assert histogram == {"values": values.tolist(), "counts": counts.tolist()}
    assert image.voxel_size == size
    assert image.attributes["complete"]


def test_thick_sections_are_reduced_in_the_plane_first(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make((30, 260, 250)))
    run(tmp_path / "s.tif", tmp_path / "v.zarr", voxel_size=(50.0, 5.0, 5.0))
    shapes = [a.shape for a in open_image(tmp_path / "v.zarr").levels]
    assert shapes == [(30, 260, 250), (30, 130, 125), (30, 65, 63), (30, 33, 32)]


def test_where_it_came_from_is_noted(tmp_path, crop):
    run(crop / "raw.tif", tmp_path / "v.zarr")
    noted = read_attributes(tmp_path / "v.zarr")["volseg"]
    assert noted["voxel_size_from"] == "its ImageJ description"
    assert noted["source"]["first"] == "raw.tif"
    assert noted["source"]["format"] == "ImageJ"
    assert len(noted["fingerprint"]) == 32


def test_the_fingerprint_is_of_the_voxels_not_of_the_file(tmp_path):
    raw, prints = make(), []
    for name, form in (("a", {}), ("b", {"compression": "zstd"})):
        tifffile.imwrite(tmp_path / f"{name}.tif", raw, **form)
        run(tmp_path / f"{name}.tif", tmp_path / name)
        prints.append(open_image(tmp_path / name).attributes["fingerprint"])
    raw[40, 50, 60] ^= 1
    tifffile.imwrite(tmp_path / "c.tif", raw)
    run(tmp_path / "c.tif", tmp_path / "c")
    prints.append(open_image(tmp_path / "c").attributes["fingerprint"])
    assert prints[0] == prints[1] != prints[2]


def nothing_but(folder, *names):
    return sorted(p.name for p in folder.iterdir()) == sorted(names)


def test_a_damaged_page_leaves_nothing_behind(tmp_path):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, make(), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[70].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="page 71 of 75"):
        run(path, tmp_path / "v.zarr")
    assert nothing_but(tmp_path, "s.tif")


def test_values_that_are_not_finite_are_named(tmp_path):
    raw = make(dtype="float32")
    raw[3, 4, 5] = np.nan
    tifffile.imwrite(tmp_path / "s.tif", raw)
    with pytest.raises(SourceError, match=r"page 4 .*not finite"):
        run(tmp_path / "s.tif", tmp_path / "v.zarr")
    assert nothing_but(tmp_path, "s.tif")


@pytest.mark.parametrize("form", ["tif", "zarr"])
def test_values_that_are_not_finite_become_the_fill_value_and_are_counted(tmp_path, form):
    raw = make(dtype="float32") + 1
    expected = raw.copy()
    raw[3, 4, 5], raw[40, 2:4, 1] = np.nan, np.inf
    expected[3, 4, 5] = expected[40, 2:4, 1] = -2
    path = tmp_path / f"s.{form}"
    zarr.save_array(path, raw) if form == "zarr" else tifffile.imwrite(path, raw)
    report = run(path, tmp_path / "v.zarr", fill_value=-2)
    np.testing.assert_array_equal(read(open_image(tmp_path / "v.zarr").levels[0]), expected)
    assert "3 voxels were not finite (NaN), and are -2 now" in report.warnings


@pytest.mark.parametrize(
    ("colours", "where", "told"),
    [
        (False, "stages.convert.run", r"64 pages of 93 x 130 uint8 do not fit in memory"),
        (True, "sources.open", r"s\.tif: a page of 9 x 8 uint8 does not fit in memory"),
    ],
)
def test_what_memory_cannot_hold_is_told(tmp_path, monkeypatch, colours, where, told):
    raw, kind = (np.zeros((8, 9, 3), np.uint8), "rgb") if colours else (make(), "minisblack")
    tifffile.imwrite(tmp_path / "s.tif", raw, photometric=kind)

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(f"volseg.{where}.np.empty", full)
    with pytest.raises(SourceError, match=told):
        run(tmp_path / "s.tif", tmp_path / "v.zarr")
    assert nothing_but(tmp_path, "s.tif")


def test_an_existing_target_is_replaced_only_on_request(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make())
    run(tmp_path / "s.tif", tmp_path / "v.zarr")
    other = make((9, 20, 30))
    tifffile.imwrite(tmp_path / "t.tif", other)
    with pytest.raises(ConflictError, match="--overwrite"):
        run(tmp_path / "t.tif", tmp_path / "v.zarr")
    run(tmp_path / "t.tif", tmp_path / "v.zarr", overwrite=True)
    np.testing.assert_array_equal(read(open_image(tmp_path / "v.zarr").levels[0]), other)
    assert nothing_but(tmp_path, "s.tif", "t.tif", "v.zarr")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):  # a flag that will not do is not advised
        for target in ("precious", "s.tif"):
            with pytest.raises(ConflictError, match="is no volume, so it is not replaced"):
                run(tmp_path / "t.tif", tmp_path / target, overwrite=overwrite)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_where_a_link_points_to_is_replaced(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make())
    (tmp_path / "disk").mkdir()
    run(tmp_path / "s.tif", tmp_path / "disk" / "v.zarr")
    (tmp_path / "v.zarr").symlink_to(tmp_path / "disk" / "v.zarr")
    tifffile.imwrite(tmp_path / "t.tif", make((9, 20, 30)))
    run(tmp_path / "t.tif", tmp_path / "v.zarr", overwrite=True)
    assert open_image(tmp_path / "disk" / "v.zarr").levels[0].shape == (9, 20, 30)
    assert (tmp_path / "v.zarr").is_symlink()
    assert nothing_but(tmp_path, "s.tif", "t.tif", "disk", "v.zarr")
    assert nothing_but(tmp_path / "disk", "v.zarr")


def test_a_target_that_another_process_made_meanwhile_stays(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "s.tif", make())
    monkeypatch.setattr("volseg.stages.convert.plan.check_target", lambda target, overwrite: None)
    run(tmp_path / "s.tif", tmp_path / "v.zarr")
    tifffile.imwrite(tmp_path / "t.tif", make((9, 20, 30)))
    with pytest.raises(ConflictError, match="made by another process in the meantime"):
        run(tmp_path / "t.tif", tmp_path / "v.zarr")
    assert open_image(tmp_path / "v.zarr").levels[0].shape == make().shape
    assert nothing_but(tmp_path, "s.tif", "t.tif", "v.zarr")


def test_a_folder_that_is_missing_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make((3, 9, 9)), photometric="minisblack")
    with pytest.raises(InputError, match="there is no folder"):
        run(tmp_path / "s.tif", tmp_path / "nowhere" / "v.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make())
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="no permission to write in"):
        run(tmp_path / "s.tif", tmp_path / "locked" / "v.zarr")


def test_no_permission_as_the_system_tells_it(tmp_path, monkeypatch):
    """What root sees of it, too."""
    tifffile.imwrite(tmp_path / "s.tif", make())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="no permission to write in"):
        run(tmp_path / "s.tif", tmp_path / "v.zarr")
    assert nothing_but(tmp_path, "s.tif")


FULL_DISK = """
import resource
import sys
from volseg.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
main(["convert", sys.argv[1], sys.argv[2]])
"""


def test_a_full_disk_ends_with_a_message_and_leaves_nothing(tmp_path):
    """A limit on files' sizes stands in for it: every write beyond it fails."""
    tifffile.imwrite(tmp_path / "s.tif", make((75, 200, 200)))
    arguments = [sys.executable, "-c", FULL_DISK, tmp_path / "s.tif", tmp_path / "v.zarr"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert nothing_but(tmp_path, "s.tif")


def test_storage_errors_are_storage_errors(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "s.tif", make())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("volseg.storage.arrays.StoredArray.write", full)
    with pytest.raises(StorageError, match="No space left on device"):
        run(tmp_path / "s.tif", tmp_path / "v.zarr")
    assert nothing_but(tmp_path, "s.tif")


def test_what_a_killed_run_left_is_removed_and_what_another_writes_is_kept(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make((9, 20, 30)))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = f".v.zarr.{socket.gethostname().split('.')[0]}"
    dead, alive = f"{here}-{child.pid}-7.tmp", f"{here}-1-7.tmp"
    elsewhere = f".v.zarr.elsewhere-{child.pid}-7.tmp"
    for name in (dead, alive, elsewhere):
        (tmp_path / name).mkdir()
    run(tmp_path / "s.tif", tmp_path / "v.zarr")
    assert nothing_but(tmp_path, "s.tif", "v.zarr", alive, elsewhere)


def test_the_image_bears_the_name_of_the_volume(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make((9, 20, 30)))
    run(tmp_path / "s.tif", tmp_path / "v.zarr")
    (multiscale,) = read_attributes(tmp_path / "v.zarr")["ome"]["multiscales"]
    assert multiscale["name"] == "v.zarr"


def test_a_dry_run_writes_nothing(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make())
    with plan_conversion(tmp_path / "s.tif", tmp_path / "v.zarr", ConvertOptions()) as plan:
        report = plan.report
    assert report.raw_bytes == 75 * 130 * 93
    assert nothing_but(tmp_path, "s.tif")


PEAK = """
import resource
import sys
from volseg.cli import main

main(["convert", sys.argv[1], sys.argv[2], "-q"], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_depth(tmp_path):
    peaks = []
    for depth in (128, 512):
        source, target = tmp_path / f"{depth}.tif", tmp_path / f"{depth}.zarr"
        pages = np.random.default_rng(0).integers(0, 255, (16, 512, 512), np.uint8)
        with tifffile.TiffWriter(source) as writer:
            for n in range(depth):
                writer.write(pages[n % 16], contiguous=True)
        done = subprocess.check_output([sys.executable, "-c", PEAK, source, target])
        peaks.append(int(done.split()[-1]))
    assert peaks[1] < 1.15 * peaks[0]


def test_wide_planes_are_held_a_few_at_a_time(tmp_path, monkeypatch):
    """Planes of 1 GB or more would not fit into memory by 64."""
    data = make((75, 130, 93))
    tifffile.imwrite(tmp_path / "stack.tif", data, photometric="minisblack")
    usual = run(tmp_path / "stack.tif", tmp_path / "usual.zarr", voxel_size=(4, 4, 4))
    held = []
    for planes, depth in ((75, 64), (20, 16), (1, 8)):
        monkeypatch.setattr(plan_module, "SLAB_BYTES", planes * data[0].nbytes)
        target = tmp_path / f"{planes}.zarr"
        report = run(tmp_path / "stack.tif", target, voxel_size=(4, 4, 4))
        held.append(report.memory_bytes / usual.memory_bytes)
        image, as_usual = open_image(target), open_image(tmp_path / "usual.zarr")
        assert image.levels[0].shard[0] == depth
        assert image.levels[0].chunk[0] == min(depth, 32)
        assert image.attributes["fingerprint"] == as_usual.attributes["fingerprint"]
        for level, expected in zip(image.levels, as_usual.levels, strict=True):
            np.testing.assert_array_equal(read(level), read(expected))
    assert held == pytest.approx([1, 1 / 4, 1 / 8], rel=0.01)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_others_are_converted_as_their_pages_are(tmp_path, dtype, version):
    raw, size = make(dtype=dtype), (5.0, 5.0, 5.0)
    tifffile.imwrite(tmp_path / "s.tif", raw)
    run(tmp_path / "s.tif", tmp_path / "v.zarr", voxel_size=size)
    run(write_elsewhere(tmp_path / "e", raw, version), tmp_path / "w.zarr", workers=3)
    ours, theirs = (open_image(tmp_path / name) for name in ("v.zarr", "w.zarr"))
    assert theirs.voxel_size == pytest.approx(size)
    for name in ("fingerprint", "histogram", "complete"):
        assert ours.attributes[name] == theirs.attributes[name]
    for one, other in zip(ours.levels, theirs.levels, strict=True):
        assert one.chunk == other.chunk
        np.testing.assert_array_equal(read(one), read(other))


@pytest.mark.parametrize("chunks", [(1, 130, 93), (50, 7, 11), (75, 130, 93)])
def test_arrays_are_converted_whatever_their_chunks(tmp_path, chunks):
    zarr.create_array(tmp_path / "a", data=make(), chunks=chunks, zarr_format=2)
    report = run(tmp_path / "a", tmp_path / "v.zarr", voxel_size=(5.0, 5.0, 5.0))
    assert report.voxel_size_from == "--voxel-size"
    np.testing.assert_array_equal(read(open_image(tmp_path / "v.zarr").levels[0]), make())


def test_arrays_of_other_types_are_converted_and_of_odd_values_refused(tmp_path):
    zarr.create_array(tmp_path / "a", data=make(dtype="uint16").astype(float))
    assert "converted to float32" in run(tmp_path / "a", tmp_path / "w.zarr").warnings[0]
    values = np.zeros((70, 4, 4), np.float32)
    values[66, 2, 1] = np.nan
    zarr.create_array(tmp_path / "b", data=values)
    with pytest.raises(SourceError, match="page 67 holds values that are not finite"):
        run(tmp_path / "b", tmp_path / "v.zarr")
    assert not (tmp_path / "v.zarr").exists()


def test_what_is_to_be_replaced_is_no_source(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", make())
    volume = tmp_path / "v.zarr"
    run(tmp_path / "s.tif", volume)
    for source in (volume, volume / "0"):
        with pytest.raises(ConflictError, match="a volume is written elsewhere"):
            run(source, volume, overwrite=True)
    update_attributes(volume / "0", {"version": "so that it looks like a volume"})
    with pytest.raises(ConflictError, match="a volume is written elsewhere"):
        run(volume, volume / "0", overwrite=True)
    np.testing.assert_array_equal(read(open_image(volume).levels[0]), make())


HOLD = """
import sys, time
from pathlib import Path
from volseg.storage.ledger import Ledger
with Ledger.open(Path(sys.argv[1]), {"a": 1}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_volume_that_another_process_works_on_is_not_replaced(tmp_path):
    source, volume = tmp_path / "t.tif", tmp_path / "v.zarr"
    tifffile.imwrite(source, make((4, 8, 8)), photometric="minisblack")
    run(source, volume)
    mark = volume / "mark"
    mark.touch()
    ledger = volume / ".volseg" / "predict-m.jsonl"
    command = [sys.executable, "-c", HOLD, str(ledger)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match=f"process {holder.pid} on .* is working"):
            run(source, volume, overwrite=True)
        assert mark.exists()
        with (
            pytest.raises(ConflictError, match="is working"),
            drafting_folder(volume, overwrite=True),
        ):
            pass
        assert mark.exists(), "nor at the end of a conversion that began before"
        holder.kill()
    ledger.with_suffix(".lock").chmod(0o444)
    run(source, volume, overwrite=True)
    assert not mark.exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_stays_in_its_place_and_units(tmp_path, version):
    theirs = write_elsewhere(tmp_path / "else.zarr", make((8, 40, 30)), version)
    run(theirs, tmp_path / "v.zarr")
    space = open_image(tmp_path / "v.zarr").space
    assert space == open_image(theirs).space
    assert (space.origin, space.units) == (ORIGIN, ("micrometer",) * 3)
    run(theirs, tmp_path / "w.zarr", voxel_size=(30.0, 4.0, 4.0))
    corrected = open_image(tmp_path / "w.zarr").space
    assert corrected.voxel_size == (30, 4, 4)
    np.testing.assert_allclose(corrected.origin, np.multiply(ORIGIN, 1000))


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("shape", ["noise", "box"])
@pytest.mark.parametrize("values", [(0, 255), (0, 1, 2), (0, 1, 2, 3), (7,)])
def test_a_mask_in_place_of_an_image_is_told_and_nothing_else(tmp_path, values, shape, images):
    voxels = np.random.default_rng(0).choice(np.array(values, np.uint8), (3, 80, 80))
    if shape == "box":  # as masks are: each slice is constant but for outlines
        voxels[:, :40], voxels[:, 40:] = values[0], values[-1]
        values = (values[0], values[-1]) if len(values) > 1 else values
    tifffile.imwrite(tmp_path / "raw.tif", voxels, photometric="minisblack")
    options = ConvertOptions(images=images, voxel_size=(5.0, 5.0, 5.0))
    with plan_conversion(tmp_path / "raw.tif", tmp_path / "v.zarr", options) as plan:
        notes = convert(plan, NoProgress()).warnings
    known = " or ".join(map(str, values))
    if 1 < len(values) < 4:
        assert [f"all voxels are {known}: is this a mask" in note for note in notes] == [True]
        assert info(tmp_path / "v.zarr")["notes"] == list(notes)
    else:
        assert not any("a mask" in note for note in notes)
