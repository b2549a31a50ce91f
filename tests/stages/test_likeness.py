"""Likeness: known tissue is near, other tissue is far, and results say so."""

from __future__ import annotations

import json
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from scipy import ndimage

import volseg
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi, roi_shape
from volseg.scores.likeness import describe_tissue, read_reference
from volseg.stages.predict import run as predict_run
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.preview.run import PreviewOptions, preview
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.survey.likeness import (
    Region,
    look_at_tissue,
    note_reference,
)
from volseg.stages.survey.windows import mean_found, spread_windows
from volseg.stages.teach import run as teach_run
from volseg.stages.teach.judged import open_judged
from volseg.stages.teach.learn import teaching_recipe
from volseg.storage.cards import load_card, update_card
from volseg.storage.volumes import labels_path, open_image, probabilities_path, volume_tone
from volseg.training.sampling import Source

SHAPE = (12, 128, 128)


def textured(seed=0, sigma=2.0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), (0, sigma, sigma))
    return (127 + 40 * smooth / smooth.std()).clip(1, 254).astype(np.uint8)


def source_of(path, card, planar=True):
    image = open_image(path)
    return Source(
        image.levels[0],
        np.zeros(SHAPE, np.uint8),
        full_roi(SHAPE),
        volume_tone(image, card.preprocessing),
        np.zeros((0, 3), np.int64),
        isotropic=False,
        planar=planar,
    )


@pytest.fixture
def known(tmp_path):
    return write_raw(tmp_path / "known.zarr", textured())


@pytest.fixture
def model(tmp_path, known):
    path = write_weights(tmp_path, "unet2d", (8, 64, 64), (0, 16, 16), 2)
    card = note_reference(path, [source_of(known, load_card(path))])
    ratios = {"like": [0.5, 1.1], "unlike": [0.2, 0.9]}
    update_card(path, {"tissue": {**card.tissue, "precision": ratios}})
    return path


def look(path, model):
    image, card = open_image(path), load_card(model)
    tone = volume_tone(image, card.preprocessing)
    return look_at_tissue(image, model, card, (1.0, 1.0, 1.0), tone=tone)


def test_places_without_tissue_are_left_out(tmp_path, model):
    tissue = np.tile(textured(1), (1, 2, 4))
    whole, card = write_raw(tmp_path / "plain.zarr", tissue), load_card(model)
    plain = look(whole, model)
    padded = np.pad(tissue, ((0, 0), (0, 0), (300, 0)))
    path = write_raw(tmp_path / "padded.zarr", padded)

    def find_nothing(box):
        return np.broadcast_to(np.arange(box[2].start, box[2].stop) < 300, roi_shape(box))

    tone = volume_tone(open_image(whole), card.preprocessing)  # of tissue alone, as it is counted
    args = open_image(path), model, card, (1.0, 1.0, 1.0)
    region = Region(full_roi(padded.shape), find_nothing)
    blind = look_at_tissue(*args, tone=tone)
    seeing = look_at_tissue(*args, tone=tone, region=region)
    assert blind["distance"] > 2 * plain["distance"]
    assert seeing["distance"] < 2 * plain["distance"]


def test_known_tissue_is_near_and_other_tissue_is_far(tmp_path, model):
    near = look(write_raw(tmp_path / "near.zarr", textured(1)), model)
    middle = look(write_raw(tmp_path / "middle.zarr", textured(1, 3.0)), model)
    far = look(write_raw(tmp_path / "far.zarr", textured(1, 0.4)), model)
    same = look(tmp_path / "known.zarr", model)
    assert same["distance"] < near["distance"] < middle["distance"] < far["distance"]
    assert (same["likeness"], same["ratios"]) == ("like", [0.5, 1.1])
    assert (middle["likeness"], middle["ratios"]) == ("unlike", [0.2, 0.9])
    assert far["likeness"] == "very unlike"
    assert "ratios" not in far


@pytest.mark.parametrize("name", ["emnet", "unet2d-valid"])
def test_networks_of_all_forms_have_a_reference(tmp_path, known, name):
    tile = (20, 388, 388) if name == "unet2d-valid" else (16, 32, 32)
    path = write_weights(tmp_path, name, tile, (0, 0, 0), 8)
    card = note_reference(path, [source_of(known, load_card(path), name == "unet2d-valid")])
    assert look(known, path)["likeness"] == "like"
    assert note_reference(path, []).tissue == card.tissue, "what a card says already stays"


