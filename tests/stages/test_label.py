"""Labels on disk: those of the whole volume, whatever the blocks, workers and kills."""

from __future__ import annotations

import math
import os
import random
import shutil
import time

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from toy_kills import kill_until_done
from volseg.engine.options import ClusterOptions, EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, ConflictError, ParameterError, VolumeError
from volseg.geometry.grid import full_roi
from volseg.objects.joining import rank_firsts
from volseg.objects.splitting import Splitter
from volseg.sources.masks import open_mask
from volseg.stages.components import blocks as components
from volseg.stages.label import holes as label_holes
from volseg.stages.label import rules as label_plan
from volseg.stages.label import run as label_run
from volseg.stages.label import split_tasks as label_split_block
from volseg.stages.label import tasks as label_block
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.storage.arrays import ArraySpec
from volseg.storage.attributes import read_attributes, update_attributes
from volseg.storage.ledger import locked
from volseg.storage.volumes import (
    create_image,
    labels_path,
    open_image,
    probabilities_path,
    scratch_path,
    table_path,
)
from volseg.voxels.downsample import reduce_labels

SHAPE = (40, 130, 120)
NAME = "mitochondria"


@pytest.fixture(scope="module")
def probabilities():
    """Blobs of all sizes, in noise."""
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), 3)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    noise = rng.random(SHAPE) < 0.05
    return np.where(noise, 255, smooth * 190).astype(np.uint8)


def write_volume(
    path, probabilities, complete=True, *, voxel_size=(5.0, 5.0, 5.0), roi=None, model=None
):
    spec = ArraySpec(SHAPE, "uint8", (8, 32, 32), (8, 32, 32))
    attributes = {
        "complete": complete,
        "fingerprint": "test",
        "run": {"roi": [[s.start, s.stop] for s in roi or full_roi(SHAPE)]},
        "model": model or {"threshold": 0.5},
    }
    create_image(path, spec, voxel_size, attributes={})
    output = probabilities_path(path, NAME)
    image = create_image(output, spec, voxel_size, attributes=attributes)
    image.levels[0].write(full_roi(SHAPE), probabilities)
    return path


def options(block=(8, 32, 32), workers=2, shard=(8, 32, 32), **more):
    return LabelOptions(block=block, shard=shard, engine=EngineOptions(workers=workers), **more)


def read(volume):
    return open_image(labels_path(volume, NAME)).levels[0][full_roi(SHAPE)]


def expected(probabilities, level=128, min_size=0, connectivity=26):
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    labels, _ = ndimage.label(probabilities >= level, structure)
    found, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    kept = (found > 0) & (sizes >= min_size)
    table = np.zeros(found.max() + 1, np.uint32)
    table[found[kept][np.argsort(first[kept])]] = np.arange(1, kept.sum() + 1)
    return table[labels]


@pytest.mark.parametrize(
    ("block", "shard", "workers"),
    [
        ((8, 32, 32), (8, 32, 32), 2),
        ((16, 64, 32), (16, 32, 32), 1),
        ((40, 130, 120), (8, 64, 64), 2),
        (None, None, 1),
    ],
)
def test_equals_scipy_on_the_whole_for_any_blocks(tmp_path, probabilities, block, shard, workers):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    report = label(
        plan_labels(volume, NAME, options(block, workers, shard, min_size=30)), NoProgress()
    )
    want = expected(probabilities, 128, 30)
    np.testing.assert_array_equal(read(volume), want)
    assert report.objects == want.max() > 10
    assert report.threshold == 0.5


def median(probabilities, step, first=0, stop=None):
    """Take the median of three slices by the book, where something was predicted."""
    inside = probabilities[first:stop]
    padded = np.pad(inside, ((step, step), (0, 0), (0, 0)), mode="edge")
    three = padded[: -2 * step], inside, padded[2 * step :]
    found = np.zeros_like(probabilities)
    found[first:stop] = np.where(inside > 0, np.median(three, axis=0), 0)
    return found


@pytest.mark.parametrize(("nm", "step"), [(5, 1), (14, 3)])
@pytest.mark.parametrize("block", [(8, 32, 32), (16, 64, 32), None])
def test_the_median_of_slices_is_that_of_the_whole_in_any_blocks(
    tmp_path, probabilities, block, nm, step
):
    rng = np.random.default_rng(5)
    faint = np.where(rng.random(probabilities.shape) < 0.03, 0, probabilities)
    faint[~np.isin(np.arange(len(faint)), np.arange(5, 37))] = 0
    region = (slice(5, 37), *full_roi(SHAPE)[1:])
    volume = write_volume(tmp_path / "vol.zarr", faint, roi=region)
    rules = {"median_nm": nm, "seed_threshold": 180 / 255, "min_size": 4}
    found = label(plan_labels(volume, NAME, options(block, **rules)), NoProgress())
    smooth = median(faint, step, 5, 37)
    plain = expected(smooth)
    seeded = np.unique(plain[smooth >= 180])
    want = expected(np.where(np.isin(plain, seeded), smooth, 0), 128, 4)
    np.testing.assert_array_equal(read(volume), want)
    assert found.objects == want.max() > 10
    assert (want != expected(faint, 128, 4)).any()
    with pytest.raises(ConflictError, match=f"with a median of slices {nm} nm apart; you ask for"):
        plan_labels(volume, NAME, options(block, **rules | {"median_nm": None})).stands()


