"""Background, missing slices, masks and evening: the same for any blocks, and nothing silly."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
import zarr
from scipy import ndimage

import volseg
from toy_elsewhere import write_elsewhere
from toy_predictions import exact_options, fail_in_a_block, read_map
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ParameterError, VolumeError
from volseg.stages.predict import tasks as predict_block
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.segment.estimate import estimate
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.survey.intensities import with_survey
from volseg.stages.survey.notes import advise, read_survey
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.attributes import update_attributes
from volseg.storage.cards import update_card
from volseg.storage.volumes import open_image
from volseg.voxels.defects import correlate_neighbours

SHAPE = (20, 70, 60)
WIDTH, BLACK = 9, 7


def smooth(shape=SHAPE):
    raw = ndimage.gaussian_filter(np.random.default_rng(8).random(shape), 2)
    return (40 + (raw - raw.min()) / np.ptp(raw) * 200).astype(np.uint8)


def spoil(raw):
    """Pad a stack, and lose a slice between others and the last two."""
    padded = np.pad(raw, ((0, 0), (WIDTH, WIDTH), (WIDTH, 0)))
    padded[[BLACK, -2, -1]] = 0
    return padded


def convert(folder, raw, name="vol.zarr"):
    source = folder / f"{name}.tif"
    tifffile.imwrite(source, raw, photometric="minisblack")
    volseg.convert(source, folder / name, voxel_size=(5.0, 5.0, 5.0))
    return folder / name


def run(volume, model, **options):
    plan = plan_prediction(volume, exact_options(model, **options))
    return plan, predict(plan, NoProgress())


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("spoilt"), spoil(smooth()))


@pytest.fixture
def volume(spoilt):
    return spoilt


@pytest.mark.parametrize("normalise", ["volume", "slices", "local"])
def test_all_of_it_is_the_same_for_any_blocks(volume, toy_model, normalise):
    found = []
    for block, workers in (((8, 32, 32), 2), ((20, 96, 96), 1), ((8, 96, 32), 2)):
        run(volume, toy_model, block=block, workers=workers, normalise=normalise, overwrite=True)
        found.append(read_map(volume))
    assert all(np.array_equal(f, found[0]) for f in found)
    padding = spoil(np.ones(SHAPE, np.uint8)) == 0
    padding[BLACK] = padding[BLACK - 1]
    assert not found[0][padding].any()
    assert found[0][BLACK].any()
    assert found[0][~padding].std() > 10


def test_what_was_done_stands_on_record(volume, toy_model):
    plan, _ = run(volume, toy_model, overwrite=True)
    header = open_image(plan.mask.path).attributes["run"]
    assert header["background"] == [0.0]
    assert (header["interpolated"], header["missing"]) == ([BLACK], [18, 19])
    assert any("hold the value 0 are background" in n for n in plan.notes)
    assert any(n.endswith(": 7, 18-19") for n in plan.notes)
    assert verify(volume, VerifyOptions(sample=1, model=str(toy_model)), NoProgress()).failures == 0


def test_padding_decides_nothing_of_what_is_around(tmp_path, toy_model, monkeypatch):
    """A network that sees voxels alone, as tiles of another volume lie elsewhere."""

    alone = SimpleNamespace(evaluate=lambda tile, *_: torch.sigmoid(3 * tile)[None])
    monkeypatch.setattr(predict_block, "predictor_for", lambda _: alone)
    raw = smooth((12, 48, 48))
    plain, padded = (
        convert(tmp_path, data, name)
        for data, name in ((raw, "a"), (np.pad(raw, ((0, 0), (24, 24), (24, 24))), "b"))
    )
    maps = []
    for place in (plain, padded):
        run(place, toy_model)
        maps.append(read_map(place).astype(int))
    inner = maps[1][:, 24:-24, 24:-24]
    # several tiles add up to a voxel, and each rounds
    assert np.abs(inner - maps[0]).max() <= 2
    assert maps[1].astype(bool).sum() == inner.astype(bool).sum()


def test_a_missing_slice_is_seen_as_between_its_neighbours(volume, toy_model):
    plan = plan_prediction(volume, exact_options(toy_model))
    box = (slice(5, 10), slice(20, 40), slice(20, 40))
    context = plan.known_look.read(box).send()
    around = context.shown[[1, 3]].mean(axis=0)
    np.testing.assert_allclose(context.shown[2], around, atol=1e-6)
    assert not context.lacking.any()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_empty_volume_has_no_objects(tmp_path, toy_model, value):
    place = convert(tmp_path, np.full(SHAPE, value, np.uint8))
    notes = []
    report = volseg.segment(place, model=str(toy_model), on_note=notes.append)
    assert (report.predict.tiles, report.label.objects) == (0, 0)
    assert any("the volume is empty" in note for note in notes)


def test_volumes_of_others_and_of_former_versions_are_looked_at_first(tmp_path, toy_model):
    raw = spoil(smooth())
    ours = convert(tmp_path, raw)
    former = convert(tmp_path, raw, "former.zarr")
    update_attributes(former, {}, "survey")
    theirs = write_elsewhere(tmp_path / "theirs.zarr", raw, "0.4")
    maps, background = [], []
    for place in (ours, former, theirs):
        plan = plan_segmentation(place, SegmentOptions(exact_options(toy_model, workers=2)))
        notes = segment(plan, NoProgress()).predict.notes
        assert sum("background" in note for note in notes) == 1
        maps.append(read_map(place))
        background.append(open_image(place).attributes["survey"]["background"])
    assert background[0] == background[1] == background[2]
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])


def test_what_a_former_version_completed_stays(tmp_path, toy_model):
    place = convert(tmp_path, spoil(smooth()))
    update_attributes(place, {}, "survey")
    run(place, toy_model)
    options = SegmentOptions(exact_options(toy_model))
    assert segment(plan_segmentation(place, options), NoProgress()).predict.tiles == 0
    assert "survey" not in open_image(place).attributes


def test_a_survey_that_others_changed_is_named(volume, tmp_path):
    image = open_image(volume)
    survey = json.loads(json.dumps(image.attributes["survey"]))
    del survey["slices"]["sharpness"][3]
    with pytest.raises(VolumeError, match="cannot be used; remove its attribute"):
        read_survey(replace(image, attributes={"survey": survey}))


@pytest.mark.parametrize("voxels", [1, 4000])
def test_a_survey_does_not_depend_on_blocks(tmp_path, monkeypatch, voxels):
    place = write_raw(tmp_path / "v", spoil(smooth()))
    image = open_image(place)
    whole = with_survey(image, EngineOptions(workers=1), NoProgress()).attributes["survey"]
    monkeypatch.setattr("volseg.stages.survey.intensities.BLOCK_VOXELS", voxels)
    again = with_survey(image, EngineOptions(workers=2), NoProgress()).attributes["survey"]
    assert again == whole
    padding = int((spoil(np.ones(SHAPE, np.uint8)) == 0).sum())
    assert whole["background"] == [{"value": 0.0, "counted_as": 0, "voxels": padding}]


@pytest.fixture
def masked(tmp_path):
    """A volume, and what is inside a mask of it at full size."""
    place = convert(tmp_path, smooth((24, 96, 96)))
    inside = np.zeros((24, 96, 96), bool)
    inside[4:12, 8:40, 16:48] = True
    return place, inside


def test_nothing_is_evaluated_or_found_outside_a_mask(masked, tmp_path, toy_model):
    place, inside = masked
    mask = tmp_path / "mask.tif"
    tifffile.imwrite(mask, inside.astype(np.uint8) * 3, photometric="minisblack")
    _, whole = run(place, toy_model, overwrite=True)
    everywhere = read_map(place)
    plan, part = run(place, toy_model, mask=str(mask), overwrite=True)
    np.testing.assert_array_equal(read_map(place), np.where(inside, everywhere, 0))
    assert 0 < part.tiles < whole.tiles / 2
    assert plan.tiles == part.tiles
    run(place, toy_model, mask=str(mask), block=(24, 96, 32), overwrite=True)
    np.testing.assert_array_equal(read_map(place), np.where(inside, everywhere, 0))
    planned = plan_segmentation(place, SegmentOptions(exact_options(toy_model, mask=str(mask))))
    assert estimate(planned).tiles == part.tiles


def test_a_coarser_mask_is_scaled(masked, tmp_path, toy_model):
    place, inside = masked
    coarse = inside[::4, ::8, ::8].astype(np.uint16)
    by_shape = zarr.create_array(tmp_path / "coarse", data=coarse, chunks=(2, 5, 5))
    by_size = write_raw(tmp_path / "sized", coarse.astype(np.uint8), voxel_size=(20.0, 40.0, 40.0))
    maps = []
    for mask in (by_shape.store_path.store.root, by_size):
        run(place, toy_model, mask=str(mask), overwrite=True)
        maps.append(read_map(place))
    assert maps[0].any()
    assert np.array_equal(maps[0], maps[1])
    assert not maps[0][~inside].any()


def test_masks_that_do_not_fit_are_refused(masked, tmp_path, toy_model):
    place, inside = masked
    wrong = write_raw(tmp_path / "w", inside[:20].astype(np.uint8))
    with pytest.raises(VolumeError, match=r"measures 20 x 96 x 96 voxels, .* covers the whole"):
        run(place, toy_model, mask=str(wrong))
    empty = write_raw(tmp_path / "e", np.zeros((24, 96, 96), np.uint8))
    with pytest.raises(VolumeError, match="0 everywhere"):
        run(place, toy_model, mask=str(empty))


def test_another_mask_makes_another_result(masked, tmp_path, toy_model):
    place, inside = masked
    one = write_raw(tmp_path / "one", inside.astype(np.uint8))
    two = write_raw(tmp_path / "two", np.roll(inside, 1, 2).astype(np.uint8))
    run(place, toy_model, mask=str(one))
    assert run(place, toy_model, mask=str(one))[1].tiles == 0
    with pytest.raises(ConflictError, match="mask"):
        run(place, toy_model, mask=str(two))
    assert verify(place, VerifyOptions(sample=1, model=str(toy_model)), NoProgress()).failures == 0


def test_a_declared_value_is_background_however_rare(tmp_path):
    """Of a value that is clipped elsewhere, a small square counts only if the user says so."""
    raw = smooth((6, 200, 200))
    raw[np.random.default_rng(2).random(raw.shape) < 0.01] = 255
    raw[3, 40:58, 60:78] = 255
    source = tmp_path / "stack.tif"
    tifffile.imwrite(source, raw, photometric="minisblack")
    for declared, background in ((None, ()), (255, (255.0,))):
        volume = tmp_path / f"{declared}.zarr"
        volseg.convert(source, volume, fill_value=declared, voxel_size=(5.0, 5.0, 5.0))
        assert read_survey(open_image(volume)).background == background
    assert open_image(volume).attributes["source"]["fill_value"] == 255
    for unheld in (256, 0.5, float("nan")):
        with pytest.raises(ParameterError, match="no voxel of type uint8 holds"):
            volseg.convert(source, tmp_path / "other.zarr", fill_value=unheld)
    assert not (tmp_path / "other.zarr").exists()


def test_a_declared_value_is_rounded_as_voxels_are(tmp_path):
    raw = smooth((6, 200, 200)).astype(np.float32)
    raw[3, 40:58, 60:78] = 0.1
    source, volume = tmp_path / "stack.tif", tmp_path / "vol.zarr"
    tifffile.imwrite(source, raw, photometric="minisblack")
    volseg.convert(source, volume, fill_value=0.1, voxel_size=(5.0, 5.0, 5.0))
    assert read_survey(open_image(volume)).background == (float(np.float32(0.1)),)
    with pytest.raises(ParameterError, match="no voxel of type float32 holds"):
        volseg.convert(source, tmp_path / "other.zarr", fill_value=1e300)


def test_unrelated_slices_have_no_median_and_are_told_of(tmp_path, toy_model):
    stack = smooth((9, 70, 60))
    update_card(toy_model, {"median_nm": 20.0})
    try:
        for order, related in ((stack, True), (smooth((90, 70, 60))[::10], False)):
            volume = convert(tmp_path, order, f"{related}.zarr")
            survey = read_survey(open_image(volume))
            assert survey is not None
            plain, best = correlate_neighbours(survey.slices)
            assert plain >= 0.4 if related else best < 0.3
            # told first, as it explains what else is found
            assert ("--images" in "".join(advise(open_image(volume))[:1])) is not related
            plan = plan_segmentation(volume, SegmentOptions(exact_options(toy_model)))
            assert ("median_nm" in plan.labellings[0].header) is related
            segment(plan, NoProgress())
            run = open_image(volume / "labels/mitochondria").attributes["run"]
            assert run.get("median_nm") == (20 if related else None)
    finally:
        update_card(toy_model, {"median_nm": 0.0})


def test_a_run_that_an_earlier_version_began_keeps_its_rules(tmp_path, monkeypatch):
    model = write_weights(tmp_path, "emnet", (12, 32, 32), (4, 8, 8), 8, seed=5)
    volume, asked = convert(tmp_path, smooth()), exact_options(model)
    with monkeypatch.context() as patch:
        fail_in_a_block(volume, asked, patch)
    update_card(model, {"median_nm": 20.0, "min_size": 40})
    for _ in range(2):  # what was made stands
        segment(plan_segmentation(volume, SegmentOptions(asked)), NoProgress())
        image = open_image(volume / "labels/mitochondria")
        assert "median_nm" not in image.attributes["run"]
        assert image.attributes["run"]["min_size"] == 0