def test_a_card_without_reference_and_one_of_nonsense_are_unknown(known, model):
    for tissue in ({}, {"means": 3}, {"means": ["1 2"], "whitening": "1", "unit": 1, "places": 2}):
        assert read_reference(tissue) is None
        update_card(model, {"tissue": tissue})
        assert look(known, model) == {"likeness": "unknown"}
    assert describe_tissue("unlike") == describe_tissue({"likeness": "odd"}) == ""


def test_every_count_is_told_with_what_to_expect_for_any_blocks(volseg, known, model):
    found = []
    for block in (None, (8, 32, 32)):
        prediction = PredictOptions(model=str(model), block=block, overwrite=block is not None)
        options = SegmentOptions(replace(prediction, roi="0:8,:,:"), min_size=0)
        report = segment(plan_segmentation(known, options), NoProgress())
        found.append(open_image(labels_path(known, "mitochondria")).attributes["tissue"])
    assert found[0] == found[1]
    image = open_image(probabilities_path(known, "mitochondria"))
    region = full_roi((8, *SHAPE[1:]))
    mean = mean_found(image.levels[0], region, 128)
    low, high = found[0]["expected_precision"]
    assert (low, high) == (pytest.approx(0.5 * mean, abs=0.005), min(round(1.1 * mean, 2), 1))
    words = report.label.expected
    assert words == (
        f"expected precision of voxels {low:.2g} to {high:.2g}: "
        "this tissue is like the training data"
    )
    for command in ("stats", "info", "label", "segment"):
        more = ["--model", str(model), "--roi", "0:8,:,:"] if command == "segment" else []
        more += ["--min-size", "0"] if command in {"label", "segment"} else []
        result = volseg(command, known, *more)
        assert result.exit_code == 0, result.output
        assert words in result.stdout
    result = volseg("report", known)
    assert result.exit_code == 0, result.output
    assert words in (known.parent / "known-report.html").read_text()


def test_a_count_of_weights_that_say_nothing_is_told_as_unknown(volseg, known, model):
    update_card(model, {"tissue": {}})
    flags = ["--model", str(model), "--roi", "0:8,:,:", "--min-size", "0"]
    assert "look at a few objects" in volseg("segment", known, *flags).output
    for command in ("info", "stats"):
        told = volseg(command, known).stdout
        assert "precision unknown: the weights do not say" in told
        assert "; look at a few objects before you count" in told
    assert volseg("report", known).exit_code == 0
    assert "before you count" in (known.parent / "known-report.html").read_text()


def test_a_preview_says_how_like_the_training_data_tissue_is(volseg, tmp_path, model):
    other = write_raw(tmp_path / "other.zarr", textured(1, 0.4))
    flags = ["--model", str(model), "--places", "2", "--seconds", "1"]
    result = volseg("preview", other, *flags)
    assert (
        "this tissue is very unlike the training data; do not count on the result" in result.stdout
    )
    told = volseg("preview", other, *flags, "--json")
    assert json.loads(told.stdout)["tissue"]["likeness"] == "very unlike"