@pytest.mark.parametrize(
    ("first", "same", "other"), [(35.0, (50.0, 26.0, 74.0), 76.0), (100.0, (76.0, 124.0), 50.0)]
)
@pytest.mark.parametrize("done", [True, False])
def test_distances_of_a_median_that_mean_the_same_slices_are_one(
    tmp_path, probabilities, monkeypatch, first, same, other, done
):
    volume = write_volume(tmp_path / "vol.zarr", probabilities, voxel_size=(50.0, 5.0, 5.0))

    def plan(nm, **more):
        return plan_labels(volume, NAME, options((8, 64, 64), median_nm=nm, **more))

    if not done:
        with monkeypatch.context() as patched:
            patched.setattr(label_run, "finish", lambda *_: None)
            label(plan(first), NoProgress())
    else:
        label(plan(first), NoProgress())
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    for nm in (first, *same):
        assert plan(nm).stands() is done
        assert plan(nm, overwrite=True).stands() is done
    label(plan(same[0]), NoProgress())
    assert open_image(labels_path(volume, NAME)).attributes["run"] == run
    assert plan(first).stands()
    for nm in (other, 0.0):
        with pytest.raises(ConflictError, match="a median of slices"):
            plan(nm).stands()


def test_a_run_killed_before_its_labels_goes_on_with_a_distance_of_the_same_slices(
    tmp_path, probabilities, monkeypatch
):
    volume = write_volume(tmp_path / "vol.zarr", probabilities, voxel_size=(50.0, 5.0, 5.0))

    def run(nm):
        label(plan_labels(volume, NAME, options((8, 64, 64), median_nm=nm)), NoProgress())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(label_run.Labelling, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(35.0)
    assert not labels_path(volume, NAME).exists()
    with pytest.raises(ConflictError, match="unfinished run"):
        run(100.0)
    run(50.0)
    assert open_image(labels_path(volume, NAME)).attributes["run"]["median_nm"] == 35.0


@pytest.mark.parametrize("block", [(8, 32, 32), None])
def test_a_median_takes_nothing_beside_a_mask_or_lost_slices(tmp_path, probabilities, block):
    lost, step = [17, 18, 19], 2
    inside = ndimage.gaussian_filter(np.random.default_rng(6).random(SHAPE), 4)
    inside = inside > np.median(inside)
    seen = inside & ~np.isin(np.arange(SHAPE[0]), lost)[:, np.newaxis, np.newaxis]
    found = np.where(seen, np.maximum(probabilities, 1), 0).astype(np.uint8)
    volume = write_volume(tmp_path / "vol.zarr", found)
    mask = tmp_path / "mask.tif"
    tifffile.imwrite(mask, inside.astype(np.uint8), photometric="minisblack")
    told = open_mask(open_image(volume), str(mask)).fingerprint
    run = {"roi": [[0, n] for n in SHAPE], "mask": {"labels": str(mask), "fingerprint": told}}
    update_attributes(probabilities_path(volume, NAME), {"run": {**run, "missing": lost}})
    label(plan_labels(volume, NAME, options(block, median_nm=10)), NoProgress())
    three = []
    for away in (-step, 0, step):
        at = np.clip(np.arange(SHAPE[0]) + away, 0, SHAPE[0] - 1)
        three.append(np.where(seen[at], found[at], found))
    want = expected(np.where(seen, np.median(three, axis=0), 0))
    np.testing.assert_array_equal(read(volume), want)
    assert (want != expected(median(found, step))).any()


def test_the_models_median_holds_where_slices_are_near(tmp_path, probabilities):
    for size, told in (((40.0, 5.0, 5.0), 35), ((90.0, 5.0, 5.0), None), (None, 35)):
        model = {"threshold": 0.5, "median_nm": 35.0}
        volume = tmp_path / f"{told}{size}.zarr"
        write_volume(volume, probabilities, voxel_size=size, model=model)
        assert plan_labels(volume, NAME, options()).header.get("median_nm") == told
        for other in ({"complement": True}, {"images": True}, {"median_nm": 0}):
            assert "median_nm" not in plan_labels(volume, NAME, options(**other)).header
        with pytest.raises(ParameterError, match="unrelated images have no median"):
            plan_labels(volume, NAME, options(images=True, median_nm=40))
    volume = tmp_path / "None(90.0, 5.0, 5.0).zarr"
    with pytest.raises(ParameterError, match=r"90 nm apart.*--median 90"):
        plan_labels(volume, NAME, options(median_nm=30))
    for distance in (-1, 2e6, math.nan):
        with pytest.raises(ParameterError, match=r"between 0 and 1e\+06 nm, found"):
            options(median_nm=distance)


def test_the_threshold_counts_as_foreground(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(plan_labels(volume, NAME, options(threshold=180 / 255)), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities, 180))


def test_what_is_surely_background_is_never_foreground():
    assert label_plan.level_of(1e-10) == 1


@pytest.mark.parametrize("connectivity", [6, 18])
@pytest.mark.parametrize("block", [(16, 32, 64), None])
def test_fewer_neighbours_are_more_objects(tmp_path, probabilities, connectivity, block):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    found = label(
        plan_labels(volume, NAME, options(block, connectivity=connectivity)), NoProgress()
    )
    want = expected(probabilities, connectivity=connectivity)
    np.testing.assert_array_equal(read(volume), want)
    assert found.objects == want.max() > expected(probabilities).max()
    image = open_image(labels_path(volume, NAME))
    assert image.attributes["run"]["connectivity"] == connectivity
    with pytest.raises(ParameterError, match="4, 6, 8, 18 or 26, found 7"):
        options(connectivity=7)


@pytest.mark.parametrize("block", [(16, 32, 64), None])
def test_an_object_needs_a_seed(tmp_path, probabilities, block):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(
        plan_labels(volume, NAME, options(block, threshold=0.5, seed_threshold=0.7)), NoProgress()
    )
    labels = expected(probabilities)
    kept = np.isin(labels, np.unique(labels[probabilities >= math.ceil(0.7 * 255)]))
    assert 0 < (labels[kept] > 0).sum() < (labels > 0).sum()
    np.testing.assert_array_equal(read(volume), expected(np.where(kept, probabilities, 0)))
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    assert run["seed_threshold_of_255"] == 179
    with pytest.raises(ParameterError, match=r"at least the threshold of 0\.5, found 0\.4"):
        label(plan_labels(volume, NAME, options(seed_threshold=0.4, overwrite=True)), NoProgress())


@pytest.mark.parametrize("block", [(16, 64, 64), None])
@pytest.mark.parametrize("said_by", ["model", "user"])
def test_an_object_of_a_low_mean_probability_is_dropped(tmp_path, probabilities, block, said_by):
    said = {"model": {"threshold": 0.5, **({"min_probability": 0.6} if said_by == "model" else {})}}
    volume = write_volume(tmp_path / "vol.zarr", probabilities, **said)
    rules = {"min_probability": 0.6} if said_by == "user" else {}
    report = label(plan_labels(volume, NAME, options(block, threshold=0.5, **rules)), NoProgress())
    labels = expected(probabilities)
    means = ndimage.mean(probabilities, labels, np.arange(1, labels.max() + 1))
    kept = np.isin(labels, 1 + np.flatnonzero(means >= 0.6 * 255))
    faint = int((means < 0.6 * 255).sum())
    assert 0 < faint < labels.max()
    np.testing.assert_array_equal(read(volume), expected(np.where(kept, probabilities, 0)))
    (note,) = report.notes
    assert note.startswith(
        f"objects dropped because their mean probability is below 0.6: {faint} ("
    )
    attributes = open_image(labels_path(volume, NAME)).attributes
    assert attributes["run"]["min_probability"] == 0.6
    rest = options(block, threshold=0.5, min_probability=0, overwrite=True)
    assert label(plan_labels(volume, NAME, rest), NoProgress()).notes == ()
    np.testing.assert_array_equal(read(volume), labels)
    assert "min_probability" not in open_image(labels_path(volume, NAME)).attributes["run"]
    # what cannot drop anything is no rule
    none = options(block, threshold=0.7, min_probability=0.7, overwrite=True)
    assert label(plan_labels(volume, NAME, none), NoProgress()).objects > 0
    assert "min_probability" not in open_image(labels_path(volume, NAME)).attributes["run"]


@pytest.mark.parametrize("block", [(16, 32, 64), None])
@pytest.mark.parametrize(
    "rules", [{}, {"split": "kmeans"}, {"split": "kmeans", "fill_holes": True}]
)
def test_a_lowest_mean_goes_with_all_other_rules(tmp_path, probabilities, block, rules):
    """Connectivity, seeds and sizes decide with it, before holes are filled and objects split."""
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    found = expected(probabilities, connectivity=6)
    every = np.arange(1, found.max() + 1)
    sizes, means = np.bincount(found.ravel())[1:], ndimage.mean(probabilities, found, every)
    wanted = (sizes >= 5) & (ndimage.maximum(probabilities, found, every) >= 179)
    kept = wanted & (means >= 0.6 * 255)
    assert 0 < kept.sum() < wanted.sum() < len(every)
    # the smallest size also says how small a piece may be
    common = {"threshold": 0.5, "connectivity": 6, "min_size": 5, **rules}
    together = {"seed_threshold": 179 / 255, "min_probability": 0.6}
    report = label(plan_labels(volume, NAME, options(block, **common, **together)), NoProgress())
    labels = read(volume)
    assert any(f"is below 0.6: {(wanted & ~kept).sum()} (" in note for note in report.notes)
    rest = np.where(np.isin(found, every[kept]), probabilities, 0)
    alone = write_volume(tmp_path / "rest.zarr", rest)
    label(plan_labels(alone, NAME, options(block, **common)), NoProgress())
    np.testing.assert_array_equal(labels, read(alone))


def test_labels_that_do_not_say_any_more_how_many_objects_there_are(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(plan_labels(volume, NAME, options(None)), NoProgress())
    update_attributes(labels_path(volume, NAME), {"objects": None})
    with pytest.raises(VolumeError, match=r"how many objects there are; remove it, and make it"):
        label(plan_labels(volume, NAME, options(None)), NoProgress())
    shutil.rmtree(labels_path(volume, NAME))
    label(plan_labels(volume, NAME, options(None)), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities))


@pytest.mark.parametrize("found", [2, -0.1, math.nan, "0.9", None, True])
def test_a_lowest_probability_that_is_none_is_refused(tmp_path, probabilities, found):
    model = {"threshold": 0.5, "min_probability": found}
    volume = write_volume(tmp_path / "vol.zarr", probabilities, model=model)
    with pytest.raises(VolumeError, match="do not say any more how it was made"):
        label(plan_labels(volume, NAME, options()), NoProgress())
    if type(found) in (float, int):
        with pytest.raises(ParameterError, match=f"must lie between 0 and 1, found {found}"):
            options(min_probability=found)


def test_the_smallest_size_may_be_a_volume(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    # voxels of 125 nm³, so 3701 nm³ are more than 29 of them
    label(plan_labels(volume, NAME, options((16, 64, 64), min_size_nm3=3701)), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities, 128, 30))
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    assert run["min_size"] == 30
    assert "min_size_nm3" not in run


@pytest.mark.parametrize("block", [(8, 32, 32), (16, 64, 32), None])
def test_what_is_larger_than_asked_is_dropped_and_counted(tmp_path, probabilities, block):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    found = expected(probabilities)
    every = range(found.max() + 1)
    sizes = np.bincount(found.ravel())
    sections = np.max([np.bincount(p.ravel(), minlength=len(every)) for p in found], axis=0)
    most, widest = int(np.quantile(sizes[1:], 0.8)), int(np.quantile(sections[1:], 0.6))
    large, wide = sizes > most, (sizes <= most) & (sections > widest)
    assert large[1:].any()
    assert wide[1:].any()
    # of voxels of 5 nm
    rules = {"max_volume_um3": most * 125e-9, "max_section_um2": widest * 25e-6}
    report = label(plan_labels(volume, NAME, options(block, min_size=2, **rules)), NoProgress())
    gone = (large | wide)[found]
    np.testing.assert_array_equal(read(volume), expected(np.where(gone, 0, probabilities), 128, 2))
    noted = open_image(labels_path(volume, NAME)).attributes
    assert noted["run"] | rules == noted["run"]
    for rule, which in (("max_volume_um3", large), ("max_section_um2", wide)):
        gone = sizes[1:][which[1:]].tolist()
        told = {"objects": len(gone), "voxels": sum(gone), "largest": max(gone)}
        assert noted["dropped"][rule] == told
    _, first, second = report.notes
    assert f"they are larger than {rules['max_volume_um3']} µm³: {large[1:].sum()} (" in first
    assert f"--min-probability 0 --max-section {rules['max_section_um2']} --overwrite`" in first
    assert "--max-volume" not in first.partition("`")[2]
    assert f"larger than {rules['max_section_um2']} µm²: {wide[1:].sum()} (" in second
    with pytest.raises(ConflictError, match="largest volume"):
        label(plan_labels(volume, NAME, options(block, min_size=2)), NoProgress())


@pytest.mark.parametrize("rule", ["max_volume_um3", "max_section_um2"])
def test_a_largest_size_needs_a_known_voxel_size(tmp_path, probabilities, rule):
    volume = write_volume(tmp_path / "vol.zarr", probabilities, voxel_size=None)
    with pytest.raises(ParameterError, match="voxel size is unknown, so a largest"):
        plan_labels(volume, NAME, options(**{rule: 1}))
    with pytest.raises(ParameterError, match=r"above 0 µm.*found 0"):
        options(**{rule: 0})


def test_a_volume_needs_a_known_voxel_size(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities, voxel_size=None)
    with pytest.raises(ParameterError, match="voxel size is unknown, so 3701 nm³"):
        label(plan_labels(volume, NAME, options((16, 64, 64), min_size_nm3=3701)), NoProgress())


def test_readers_find_labels_with_all_levels_and_where_they_come_from(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(plan_labels(volume, NAME, options()), NoProgress())
    image = open_image(labels_path(volume, NAME))
    assert len(image.levels) == len(open_image(volume).levels)
    for k in range(1, len(image.levels)):
        factor = tuple(
            int(a / b) for a, b in zip(image.factors[k], image.factors[k - 1], strict=True)
        )
        fine = image.levels[k - 1][full_roi(image.levels[k - 1].shape)]
        coarse = image.levels[k][full_roi(image.levels[k].shape)]
        np.testing.assert_array_equal(coarse, reduce_labels(fine, factor))
    assert read_attributes(volume / "labels")["ome"]["labels"] == [NAME]
    assert image.attributes["complete"]
    assert image.attributes["run"]["probabilities"] == "test"


def test_a_second_run_does_nothing_and_another_result_is_not_replaced_silently(
    tmp_path, probabilities, monkeypatch
):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    first = label(plan_labels(volume, NAME, options()), NoProgress())
    table_path(volume, NAME).parent.mkdir()
    table_path(volume, NAME).write_bytes(b"of the first labels")
    with monkeypatch.context() as patch:
        patch.setattr(components, "find_components", None)
        assert label(plan_labels(volume, NAME, options()), NoProgress()).objects == first.objects
    with pytest.raises(
        ConflictError,
        match="a smallest size of 0 voxels; you ask for a smallest size of 50",
    ):
        label(plan_labels(volume, NAME, options(min_size=50)), NoProgress())
    assert table_path(volume, NAME).exists()
    label(plan_labels(volume, NAME, options(min_size=50, overwrite=True)), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities, 128, 50))
    assert not table_path(volume, NAME).exists()
    assert not (scratch_path(volume) / f"label-{NAME}").exists()


def test_labels_that_others_wrote_in_a_form_of_their_own_stay(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    theirs = zarr.create_group(labels_path(volume, NAME), zarr_format=2)
    theirs["0"] = np.ones((2, 4, 4, 4), np.uint16)
    for _ in range(2):
        with pytest.raises(ConflictError, match="in the way and not of this run"):
            label(plan_labels(volume, NAME, options()), NoProgress())
        assert np.all(theirs["0"][:] == 1)
    label(plan_labels(volume, NAME, options(overwrite=True)), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities))


def test_nothing_is_overwritten_while_somebody_works_on_it(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(plan_labels(volume, NAME, options()), NoProgress())
    files = {p: p.read_bytes() for p in volume.rglob("*") if p.is_file() and p.suffix != ".lock"}
    plan = plan_labels(volume, NAME, options(min_size=50, overwrite=True))
    refused = pytest.raises(ConflictError, match="is working on this run now")
    with locked(plan.ledger.with_suffix(".lock")), refused:
        label(plan, NoProgress())
    assert {p: p.read_bytes() for p in files} == files


def test_nothing_is_overwritten_before_there_are_workers(tmp_path, probabilities, monkeypatch):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(plan_labels(volume, NAME, options()), NoProgress())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine = EngineOptions(cluster=ClusterOptions(workers=1, gpus=1))
    with pytest.raises(ParameterError, match="found 0"):
        label(
            plan_labels(volume, NAME, LabelOptions(min_size=50, engine=engine, overwrite=True)),
            NoProgress(),
        )
    np.testing.assert_array_equal(read(volume), expected(probabilities))


def test_of_labels_that_are_a_link_the_link_is_replaced(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    label(plan_labels(volume, NAME, options()), NoProgress())
    first = labels_path(volume, NAME).rename(tmp_path / "elsewhere")
    labels_path(volume, NAME).symlink_to(first)
    label(plan_labels(volume, NAME, options(min_size=50, overwrite=True)), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities, 128, 50))
    kept = open_image(first).levels[0][full_roi(SHAPE)]
    np.testing.assert_array_equal(kept, expected(probabilities))


@pytest.mark.parametrize("function", ["find_components", "touching", "paint"])
def test_after_a_failure_the_same_command_completes_it(
    tmp_path, probabilities, monkeypatch, function
):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    module = label_block if function == "paint" else components
    real, calls = getattr(module, function), []

    def broken(*arguments, **named):
        calls.append(arguments)
        if len(calls) >= 7:
            raise RuntimeError("a cosmic ray")
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, broken)
        with pytest.raises(BlockError, match="a cosmic ray"):
            label(plan_labels(volume, NAME, options()), NoProgress())
    output = labels_path(volume, NAME)
    assert not (output.exists() and open_image(output).attributes["complete"])
    label(plan_labels(volume, NAME, options()), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities))


