"""Evaluation of volumes: masks and labels, Zarr and TIFF, any blocks; and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json

import imagecodecs
import numpy as np
import pytest
import tifffile
from pyarrow import parquet
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information

from volseg.cli.evaluate import describe_evaluation
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ParameterError, ShapeError, StorageError, VolumeError
from volseg.fields import plain
from volseg.geometry.grid import full_roi
from volseg.stages.evaluate import plan as evaluate_plan
from volseg.stages.evaluate.output import write_results
from volseg.stages.evaluate.plan import EvaluateOptions, plan_evaluation
from volseg.stages.evaluate.run import evaluate
from volseg.storage.arrays import ArraySpec, create_array
from volseg.storage.plots import can_draw
from volseg.storage.volumes import create_image, labels_path, probabilities_path, register_label

SHAPE = (18, 40, 50)
NAME = "mitochondria"


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), (1, 2, 2))
    mask = smooth > np.quantile(smooth, 0.85)
    return ndimage.label(mask, np.ones((3, 3, 3)))[0].astype(np.uint16)


@pytest.fixture(scope="module")
def predicted(truth):
    found = np.roll(truth, 1, axis=2).astype(np.uint32)
    found[found == 3] = 0
    found[found == 5] = 2
    found[:, :20][found[:, :20] == 1] = 90
    return found


def add_labels(volume, name, labels, shard=(8, 16, 32), **noted):
    spec = ArraySpec(SHAPE, labels.dtype.name, shard, shard)
    image = create_image(labels_path(volume, name), spec, None, label=True, attributes=noted)
    image.levels[0].write(full_roi(SHAPE), labels)
    register_label(volume, name)


def write_volume(path, labels, **more):
    spec = ArraySpec(SHAPE, "uint8", (8, 16, 32), (8, 16, 32))
    create_image(path, spec, (5.0, 5.0, 5.0), attributes={})
    add_labels(path, NAME, labels, **more)
    return path


def run(volume, truth, workers=1, **more):
    options = EvaluateOptions(truth=str(truth), engine=EngineOptions(workers), **more)
    return evaluate(plan_evaluation(volume, options), NoProgress())


def scores(result):
    kept = dataclasses.asdict(result)
    for name in ("volume", "truth", "prediction", "seconds", "notes", "curves"):
        del kept[name]
    kept["errors"] |= {
        kind: list(getattr(result.errors, kind)) for kind in kept["errors"]["counts"]
    }
    return kept


@pytest.mark.parametrize(("shard", "workers"), [((8, 16, 32), 2), ((18, 8, 64), 1)])
def test_scores_are_those_of_scikit_image_whatever_the_blocks(
    tmp_path, monkeypatch, truth, predicted, shard, workers
):
    monkeypatch.setattr(evaluate_plan, "BLOCK_VOXELS", 4096)
    volume = write_volume(tmp_path / "vol.zarr", predicted, shard=shard)
    add_labels(volume, "truth", truth)
    found = run(volume, "truth", workers)
    with_all = (truth.astype(np.int64), predicted.astype(np.int64))
    assert found.rand.error == pytest.approx(adapted_rand_error(*with_all)[0])
    variation = found.variation.split, found.variation.merge
    assert variation == pytest.approx(tuple(variation_of_information(*with_all)))
    t, p = truth > 0, predicted > 0
    assert found.foreground.jaccard == pytest.approx((t & p).sum() / (t | p).sum())
    assert found.voxels == truth.size
    assert found.objects.truth == len(np.unique(truth)) - 1
    assert found.objects.predicted == len(np.unique(predicted)) - 1
    monkeypatch.setattr(evaluate_plan, "BLOCK_VOXELS", 1 << 23)
    assert scores(run(volume, "truth")) == scores(found)


def test_truth_from_a_name_a_zarr_array_or_a_tiff_is_the_same(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    array = create_array(tmp_path / "t.zarr", ArraySpec(SHAPE, "uint16", (8, 8, 8), (8, 16, 16)))
    array.write(full_roi(SHAPE), truth)
    tifffile.imwrite(tmp_path / "t.tif", truth, photometric="minisblack")
    own = scores(run(volume, "truth"))
    assert scores(run(volume, array.path)) == own
    assert scores(run(volume, tmp_path / "t.tif")) == own
    elsewhere = write_volume(tmp_path / "other.zarr", np.zeros_like(predicted))
    from_path = run(elsewhere, array.path, labels=labels_path(volume, NAME))
    assert scores(from_path) == own


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_truth_may_be_a_folder_of_slices(tmp_path, truth, predicted, suffix):
    (tmp_path / "slices").mkdir()
    for z, plane in enumerate(truth):
        write = imagecodecs.imwrite if suffix == "png" else tifffile.imwrite
        write(tmp_path / "slices" / f"m{z}.{suffix}", plane)
    volume = write_volume(tmp_path / "v.zarr", predicted)
    tifffile.imwrite(tmp_path / "whole.tif", truth, photometric="minisblack")
    whole, slices = (run(volume, tmp_path / name) for name in ("whole.tif", "slices"))
    assert scores(slices) == scores(whole)


@pytest.mark.parametrize("voxels", [1000, 1 << 23])
@pytest.mark.parametrize("roi", [None, "3:17,5:40,0:33"])
def test_a_mask_stands_for_its_components(tmp_path, monkeypatch, truth, predicted, voxels, roi):
    monkeypatch.setattr(evaluate_plan, "BLOCK_VOXELS", voxels)
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    mask = np.where(truth > 0, 255, 0).astype(np.uint8)
    array = create_array(tmp_path / "mask.zarr", ArraySpec(SHAPE, "uint8", (8, 8, 8), (8, 8, 8)))
    array.write(full_roi(SHAPE), mask)
    box = np.s_[3:17, 5:40, 0:33] if roi else np.s_[:, :, :]
    components = np.zeros_like(truth)
    components[box] = ndimage.label(mask[box], np.ones((3, 3, 3)))[0]
    add_labels(volume, "components", components)
    before = set(volume.rglob("*"))
    found, want = run(volume, array.path, 2, roi=roi), run(volume, "components", roi=roi)
    assert scores(found) == scores(want)
    assert found.objects.truth == components.max()
    assert f"{components.max()} connected components" in found.notes[0]
    assert set(volume.rglob("*")) == before


def test_a_predicted_mask_stands_for_its_components_too(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    tifffile.imwrite(tmp_path / "mask.tif", (truth > 0).astype(np.uint8))
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    found = run(volume, tmp_path / "truth.tif", labels=tmp_path / "mask.tif")
    assert (found.objects.f1, found.objects.matched_iou) == (1, 1)
    assert not found.errors.missed


def test_one_object_is_no_mask_if_volseg_found_it_or_the_user_says_so(tmp_path, truth):
    one = np.zeros(SHAPE, np.uint32)
    one[2:4, 3:9, 3:9], one[10:12, 3:9, 3:9] = 1, 1
    volume = write_volume(tmp_path / "vol.zarr", one, fingerprint="abc")
    add_labels(volume, "truth", truth)
    assert run(volume, "truth").objects.predicted == 1
    tifffile.imwrite(tmp_path / "one.tif", one.astype(np.uint16))
    assert run(volume, tmp_path / "one.tif").objects.truth == 2
    assert run(volume, tmp_path / "one.tif", instances=True).objects.truth == 1


def test_a_converted_mask_is_still_a_mask(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    spec = ArraySpec(SHAPE, "uint8", (8, 16, 32), (8, 16, 32))
    image = create_image(tmp_path / "mask.zarr", spec, None, attributes={"fingerprint": "abc"})
    image.levels[0].write(full_roi(SHAPE), (truth > 0).astype(np.uint8))
    assert run(volume, image.path).objects.truth == truth.max()


def test_a_region_and_a_mask_limit_what_counts(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    counted = np.zeros(SHAPE, np.uint8)
    counted[:, 10:30] = 7
    tifffile.imwrite(tmp_path / "counted.tif", counted)
    found = run(volume, "truth", roi="2:16,:,5:45", mask=str(tmp_path / "counted.tif"))
    box = np.s_[2:16, 10:30, 5:45]
    t, p = truth[box] > 0, predicted[box] > 0
    assert found.voxels == t.size
    assert found.foreground.dice == pytest.approx(2 * (t & p).sum() / (t.sum() + p.sum()))
    assert found.objects.truth == len(np.unique(truth[box])) - 1
    with pytest.raises(ParameterError, match="no voxel is left to compare"):
        run(volume, "truth", roi=":,0:8,:", mask=str(tmp_path / "counted.tif"))


def test_only_what_was_segmented_is_compared(tmp_path, truth, predicted):
    inside = predicted.copy()
    inside[:4], inside[16:] = 0, 0
    volume = write_volume(tmp_path / "vol.zarr", inside, roi=[[4, 16], [0, 40], [0, 50]])
    add_labels(volume, "truth", truth)
    found = run(volume, "truth")
    assert found.voxels == 12 * 40 * 50
    assert found.notes == ("only 4:16,0:40,0:50 was segmented, so only that is compared",)
    assert scores(run(volume, "truth", roi="4:16,:,:")) == scores(found)
    with pytest.raises(ParameterError, match="0:3,0:40,0:50 holds nothing to compare"):
        run(volume, "truth", roi="0:3,:,:")


def test_small_and_cut_objects_can_be_left_out(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    every, large = run(volume, "truth"), run(volume, "truth", min_size=300)
    sizes = np.bincount(truth.ravel())[1:]
    assert large.objects.truth == (sizes >= 300).sum() < every.objects.truth
    assert large.foreground == every.foreground
    inner = run(volume, "truth", ignore_border=True)
    assert inner.objects.matched == every.objects.matched
    assert inner.objects.missed < every.objects.missed
    assert all(0 not in [a for a, _ in e.box] for e in inner.errors.missed)


def test_probabilities_give_curves(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    assert run(volume, "truth").curves is None
    levels = np.clip((truth > 0) * 90 + np.random.default_rng(1).integers(0, 160, SHAPE), 0, 255)
    spec = ArraySpec(SHAPE, "uint8", (8, 16, 32), (8, 16, 32))
    path = probabilities_path(volume, NAME)
    image = create_image(path, spec, None, attributes={"complete": True})
    image.levels[0].write(full_roi(SHAPE), levels.astype(np.uint8))
    found = run(volume, "truth", roi="2:16,:,:")
    curves = found.curves
    # objects that rules dropped count above, not here: their Jaccard index may be the better one
    assert (
        "\nby the probabilities alone, without rules for objects:\n  areas"
        in describe_evaluation(found)
    )
    part, inside = levels[2:16], truth[2:16] > 0
    best = max((inside & (part >= k)).sum() / (inside | (part >= k)).sum() for k in range(1, 256))
    assert curves.best_jaccard == pytest.approx(best)
    assert curves.recall[100] == pytest.approx((part[inside] >= 100).mean())
    assert run(volume, "truth", labels=labels_path(volume, NAME)).curves is None


def test_unfinished_probabilities_give_a_note_instead(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    spec = ArraySpec(SHAPE, "uint8", (8, 16, 32), (8, 16, 32))
    noted = {"complete": False, "run": {}}
    create_image(probabilities_path(volume, NAME), spec, None, attributes=noted)
    found = run(volume, "truth")
    assert found.curves is None
    assert "is incomplete; run the command that began it again" in found.notes[0]


def test_blocks_of_tiny_chunks_are_large_and_those_of_tiff_are_pages(tmp_path, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted, shard=(2, 8, 8))
    tifffile.imwrite(tmp_path / "truth.tif", predicted.astype(np.uint16))
    for truth in (NAME, str(tmp_path / "truth.tif")):
        found = plan_evaluation(volume, EvaluateOptions(truth))
        assert [b.core for b in found.grid.blocks()] == [full_roi(SHAPE)]


@pytest.mark.parametrize("side", ["truth", "prediction", "both"])
def test_nothing_to_find_is_a_result(tmp_path, truth, side):
    empty = np.zeros(SHAPE, np.uint16)
    volume = write_volume(tmp_path / "vol.zarr", truth if side == "truth" else empty)
    add_labels(volume, "truth", truth if side == "prediction" else empty)
    found = run(volume, "truth")
    assert found.objects.matched == 0
    assert found.objects.truth == (truth.max() if side == "prediction" else 0)
    assert found.objects.predicted == (truth.max() if side == "truth" else 0)
    assert found.foreground.both == 0


def test_what_does_not_fit_is_refused(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    tifffile.imwrite(tmp_path / "small.tif", truth[:, :9])
    with pytest.raises(ShapeError, match=r"small\.tif.*\(18, 9, 50\).*\(18, 40, 50\)"):
        run(volume, tmp_path / "small.tif")
    with pytest.raises(VolumeError, match="no labels/truth; it has mitochondria"):
        run(volume, "truth")
    with pytest.raises(VolumeError, match="nothing at"):
        run(volume, tmp_path / "missing" / "truth.zarr")
    for iou in (0, 1.5):
        with pytest.raises(ParameterError, match="above 0 and up to 1"):
            run(volume, NAME, iou=iou)
    with pytest.raises(ParameterError, match="must not be negative"):
        run(volume, NAME, min_size=-1)


def test_nothing_is_written_but_what_is_asked_for(tmp_path, truth, predicted):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    result = run(volume, "truth")
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    written = write_results(result, tmp_path / "out")
    assert json.loads(written[0].read_text(encoding="utf-8")) == plain(result)
    assert [p.name for p in written] == [
        "evaluation.json",
        "errors.parquet",
        "curves.png",
    ][: 2 + can_draw()]
    errors = tmp_path / "out" / "errors.parquet"
    assert sorted((tmp_path / "out").iterdir()) == sorted(written)
    rows = parquet.read_table(errors).to_pylist()
    kinds = dataclasses.asdict(result.errors.counts)
    assert {kind: sum(r["kind"] == kind for r in rows) for kind in kinds} == kinds
    for row, wrong in zip(rows, itertools.chain(*map(vars(result.errors).get, kinds)), strict=True):
        assert (row["label"], row["voxels"], row["best_iou"]) == (
            wrong.label,
            wrong.voxels,
            wrong.best_iou,
        )
        assert tuple(row["others"]) == wrong.others
        assert tuple(row[f"centroid_{axis}"] for axis in "zyx") == wrong.centroid
        box = ((row[f"bbox_{axis}_start"], row[f"bbox_{axis}_stop"]) for axis in "zyx")
        assert tuple(box) == wrong.box
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_results(result, tmp_path / "file")


def test_a_full_disk_leaves_no_folder_behind(tmp_path, truth, predicted, monkeypatch):
    volume = write_volume(tmp_path / "vol.zarr", predicted)
    add_labels(volume, "truth", truth)
    result = run(volume, "truth")

    def refuse(path, *_):
        path.parent.mkdir(exist_ok=True)
        raise StorageError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("volseg.stages.evaluate.output.write_file", refuse)
    (tmp_path / "stood").mkdir()
    for name in ("new", "stood"):
        with pytest.raises(StorageError, match="No space left"):
            write_results(result, tmp_path / name)
    assert {p.name for p in tmp_path.iterdir()} == {"vol.zarr", "stood"}
