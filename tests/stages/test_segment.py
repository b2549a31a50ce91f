"""Segment: raw to labels in one go, the same for any cut, resumable, estimated beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
import zarr
from scipy import ndimage

from toy_elsewhere import ORIGIN, write_elsewhere
from toy_weights import card_content
from volseg.cli.segment import describe_estimate
from volseg.engine.options import ClusterOptions, EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ModelError, ParameterError, StorageError, VolumeError
from volseg.geometry.grid import full_roi
from volseg.objects.splitting import Splitter
from volseg.sources.labels import open_labels
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.predict.network import PredictOptions
from volseg.stages.segment.estimate import UNCOUNTED, estimate
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import update_attributes
from volseg.storage.cards import load_card
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path
from volseg.storage.weights import load_weights, save_weights
from volseg.voxels.downsample import reduce_mean

SHAPE = (20, 70, 60)
NAME = "mitochondria"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    raw = ndimage.gaussian_filter(np.random.default_rng(8).random(SHAPE), 2)
    raw = ((raw - raw.min()) / np.ptp(raw) * 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("source") / "raw.tif"
    tifffile.imwrite(path, raw)
    return path


@pytest.fixture
def volume(source, tmp_path):
    path = tmp_path / "vol.zarr"
    with plan_conversion(source, path, ConvertOptions(voxel_size=(5.0, 5.0, 5.0))) as plan:
        convert(plan, NoProgress())
    return path


def options(model, block=(8, 32, 32), workers=2, shard=(8, 32, 32), roi=None, **more):
    prediction = PredictOptions(
        model=str(model),
        block=block,
        shard=shard,
        roi=roi,
        precision="float32",
        engine=EngineOptions(workers=workers),
        overwrite=more.pop("overwrite", False),
    )
    return SegmentOptions(prediction, **more)


def read(path):
    array = open_image(path).levels[0]
    return array[full_roi(array.shape)]


@pytest.fixture(scope="module")
def reference(source, toy_model, tmp_path_factory):
    """Both results, from one block and one worker."""
    path = tmp_path_factory.mktemp("reference") / "vol.zarr"
    with plan_conversion(source, path, ConvertOptions(voxel_size=(5.0, 5.0, 5.0))) as plan:
        convert(plan, NoProgress())
    segment(
        plan_segmentation(path, options(toy_model, (20, 70, 60), 1, None, min_size=4)), NoProgress()
    )
    return read(probabilities_path(path, NAME)), read(labels_path(path, NAME))


@pytest.mark.parametrize(
    ("block", "workers", "shard"),
    [((8, 32, 32), 3, (8, 32, 32)), ((16, 64, 32), 1, (8, 16, 32)), ((7, 70, 20), 2, (7, 14, 20))],
)
def test_both_results_are_the_same_for_any_blocks_workers_and_chunks(
    volume, toy_model, reference, block, workers, shard
):
    report = segment(
        plan_segmentation(volume, options(toy_model, block, workers, shard, min_size=4)),
        NoProgress(),
    )
    np.testing.assert_array_equal(read(probabilities_path(volume, NAME)), reference[0])
    np.testing.assert_array_equal(read(labels_path(volume, NAME)), reference[1])
    assert report.label.objects == reference[1].max() > 1


def test_objects_that_the_model_is_unsure_of_are_dropped(volume, toy_model, reference, tmp_path):
    means = ndimage.mean(reference[0], reference[1], np.arange(1, reference[1].max() + 1))
    least = float(np.median(means)) / 255
    sure = tmp_path / "sure.safetensors"
    content = card_content(toy_model, min_probability=least)
    save_weights(sure, load_weights(toy_model, load_card(toy_model)), content)
    report = segment(plan_segmentation(volume, options(sure, min_size=4)), NoProgress())
    np.testing.assert_array_equal(read(probabilities_path(volume, NAME)), reference[0])
    kept = 1 + np.flatnonzero(means >= least * 255)
    assert 0 < report.label.objects == len(kept) < len(means)
    found = read(labels_path(volume, NAME))
    np.testing.assert_array_equal(found > 0, np.isin(reference[1], kept))
    assert f": {len(means) - len(kept)} (" in report.label.notes[1]
    everything = options(sure, min_size=4, min_probability=0, overwrite=True)
    assert segment(plan_segmentation(volume, everything), NoProgress()).predict.tiles == 0
    np.testing.assert_array_equal(read(labels_path(volume, NAME)), reference[1])


def test_labels_are_the_components_of_the_probabilities(reference):
    probabilities, labels = reference
    whole, _ = ndimage.label(probabilities >= 128, np.ones((3, 3, 3)))
    sizes = np.bincount(whole.ravel())
    kept = np.isin(whole, np.flatnonzero(sizes >= 4)) & (whole > 0)
    np.testing.assert_array_equal(labels > 0, kept)
    pairs = np.unique(np.stack([whole[kept], labels[kept]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


def test_both_results_have_pyramids_and_provenance(volume, toy_model):
    segment(plan_segmentation(volume, options(toy_model)), NoProgress())
    for path in (probabilities_path(volume, NAME), labels_path(volume, NAME)):
        image = open_image(path)
        assert [a.shape for a in image.levels] == [a.shape for a in open_image(volume).levels]
        assert image.voxel_size == (5.0, 5.0, 5.0)
        assert image.attributes["model"]["name"] == "toy"
        assert image.attributes["complete"]
    image = open_image(probabilities_path(volume, NAME))
    factor = tuple(int(f) for f in image.factors[1])
    coarse = image.levels[1][full_roi(image.levels[1].shape)]
    np.testing.assert_array_equal(coarse, reduce_mean(read(image.path), factor))


def test_another_threshold_labels_again_and_predicts_nothing(volume, toy_model):
    segment(plan_segmentation(volume, options(toy_model)), NoProgress())
    with pytest.raises(
        ConflictError,
        match=r"a threshold of 0\.5; you ask for a threshold of 0\.6",
    ):
        segment(plan_segmentation(volume, options(toy_model, threshold=0.6)), NoProgress())
    report = segment(
        plan_segmentation(volume, options(toy_model, threshold=0.6, overwrite=True)), NoProgress()
    )
    assert report.predict.tiles == 0
    assert report.label.threshold == 0.6


def test_a_region_is_all_that_is_labelled(volume, toy_model, reference):
    segment(
        plan_segmentation(volume, options(toy_model, roi="4:16,10:50,:", min_size=4)), NoProgress()
    )
    box = (slice(4, 16), slice(10, 50), slice(0, 60))
    found = read(probabilities_path(volume, NAME))
    np.testing.assert_array_equal(found[box], reference[0][box])
    labels = read(labels_path(volume, NAME))
    outside = np.ones(SHAPE, bool)
    outside[box] = False
    assert not labels[outside].any()
    assert open_image(labels_path(volume, NAME)).attributes["roi"] == [[4, 16], [10, 50], [0, 60]]


def test_an_estimate_writes_nothing(volume, toy_model):
    before = sorted(p.name for p in volume.iterdir())
    found = estimate(plan_segmentation(volume, options(toy_model)))
    assert found.voxels == np.prod(SHAPE)
    assert found.blocks == 3 * 3 * 2
    assert found.tiles > 0 < found.seconds
    assert 1e7 < found.memory_bytes < 1e10
    assert sorted(p.name for p in volume.iterdir()) == before


def run_by(engine, asked):
    return replace(asked, predict=replace(asked.predict, engine=engine))


def test_an_estimate_is_of_one_worker_of_a_cluster(volume, toy_model, monkeypatch):
    monkeypatch.setattr("volseg.stages.segment.estimate.peak_bytes", lambda: 0)
    asked = options(toy_model, workers=None)
    one, more, wide = (
        estimate(
            plan_segmentation(
                volume, run_by(EngineOptions(cluster=ClusterOptions(workers=w, cores=c)), asked)
            )
        )
        for w, c in ((1, 1), (3, 1), (1, 100))
    )
    assert (one.processes, more.processes, wide.processes) == (1, 3, 1)
    assert 0 < one.memory_bytes == more.memory_bytes == wide.memory_bytes / 100


@pytest.mark.parametrize(
    "engine",
    [
        EngineOptions(cluster=ClusterOptions("slurm", gpus=1, cores=3)),
        EngineOptions(scheduler="tcp://host:8786"),
    ],
)
def test_an_estimate_needs_nothing_that_only_workers_elsewhere_have(
    volume, toy_model, monkeypatch, engine
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = run_by(engine, options(toy_model, workers=None))
    found = estimate(
        plan_segmentation(volume, replace(asked, predict=replace(asked.predict, device="cuda")))
    )
    assert (found.device, found.seconds) == ("cuda", None)
    assert f"memory is that of {engine.threads} block(s) at a time in one worker" in found.notes[-1]
    assert "time       not known" in describe_estimate(found)


def test_a_wrong_threshold_is_refused_before_anything_is_computed(volume, toy_model):
    with pytest.raises(ParameterError, match=r"above 0 and up to 1, found 1\.5"):
        segment(plan_segmentation(volume, options(toy_model, threshold=1.5)), NoProgress())
    assert not probabilities_path(volume, NAME).exists()


def test_objects_are_split_by_the_centerlines_of_the_same_run(volume, lines_model):
    parts = {"min_size": 1, "split": "centerline"}
    report = segment(plan_segmentation(volume, options(lines_model, **parts)), NoProgress())
    assert report.predict.tiles > 0
    lines = probabilities_path(volume, f"{NAME}-centerline")
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    assert run["centerlines"] == open_image(lines).attributes["fingerprint"]
    again = segment(plan_segmentation(volume, options(lines_model, **parts)), NoProgress())
    assert (again.predict.tiles, again.label.objects) == (0, report.label.objects)
    # split once more, whole, from what is stored
    whole = label_with_scipy(read(probabilities_path(volume, NAME)), 128, 1)
    expected = np.zeros(SHAPE, int)
    for number, box in enumerate(ndimage.find_objects(whole), 1):
        pieces = Splitter("centerline", smallest=1)(whole[box] == number, (read(lines)[box],))
        expected[box][pieces > 0] = pieces[pieces > 0] + expected.max()
    labels = read(labels_path(volume, NAME))
    assert labels.max() == report.label.objects == expected.max() > whole.max() > 1
    np.testing.assert_array_equal(labels > 0, expected > 0)
    pairs = np.unique(np.stack([labels[labels > 0], expected[labels > 0]]), axis=1)
    assert pairs.shape[1] == labels.max()


def label_with_scipy(probabilities, level, smallest):
    labels, _ = ndimage.label(probabilities >= level, np.ones((3, 3, 3)))
    small = np.bincount(labels.ravel()) < smallest
    return ndimage.label(np.where(small[labels], 0, labels) > 0, np.ones((3, 3, 3)))[0]


def test_splitting_by_centerlines_later_evaluates_for_them_alone(volume, toy_model, reference):
    segment(plan_segmentation(volume, options(toy_model, min_size=4)), NoProgress())
    later = options(toy_model, min_size=4, split="centerline", overwrite=True)
    report = segment(plan_segmentation(volume, later), NoProgress())
    assert report.predict.tiles > 0
    np.testing.assert_array_equal(read(probabilities_path(volume, NAME)), reference[0])
    assert open_image(labels_path(volume, NAME)).attributes["run"]["split"] == "centerline"


def test_an_estimate_counts_centerlines(volume, toy_model):
    plain = estimate(plan_segmentation(volume, options(toy_model)))
    both = estimate(plan_segmentation(volume, options(toy_model, split="centerline")))
    assert both.tiles == plain.tiles
    assert both.disk_bytes > plain.disk_bytes
    assert not (volume / "probabilities").exists()


def test_a_model_without_centerlines_is_refused_before_anything_is_computed(volume):
    for options in (
        SegmentOptions(PredictOptions("unet3d", store_centerline=True)),
        SegmentOptions(PredictOptions("unet3d"), split="centerline"),
    ):
        with pytest.raises(ModelError, match="those of emnet, emnet-paper give both"):
            segment(plan_segmentation(volume, options), NoProgress())
    assert not (volume / "probabilities").exists()


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ({"seed_threshold": 0.2}, ParameterError, "at least the threshold"),
        ({}, ConflictError, "no record says how it was made"),
    ],
)
def test_what_labelling_would_refuse_is_refused_before_anything_is_computed(
    volume, toy_model, rules, error, message
):
    if not rules:  # somebody's own labels
        create_image(labels_path(volume, NAME), fit_spec(SHAPE, "uint32"), None, attributes={})
    for command in (estimate, lambda plan: segment(plan, NoProgress())):
        with pytest.raises(error, match=message):
            command(plan_segmentation(volume, options(toy_model, **rules)))
    assert not probabilities_path(volume, NAME).exists()


def test_a_complete_result_is_the_same_in_other_blocks(volume, toy_model):
    segment(plan_segmentation(volume, options(toy_model)), NoProgress())
    again = options(toy_model, block=(16, 64, 64), shard=(16, 64, 64))
    assert segment(plan_segmentation(volume, again), NoProgress()).predict.tiles == 0
    assert estimate(plan_segmentation(volume, again)).tiles > 0


@pytest.fixture(params=["0.4", "0.5"])
def elsewhere(source, tmp_path, request):
    return write_elsewhere(tmp_path / "else.zarr", tifffile.imread(source), request.param)


def attributes_of(path):
    """Read them by the library that wrote them, which refuses two versions in one place."""
    return dict(zarr.open_group(path, mode="r").attrs)


def test_volumes_of_others_give_the_same(elsewhere, toy_model, reference):
    before = attributes_of(elsewhere)
    segment(plan_segmentation(elsewhere, options(toy_model, min_size=4)), NoProgress())
    np.testing.assert_array_equal(read(probabilities_path(elsewhere, NAME)), reference[0])
    np.testing.assert_array_equal(read(labels_path(elsewhere, NAME)), reference[1])
    assert open_image(labels_path(elsewhere, NAME)).voxel_size == pytest.approx((5, 5, 5))
    place = open_image(elsewhere).space
    assert place.origin == ORIGIN
    assert open_image(probabilities_path(elsewhere, NAME)).space == place
    assert open_image(labels_path(elsewhere, NAME)).space == place
    after = attributes_of(elsewhere)
    assert set(after.pop("volseg")) == {"histogram", "fingerprint", "survey"}
    assert after == before
    assert (
        segment(
            plan_segmentation(elsewhere, options(toy_model, min_size=4)), NoProgress()
        ).predict.tiles
        == 0
    )
    report = verify(elsewhere, VerifyOptions(model=str(toy_model), sample=1), NoProgress())
    assert report.ok, report


def test_voxels_of_others_that_changed_are_found(elsewhere, toy_model):
    segment(plan_segmentation(elsewhere, options(toy_model)), NoProgress())
    voxels = zarr.open_group(elsewhere)["s0"]
    voxels[0, 0, 3, 4, 5] = 255 - voxels[0, 0, 3, 4, 5]
    (found,) = verify(elsewhere, VerifyOptions(sample=0), NoProgress()).findings
    assert found.kind == "intensities"
    assert "not there" not in found.message


def test_intensities_are_counted_once(elsewhere, toy_model, monkeypatch):
    segment(plan_segmentation(elsewhere, options(toy_model)), NoProgress())
    counted = attributes_of(elsewhere)
    # whoever removes what was noted gets the same again
    update_attributes(elsewhere, {}, "histogram", "fingerprint")
    assert (
        segment(plan_segmentation(elsewhere, options(toy_model)), NoProgress()).predict.tiles == 0
    )
    assert attributes_of(elsewhere) == counted
    monkeypatch.setattr("volseg.stages.segment.run.with_survey", None)
    segment(
        plan_segmentation(elsewhere, options(toy_model, overwrite=True, threshold=0.6)),
        NoProgress(),
    )


def test_nothing_is_counted_for_an_estimate_or_for_options_that_are_wrong(
    elsewhere, toy_model, monkeypatch
):
    monkeypatch.setattr("volseg.stages.segment.run.with_survey", None)
    before = attributes_of(elsewhere)
    assert UNCOUNTED in estimate(plan_segmentation(elsewhere, options(toy_model))).notes
    with pytest.raises(ParameterError, match="leaves the volume"):
        segment(plan_segmentation(elsewhere, options(toy_model, roi="0:21,:,:")), NoProgress())
    with pytest.raises(ParameterError, match="at least the threshold"):
        segment(plan_segmentation(elsewhere, options(toy_model, seed_threshold=0.2)), NoProgress())
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(StorageError, match="no permission"):
        segment(plan_segmentation(elsewhere, options(toy_model)), NoProgress())
    assert attributes_of(elsewhere) == before


def test_an_array_has_no_place_for_results(elsewhere, toy_model):
    for act in (estimate, lambda plan: segment(plan, NoProgress())):
        with pytest.raises(VolumeError, match=r"plain Zarr array.*`volseg convert .*s0 VOLUME"):
            act(plan_segmentation(elsewhere / "s0", options(toy_model)))
    assert not (elsewhere / "s0" / "probabilities").exists()


def test_labels_that_others_listed_stay_listed(elsewhere, toy_model):
    version = zarr.open_group(elsewhere).metadata.zarr_format
    theirs = zarr.open_group(elsewhere / "labels", mode="w", zarr_format=version)
    listed = {"labels": ["cells"]}
    theirs.attrs.update({"more": 1, **(listed if version == 2 else {"ome": listed})})
    segment(plan_segmentation(elsewhere, options(toy_model)), NoProgress())
    found = attributes_of(elsewhere / "labels")
    assert found["more"] == 1
    assert found.get("ome", found)["labels"] == ["cells", NAME]
    with pytest.raises(VolumeError, match=f"no labels/x; it has cells, {NAME}; run"):
        open_labels(elsewhere, "x")