def test_damaged_scratch_is_made_again(tmp_path, probabilities, monkeypatch):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    with monkeypatch.context() as patch:
        patch.setattr(label_block, "paint", None)
        with pytest.raises(BlockError):
            label(plan_labels(volume, NAME, options()), NoProgress())
    (scratch_path(volume) / f"label-{NAME}" / "1-1-1.runs.zst").write_bytes(b"rubbish")
    with pytest.raises(BlockError, match="damaged"):
        label(plan_labels(volume, NAME, options()), NoProgress())
    label(plan_labels(volume, NAME, options()), NoProgress())
    np.testing.assert_array_equal(read(volume), expected(probabilities))


def test_probabilities_must_be_there_complete_and_volsegs(tmp_path, probabilities):
    with pytest.raises(VolumeError, match="no probabilities/mitochondria"):
        label(plan_labels(tmp_path, NAME, options()), NoProgress())
    volume = write_volume(tmp_path / "vol.zarr", probabilities, complete=False)
    with pytest.raises(VolumeError, match="incomplete"):
        label(plan_labels(volume, NAME, options()), NoProgress())
    # while segment writes them, it has not noted yet what they are
    update_attributes(probabilities_path(volume, NAME), {"complete": False}, "fingerprint")
    with pytest.raises(VolumeError, match="incomplete; run the command that began it"):
        label(plan_labels(volume, NAME, options()), NoProgress())
    with pytest.raises(ParameterError, match="above 0 and up to 1"):
        options(threshold=0.0)


