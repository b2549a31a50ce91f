"""Probabilities and masks of other programs, as the ground that labels are made on."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from toy_volumes import write_raw
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, ConflictError, SourceError, StorageError
from volseg.geometry.grid import full_roi
from volseg.sources import probabilities as foreign
from volseg.sources.stack import Selection
from volseg.stages.label import adopt
from volseg.storage.arrays import fit_spec
from volseg.storage.volumes import create_image, open_image, probabilities_path

SHAPE = (40, 70, 90)


@pytest.fixture(scope="module")
def fractions():
    """Smooth blobs from 0 to 1."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(3).random(SHAPE), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.fixture
def volume(tmp_path):
    return write_raw(tmp_path / "vol.zarr", np.full(SHAPE, 120, np.uint8))


def write_tiff(path, array, **more):
    tifffile.imwrite(path, array, photometric="minisblack", **more)
    return path


def write_v2(path, array):
    made = zarr.create_array(
        path, shape=array.shape, dtype=array.dtype, chunks=(16, 40, 50), zarr_format=2
    )
    made[...] = array
    return path


def write_ilastik(path, array):
    """Write a file of two channels, the slowest axis last, as ilastik exports probabilities."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        both = np.stack([1 - array, array], axis=-1)
        made = file.create_dataset("exported_data", data=both, chunks=(8, 32, 32, 2))
        made.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyxc"]})
    return path


def taken(volseg, volume, path, *flags):
    done = volseg("label", volume, "--probabilities", path, *flags)
    assert done.exit_code == 0, done.output
    return open_image(probabilities_path(volume, "mitochondria")).levels[0][full_roi(SHAPE)]


def plan(volume, source, **more):
    options = adopt.AdoptOptions("mitochondria", **more)
    return adopt.plan_adoption(volume, source, options, NoProgress())


def number(mask):
    """Number objects from 1, those at the end from 200, as they are in a large volume."""
    labels, _ = ndimage.label(mask)
    return np.where(labels > 3, labels + 200, labels)


def count(mask):
    return ndimage.label(mask, np.ones((3, 3, 3)))[1]


@pytest.mark.parametrize("write", [write_tiff, write_v2, write_ilastik])
def test_fractions_of_any_format_become_the_same_objects(
    write, volseg, volume, fractions, tmp_path
):
    flags = ("--threshold", 0.7, *(("--channel", 1) if write is write_ilastik else ()))
    found = taken(volseg, volume, write(tmp_path / "probabilities", fractions), *flags)
    np.testing.assert_array_equal(found, np.rint(fractions * np.float32(255)).astype(np.uint8))
    labels, inside = open_image(volume / "labels" / "mitochondria"), found >= 0.7 * 255
    assert labels.attributes["objects"] == count(inside) > 3
    np.testing.assert_array_equal(labels.levels[0][full_roi(SHAPE)] > 0, inside)
    assert labels.space.scale == (5, 5, 5)


@pytest.mark.parametrize(
    "kind", ["bool", "uint8", "uint16", "int32", "float32", "float64", "uint8 of 255"]
)
def test_a_mask_of_any_type_is_0_and_255(kind, volume, fractions, tmp_path):
    inside = fractions > 0.6
    if " of " in kind or kind.startswith("float"):
        array = np.where(inside, 255, 0).astype(kind.split()[0])
    else:
        array = inside.astype(kind)
    planned = plan(volume, write_tiff(tmp_path / "mask.tif", array))
    assert planned.header["rule"] == "mask"
    found = foreign.read_probabilities(planned.source, full_roi(SHAPE), planned.rule)
    np.testing.assert_array_equal(found, np.where(inside, 255, 0))


def test_bytes_stay_as_they_are(volume, fractions, tmp_path):
    array = (fractions * 255).astype(np.uint8)
    planned = plan(volume, write_v2(tmp_path / "p", array))
    found = foreign.read_probabilities(planned.source, full_roi(SHAPE), planned.rule)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: number(p > 0.6).astype(np.uint8), "labels are measured as they are by"),
        (lambda p: (p * 300).astype(np.uint16), "labels are measured as they are by"),
        (lambda p: (p * 5).astype(np.uint8), "classes or probabilities of some scale"),
        (lambda p: (p > 0.5).astype(np.uint8) + 1, "classes or probabilities of some scale"),
        (lambda p: p * 255, "float from 0 to 1, or uint8"),
        (lambda p: p * 8 - 4, "through its sigmoid"),
        (lambda p: np.where(p > 0.9, np.nan, p), "not finite"),
        (lambda p: p[:-1], "the shape (39, 70, 90) (z, y, x)"),
        (lambda p: p.transpose(2, 1, 0), "in another order, which --axes names"),
    ],
)
def test_what_is_not_clear_is_refused(change, said, volseg, volume, fractions, tmp_path):
    path = write_tiff(tmp_path / "p.tif", change(fractions))
    done = volseg("label", volume, "--probabilities", path)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not (volume / "probabilities").exists()


def test_own_files_of_cellpose(volseg, volume, fractions, tmp_path):
    """Its masks are labels, which are measured as they are; its other files say what to do."""
    masks, objects = ndimage.label(fractions > 0.6)
    write_tiff(tmp_path / "a_cp_masks.tif", masks.astype(np.uint16), compression="zlib")
    np.save(tmp_path / "a_seg.npy", {"masks": masks}, allow_pickle=True)
    write_tiff(tmp_path / "a_flows.tif", fractions * 12 - 6)
    for name, said in (
        ("a_cp_masks.tif", "labels are measured as they are by `volseg stats VOLUME --labels "),
        ("a_seg.npy", "a file of cellpose that only running code from it opens"),
        ("a_flows.tif", "through its sigmoid"),
    ):
        done = volseg("label", volume, "--probabilities", tmp_path / name)
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())
    assert said_by_stats(volseg, volume, tmp_path / "a_cp_masks.tif") == objects


def test_own_files_of_mitonet(volseg, volume, fractions, tmp_path):
    """empanada writes Zarr v2 whose ids are classes times a divisor, and objects."""
    objects, count = ndimage.label(fractions > 0.6)
    ids = np.where(objects > 0, objects + 20_000, 0).astype(np.int32)
    group = zarr.open_group(tmp_path / "em.zarr", mode="w", zarr_format=2)
    made = group.create_array("mito_pred", shape=SHAPE, chunks=(16, 40, 50), dtype="int32")
    made[...] = ids
    done = volseg("label", volume, "--probabilities", tmp_path / "em.zarr" / "mito_pred")
    assert done.exit_code == 2
    assert "labels are measured as they are by" in " ".join(done.output.split())
    assert said_by_stats(volseg, volume, tmp_path / "em.zarr" / "mito_pred") == count


def said_by_stats(volseg, volume, labels):
    done = volseg("stats", volume, "--labels", labels, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    return found["objects"]


def test_another_voxel_size_is_told_of(volseg, volume, fractions, tmp_path):
    sizes = {
        "imagej": True,
        "resolution": (0.1, 0.1),
        "metadata": {"unit": "nm", "spacing": 10, "axes": "ZYX"},
    }
    path = write_tiff(tmp_path / "p.tif", fractions, **sizes)
    done = volseg("label", volume, "--probabilities", path)
    assert "says that its voxels measure 10,10,10 nm (z,y,x)" in done.output
    assert "is read as probabilities from 0 to 1 (float32)" in done.output


def test_all_that_follows_works(volseg, volume, fractions, tmp_path):
    path = write_v2(tmp_path / "net.zarr", fractions)
    write_tiff(tmp_path / "truth.tif", (fractions > 0.5).astype(np.uint8))
    taken(volseg, volume, path, "--threshold", "0.6")
    for call in (
        ["stats", volume],
        ["evaluate", volume, "--truth", tmp_path / "truth.tif", "--output", tmp_path / "scores"],
        ["verify", volume],
        ["info", volume],
        ["report", volume, "--output", tmp_path / "page.html"],
        ["label", volume, "--threshold", "0.7", "--overwrite"],
    ):
        done = volseg(*call)
        assert done.exit_code == 0, done.output
    assert "“net.zarr”" in (tmp_path / "page.html").read_text(encoding="utf-8")
    scores = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert scores["curves"]["roc_area"] > 0.99


def test_a_run_that_failed_goes_on_where_it_was(volume, fractions, tmp_path, monkeypatch):
    monkeypatch.setattr(adopt, "SHARD", (32, 64, 64))
    source, read = write_v2(tmp_path / "p", fractions), foreign.read_probabilities
    seen = []

    def fail(voxels, roi, rule):
        seen.append(roi)
        if roi[2].start:
            raise StorageError("away")
        return read(voxels, roi, rule)

    monkeypatch.setattr(adopt, "read_probabilities", fail)
    planned = plan(volume, source, engine=EngineOptions(workers=1))
    with pytest.raises(BlockError):
        adopt.adopt(planned, NoProgress())
    first = len(seen)
    assert not open_image(planned.foundation.path).attributes["complete"]
    monkeypatch.setattr(adopt, "read_probabilities", lambda *a: (seen.append(a), read(*a))[1])
    adopt.adopt(plan(volume, source, engine=EngineOptions(workers=1)), NoProgress())
    assert len(seen) - first == math.prod(planned.grid.counts) // 2
    found = open_image(planned.foundation.path)
    assert found.attributes["fingerprint"] == planned.foundation.fingerprint
    expected = np.rint(fractions * np.float32(255))
    np.testing.assert_array_equal(found.levels[0][full_roi(SHAPE)], expected)
    adopt.adopt(plan(volume, source), NoProgress())
    assert len(seen) - first == math.prod(planned.grid.counts) // 2


def test_nothing_else_is_replaced_unless_asked_for(volseg, volume, fractions, tmp_path):
    place = probabilities_path(volume, "mitochondria")
    spec = open_image(volume).levels[0]
    noted = {"complete": True, "run": {"model": "a" * 64}, "model": {"name": "unet2d"}}
    create_image(place, fit_spec(spec.shape, "uint8"), (5.0, 5.0, 5.0), attributes=noted)
    first = write_v2(tmp_path / "a.zarr", fractions)
    done = volseg("label", volume, "--probabilities", first)
    assert done.exit_code == 2
    assert "was predicted with unet2d; you ask for what is read from a.zarr" in done.output
    taken(volseg, volume, first, "--overwrite", "--threshold", "0.7")
    other = write_v2(tmp_path / "b.zarr", 1 - fractions)
    done = volseg("label", volume, "--probabilities", other)
    assert done.exit_code == 2
    assert "was made from probabilities of a.zarr" in done.output
    with pytest.raises(ConflictError, match="give another --name"):
        plan(volume, place)
    done = volseg("label", volume, "--threshold", "0.3")
    assert f"`volseg label {volume} --probabilities SOURCE --name OTHER`" in done.output
    taken(volseg, volume, first, "--name", "OTHER", "--threshold", "0.3")


def test_wrong_usage(volseg, volume, fractions, tmp_path):
    path = write_v2(tmp_path / "a.zarr", fractions)
    done = volseg("label", volume, "--channel", "1")
    assert (done.exit_code, "of --probabilities is meant" in done.output) == (2, True)
    done = volseg("label", volume, "--probabilities", path, "--split", "centerline")
    assert (done.exit_code, "without centerlines" in done.output) == (2, True)
    done = volseg("label", volume, "--probabilities", tmp_path / "none.tif")
    assert (done.exit_code, "there is nothing at" in done.output) == (2, True)


def test_the_selection_is_that_of_the_source(volume, fractions, tmp_path):
    both = np.stack([fractions, 1 - fractions])
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, both, metadata={"axes": "CZYX"}, photometric="minisblack")
    planned = plan(volume, path, selection=Selection(channel=1))
    read = foreign.read_probabilities(planned.source, full_roi(SHAPE), planned.rule)
    np.testing.assert_array_equal(read, np.rint((1 - fractions) * np.float32(255)))
    with pytest.raises(SourceError, match="2 channels"):
        plan(volume, path)