def as_pictures(folder, planes, name):
    """Convert slices, as far as they reach, to a volume of images."""
    source = folder / name
    source.mkdir()
    for k, plane in enumerate(planes):
        (source / f"{k}.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(plane)))
    volseg.convert(source, folder / f"{name}.zarr", images=True, voxel_size=(5, 5, 5))
    return folder / f"{name}.zarr"


def uneven(planes):
    """Show each slice brighter or darker, and with more or less contrast."""
    shown = zip(np.linspace(0.25, 1, len(planes)), range(0, 48, 4), planes, strict=True)
    return [np.uint8(gain * plane + above) for gain, above, plane in shown]


def look_through(path, model, **options):
    """Look at a volume as a prediction does."""
    plan = plan_prediction(path, PredictOptions(model=str(model), **options))
    return predict_run._compare_tissue(plan)


def test_images_are_compared_each_by_its_own_brightness(tmp_path, model):
    tissue = textured(1)
    even, brighter = (
        look_through(as_pictures(tmp_path, planes, name), model)
        for name, planes in (("even", tissue), ("uneven", uneven(tissue)))
    )
    for found in (even, brighter):
        assert (found["likeness"], found["places"]) == ("like", 12)
        assert found["ratios"] == [0.5, 1.1]
    assert brighter["distance"] == pytest.approx(even["distance"], rel=0.1)
    # padding counts for nothing, however much of it there is
    parts = uneven([plane[: 128 - 8 * k, : 64 + 5 * k] for k, plane in enumerate(tissue)])[::5]
    alone = [
        look_through(as_pictures(tmp_path, [plane], f"alone{k}"), model)["distance"]
        for k, plane in enumerate(parts)
    ]
    padded = look_through(as_pictures(tmp_path, parts, "parts"), model)
    assert (padded["distance"], padded["places"]) == (np.median(alone), 3)
    other = as_pictures(tmp_path, uneven(textured(1, 0.4)), "other")
    assert look_through(other, model)["likeness"] == "very unlike"
    stack = write_raw(tmp_path / "stack.zarr", np.stack(uneven(tissue)))
    assert look(stack, model)["distance"] > 1.5 * brighter["distance"]
    said = look_through(stack, model, images=True, roi="2:9,30:100,:")
    assert (said["likeness"], said["places"]) == ("like", 7)


def test_counts_of_images_are_told_with_what_to_expect(volseg, tmp_path, model):
    path = as_pictures(tmp_path, uneven(textured(1))[:3], "images")
    told = volseg("segment", path, "--model", str(model), "--min-size", "0")
    assert told.exit_code == 0, told.output
    noted = open_image(labels_path(path, "mitochondria")).attributes["tissue"]
    words = describe_tissue(noted)
    assert words.endswith("this tissue is like the training data")
    assert noted["expected_precision"]
    assert words in told.stdout
    for command in ("stats", "info"):
        assert words in volseg(command, path).stdout
    # what is taught sees them so, too
    judged, apart = open_judged(path, "mitochondria", str(model)), []
    eye = teach_run._open_eye(judged, teaching_recipe(judged.card, 1, None), "cpu")
    for z in range(3):
        roi = eye.window((z, 60, 60))
        apart.append(eye.source(roi, np.zeros(roi_shape(roi), np.int8), 1.0).tone.window)
        plane = np.asarray(judged.image.levels[0][roi[0], 0:128, 0:128])
        expected = np.percentile(plane, judged.card.preprocessing.percentiles)
        np.testing.assert_allclose(apart[-1], expected, atol=1)
    assert len(set(apart)) == 3


def test_where_rules_leave_no_object_no_precision_is_told(volseg, known, model):
    for verb, size in (("segment", 0), ("label", 10**6)):
        flags = ["--model", str(model)] if verb == "segment" else ["--overwrite"]
        told = volseg(verb, known, *flags, "--min-size", size)
        assert told.exit_code == 0, told.output
        noted = open_image(labels_path(known, "mitochondria")).attributes
        assert bool(noted["objects"]) == bool(noted["tissue"]["expected_precision"]) == (not size)
        for output in (told.stdout, volseg("info", known).stdout):
            assert ("expected precision of voxels 0." in output) == (not size)
            assert "this tissue is like the training data" in output
            assert "was not measured" not in output


def test_a_preview_of_images_sees_each_by_its_own_brightness(tmp_path, model):
    tissue = textured(1)
    reports = [
        preview(
            as_pictures(tmp_path, planes, name),
            PreviewOptions((str(model),), (1.0,), places=3, output=tmp_path / f"{name}.png"),
            NoProgress(),
        )
        for name, planes in (("even", tissue), ("uneven", uneven(tissue)))
    ]
    one, other = reports
    for z in {z for z, _, _ in one.places} & {z for z, _, _ in other.places}:
        a, b = (next(v for v in r.trials[0].views if v.roi[0].start == z) for r in reports)
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=0.05)
    assert one.tissue["likeness"] == other.tissue["likeness"] == "like"


def test_windows_of_images_lie_within_them():
    ends = [(40, 90), (200, 8), (0, 0), (300, 300)]
    windows = spread_windows((4, 300, 300), (1, 192, 192), 64, ends)
    assert {z.start for z, _, _ in windows} == {0, 1, 3}
    for z, y, x in windows:
        height, width = ends[z.start]
        assert (y.stop - y.start, x.stop - x.start) == (min(height, 192), min(width, 192))
        assert y.stop <= height
        assert x.stop <= width
    whole = [(300, 300)] * 4
    assert spread_windows((4, 300, 300), (1, 192, 192), 9, whole) == spread_windows(
        (4, 300, 300), (1, 192, 192), 9
    )


def test_windows_lie_in_the_grid_and_are_spread():
    windows = spread_windows((5, 300, 200), (1, 192, 192), 40)
    stops = np.array([[w.stop for w in roi] for roi in windows])
    assert (stops <= (5, 300, 200)).all()
    assert {roi[0].start for roi in windows} == set(range(5))
    assert spread_windows((1, 10, 10), (1, 192, 192), 40) == [full_roi((1, 10, 10))]