@pytest.fixture(scope="module")
def hollow():
    """Blobs with many holes, of which some cross the borders of blocks."""
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), 3)
    holes = ndimage.gaussian_filter(rng.random(SHAPE), 1.5)
    return np.where((smooth > 0.5) & (holes < 0.53), 255, 0).astype(np.uint8)


def filled(labels):
    """Fill what scipy fills, but for what holds another object."""
    found = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        alone = labels[box] == number
        parts, count = ndimage.label(ndimage.binary_fill_holes(alone) & ~alone)
        for part in range(1, count + 1):
            if not labels[box][parts == part].any():
                found[box][parts == part] = number
    return found


@pytest.mark.parametrize("block", [(16, 32, 64), None])
def test_holes_are_filled_for_any_blocks(tmp_path, hollow, block):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    report = label(
        plan_labels(volume, NAME, options(block, fill_holes=True, min_size=4)), NoProgress()
    )
    before = expected(hollow, 128, 4)
    want = filled(before)
    assert (want > 0).sum() > (before > 0).sum() + 100
    np.testing.assert_array_equal(read(volume), want)
    assert report.objects == want.max()
    assert open_image(labels_path(volume, NAME)).attributes["run"]["fill_holes"]


def test_no_hole_is_filled_that_reaches_out_of_a_mask(tmp_path):
    shells = np.zeros(SHAPE, np.uint8)
    for x in (10, 50):  # both holes lie in several blocks
        shells[2:20, 20:50, x : x + 30] = 255
        shells[4:18, 25:45, x + 5 : x + 25] = 0
    inside = np.ones(SHAPE, np.uint8)
    inside[10, 30, 20] = 0
    mask = tmp_path / "mask.tif"
    tifffile.imwrite(mask, inside, photometric="minisblack")
    volume = write_volume(tmp_path / "vol.zarr", shells)
    given = open_mask(open_image(volume), os.path.relpath(mask))
    assert given.name == str(mask)  # from wherever it is opened again
    told = given.fingerprint
    noted = {"roi": [[0, n] for n in SHAPE], "mask": {"labels": str(mask), "fingerprint": told}}
    update_attributes(probabilities_path(volume, NAME), {"run": noted})
    plan = plan_labels(volume, NAME, options((16, 64, 64), fill_holes=True))
    assert plan.header["mask"] == told
    label(plan, NoProgress())
    want = np.zeros(SHAPE, int)
    want[2:20, 20:50, 10:40], want[2:20, 20:50, 50:80] = 1, 2
    want[4:18, 25:45, 15:35] = 0
    np.testing.assert_array_equal(read(volume), want)
    tifffile.imwrite(mask, np.ones(SHAPE, np.uint8), photometric="minisblack")
    shutil.rmtree(plan.path)
    with pytest.raises(VolumeError, match=r"the mask .*mask.tif has changed since"):
        label(plan_labels(volume, NAME, options((16, 64, 64), fill_holes=True)), NoProgress())
    assert "mask" not in plan_labels(volume, NAME, options(overwrite=True)).header


def fail_at_call(module, function, number, volume, rules, monkeypatch):
    """Leave a run in which a function failed from one call on."""
    real, calls = getattr(module, function), []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) >= number:
            raise RuntimeError("a cosmic ray")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, broken)
        with pytest.raises(BlockError, match="a cosmic ray"):
            label(plan_labels(volume, NAME, rules), NoProgress())


@pytest.mark.parametrize("function", ["find_background", "touched_within"])
def test_after_a_failure_among_holes_the_same_command_completes_it(
    tmp_path, hollow, monkeypatch, function
):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    rules = options((16, 64, 64), fill_holes=True)
    fail_at_call(label_holes, function, 7, volume, rules, monkeypatch)
    label(plan_labels(volume, NAME, rules), NoProgress())
    np.testing.assert_array_equal(read(volume), filled(expected(hollow)))


def parted(labels, splitter, guides=()):
    """Split each object of the whole alone, and number all by first voxel."""
    found, count = np.zeros(labels.shape, np.int64), 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        pieces = splitter(labels[box] == number, [guide[box] for guide in guides])
        found[box][pieces > 0] = pieces[pieces > 0] + count
        count += int(pieces.max())
    first = np.unique(found, return_index=True)[1]
    return rank_firsts(first, np.arange(len(first)) > 0)[found]


@pytest.mark.parametrize(("method", "fill"), [("distance", True), ("kmeans", False)])
@pytest.mark.parametrize("block", [(16, 32, 64), None])
def test_objects_are_split_alike_for_any_blocks(tmp_path, hollow, block, method, fill):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    rules = {"min_size": 4, "fill_holes": fill, "split": method, "split_depth": 1.0}
    report = label(plan_labels(volume, NAME, options(block, **rules)), NoProgress())
    before = expected(hollow, 128, 4)
    want = parted(filled(before) if fill else before, Splitter(method, depth=1.0, smallest=4))
    np.testing.assert_array_equal(read(volume), want)
    assert report.objects == want.max() > before.max()
    sizes = np.bincount(expected(hollow).ravel())[1:]
    gone = sizes[sizes < 4]
    note = f"fewer than 4 voxels: {len(gone)} ({gone.sum() * 125e-9:.3g} µm³, under 0.01% of"
    assert [note in each for each in report.notes] == [True]
    assert "--min-size 0 --min-probability 0" in report.notes[0]
    assert f"--split {method}" in report.notes[0]
    assert "--split-centres" not in report.notes[0]


def test_objects_that_are_too_large_stay_whole(tmp_path, hollow, monkeypatch):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    monkeypatch.setattr(label_plan, "SPLIT_LIMIT", 5000)
    rules = options((16, 64, 64), split="distance", split_depth=1.0)
    report = label(plan_labels(volume, NAME, rules), NoProgress())
    before = expected(hollow)
    sizes = [before[box].size for box in ndimage.find_objects(before)]
    large = sum(size > 5000 for size in sizes)
    assert large > 0
    assert f"{large} objects were not split" in report.notes[0]
    assert "more than 5000 voxels" in report.notes[0]
    assert label(plan_labels(volume, NAME, rules), NoProgress()).notes == report.notes


@pytest.mark.parametrize("block", [(16, 32, 64), None])
def test_each_centerline_is_an_object(tmp_path, hollow, block):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    rules = options(block, split="centerline")
    with pytest.raises(VolumeError, match="no probabilities/mitochondria-centerline"):
        label(plan_labels(volume, NAME, rules), NoProgress())
    lines = np.zeros(SHAPE, np.uint8)
    lines[::7, ::9] = np.where(np.random.default_rng(1).random(SHAPE[2]) < 0.8, 255, 0)
    write_guide(volume, "centerline", lines)
    report = label(plan_labels(volume, NAME, rules), NoProgress())
    splitter, before = Splitter("centerline"), expected(hollow)
    want = parted(before, splitter, [lines])
    np.testing.assert_array_equal(read(volume), want)
    assert report.objects == want.max() > before.max()
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    assert run["centerlines"] == "centerline"


def write_guide(volume, kind, values):
    """Store another map of the class."""
    output = probabilities_path(volume, f"{NAME}-{kind}")
    spec = ArraySpec(SHAPE, "uint8", (8, 32, 32), (8, 32, 32))
    attributes = {"complete": True, "fingerprint": kind, "run": {}}
    image = create_image(output, spec, (5.0, 5.0, 5.0), attributes=attributes)
    image.levels[0].write(full_roi(SHAPE), values)


@pytest.fixture(scope="module")
def balls():
    """Balls that touch, and what a network would say of them: class, contour, distance."""
    centres = np.zeros(SHAPE, int)
    centres[8:40:12, 8:124:12, 8:112:12] = np.arange(1, 271).reshape(3, 10, 9)
    apart, at = ndimage.distance_transform_edt(centres == 0, return_indices=True)
    nearest, mask = centres[tuple(at)], apart < 6.7
    contour = np.zeros(SHAPE, bool)
    for axis in range(3):
        for shift in (1, -1):
            contour |= nearest != np.roll(nearest, shift, axis)
    found = 255 * mask, 230 * ndimage.binary_dilation(contour & mask), 30 * (7 - apart)
    return 270, tuple(m.clip(0, 255).astype(np.uint8) for m in found)


@pytest.mark.parametrize("block", [(16, 32, 64), None])
@pytest.mark.parametrize("distance", [True, False])
def test_objects_are_told_apart_by_their_contours(tmp_path, balls, block, distance):
    count, (mask, contour, deep) = balls
    guides = [mask, contour, *([deep] if distance else [])]
    known = {"sure": 0.9, "contour": 0.4, "fewest": 3, "voxel_size": [5.0, 5.0, 5.0]}
    model = {"threshold": 0.5, "splitting": known}
    volume = write_volume(tmp_path / "vol.zarr", mask, model=model)
    rules = options(block, split="contour")
    with pytest.raises(VolumeError, match="no probabilities/mitochondria-contour"):
        plan_labels(volume, NAME, rules)
    for kind, values in zip(("contour", "distance"), guides[1:], strict=False):
        write_guide(volume, kind, values)
    report = label(plan_labels(volume, NAME, rules), NoProgress())
    splitter = Splitter("contour", sure=230, contour=102, fewest=3)
    want = parted(expected(mask), splitter, guides)
    np.testing.assert_array_equal(read(volume), want)
    assert report.objects == count
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    assert run["contours"] == ["contour", "distance"][: len(guides) - 1]
    seeds = [run[f"split_{rule}"] for rule in ("sure_of_255", "contour_of_255", "fewest")]
    assert seeds == [230, 102, 3]
    assert label(plan_labels(volume, NAME, rules), NoProgress()).objects == count
    asked = options(block, split="contour", split_sure=0.7, split_contour=0.2)
    with pytest.raises(ConflictError, match="seeds from a probability of"):
        label(plan_labels(volume, NAME, asked), NoProgress())


@pytest.mark.parametrize("block", [(16, 32, 64), None])
def test_nothing_beyond_the_region_is_filled_or_split(tmp_path, hollow, block):
    region = (slice(5, 31), slice(20, 101), slice(0, 77))
    within = np.zeros_like(hollow)
    within[region] = hollow[region]
    volume = write_volume(tmp_path / "vol.zarr", within, roi=region)
    rules = {"min_size": 4, "fill_holes": True, "split": "distance", "split_depth": 1.0}
    report = label(plan_labels(volume, NAME, options(block, **rules)), NoProgress())
    found = read(volume)
    outside = np.ones(SHAPE, bool)
    outside[region] = False
    assert not found[outside].any()
    # as if there were no more than the region
    alone = filled(expected(hollow[region], 128, 4))
    want = parted(alone, Splitter("distance", depth=1.0, smallest=4))
    np.testing.assert_array_equal(found[region], want)
    assert report.objects == want.max() > alone.max()
    assert (alone > 0).sum() > (expected(hollow[region], 128, 4) > 0).sum()


@pytest.mark.parametrize("function", ["component_boxes", "gather_runs"])
def test_after_a_failure_among_pieces_the_same_command_completes_it(
    tmp_path, hollow, monkeypatch, function
):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    rules = options((16, 64, 64), split="distance", split_depth=1.0)
    fail_at_call(label_split_block, function, 3, volume, rules, monkeypatch)
    label(plan_labels(volume, NAME, rules), NoProgress())
    want = parted(expected(hollow), Splitter("distance", depth=1.0, smallest=4))
    np.testing.assert_array_equal(read(volume), want)


@pytest.mark.parametrize("kind", ["holes", "pieces"])
def test_damaged_holes_and_pieces_are_made_again(tmp_path, hollow, monkeypatch, kind):
    volume = write_volume(tmp_path / "vol.zarr", hollow)
    rules = options((16, 64, 64), fill_holes=True, split="distance", split_depth=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(label_block, "paint", None)
        with pytest.raises(BlockError):
            label(plan_labels(volume, NAME, rules), NoProgress())
    folder = scratch_path(volume) / f"label-{NAME}" / kind
    min(folder.rglob("*.runs.zst")).write_bytes(b"rubbish")
    with pytest.raises(BlockError, match="damaged"):
        label(plan_labels(volume, NAME, rules), NoProgress())
    label(plan_labels(volume, NAME, rules), NoProgress())
    want = parted(filled(expected(hollow)), Splitter("distance", depth=1.0, smallest=4))
    np.testing.assert_array_equal(read(volume), want)


CHILD = """
import sys
from pathlib import Path
from volseg.engine.options import EngineOptions
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.engine.progress import NoProgress

options = LabelOptions(
    block=(8, 32, 32), shard=(8, 32, 32), min_size=30, engine=EngineOptions(workers=2)
)
label(plan_labels(Path(sys.argv[1]), "mitochondria", options), NoProgress())
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path, probabilities):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    luck, ledger = random.Random(6), scratch_path(volume) / f"label-{NAME}.jsonl"

    def live(child, _kills):
        before, deadline = _size(ledger), time.monotonic() + 60
        # a kill before anything is on record would only repeat itself
        while child.poll() is None and _size(ledger) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(luck.uniform(0, 0.5))

    kill_until_done(["-c", CHILD, volume], live)
    np.testing.assert_array_equal(read(volume), expected(probabilities, 128, 30))


def _size(path):
    return path.stat().st_size if path.exists() else 0
