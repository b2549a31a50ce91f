"""Preview: where it looks, how it ranks, and that it only looks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from toy_elsewhere import write_elsewhere
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.cli.preview import describe_report
from volseg.engine.progress import NoProgress
from volseg.errors import InputError, ParameterError, VolumeError
from volseg.stages.preview import run as preview_run
from volseg.stages.preview import trial as preview_trial
from volseg.stages.preview.places import choose_places, look_around, window_about
from volseg.stages.preview.run import PreviewOptions, choose_trials, place_sheet, preview
from volseg.stages.preview.sheet import (
    DOUBTFUL_COLOUR,
    GAP,
    MARGIN,
    PANEL,
    ROWS,
    SCALE,
    SURE_COLOUR,
    TALL,
    UNSEEN,
    WIDE,
    compose_sheet,
    outline,
)
from volseg.stages.preview.trial import Candidate, View, map_onto, measure_overlap, rank, try_model
from volseg.storage.cards import load_card
from volseg.storage.volumes import open_image
from volseg.voxels.intensity import Tone
from volseg.voxels.letters import choose_bar, count_bar, shape_text, shorten

NM = (5.0, 5.0, 5.0)

SHAPE = (12, 260, 300)


def tissue(seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (1, 2, 2))
    return (127 + 60 * smooth / smooth.std()).clip(1, 254).astype(np.uint8)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("preview") / "v.zarr", tissue(), shard=(4, 128, 128))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    return str(write_weights(folder, "unet2d", (8, 64, 64), (0, 16, 16), 2))


def test_places_lie_in_tissue_and_apart(tmp_path):
    """Three quarters of each slice are padding; half of what is left is empty resin."""
    raw = np.zeros((16, 600, 600), np.uint8)
    raw[:, :300, 300:] = tissue(shape=(16, 300, 300))
    raw[:, :300, 450:] = 180 + raw[:, :300, 450:] // 100
    path = write_raw(tmp_path / "v.zarr", raw, shard=(8, 128, 128))
    windows = look_around(open_image(path))
    assert windows
    places = choose_places(windows, 4)
    assert len(set(places)) == 4
    for z, y, x in places:
        inside = raw[window_about((z, y, x), (192, 192), raw.shape)]
        assert inside.std() > 10
    assert len({z for z, _, _ in places}) > 1


def candidate(predict):
    card = replace(load_card("unet2d"), voxel_size=(5.0, 5.0, 5.0), threshold=0.5)
    return Candidate("own", card, predict, Tone((0.0, 255.0)))


def test_a_trial_tells_what_is_found_and_how_surely(volume):
    trial = try_model(candidate(lambda r: (r < 0).astype(np.float32)), open_image(volume),
                      [(4, 130, 150), (8, 100, 140)], 1.0)  # fmt: skip
    assert trial.certainty == pytest.approx(1)
    assert trial.work == np.prod(SHAPE)
    assert 0.3 < trial.found < 0.7
    assert [v.roi[0] for v in trial.views] == [slice(4, 5), slice(8, 9)]


def test_trials_that_agree_and_find_much_come_first(volume):
    """One finds the dark, at two scales; one finds the bright; one half of the dark."""
    finders = {
        "dark": lambda r: (r < 0).astype(np.float32),
        "bright": lambda r: (r > 0).astype(np.float32),
        "half": lambda r: ((r < 0) & (np.arange(r.shape[1]) % 8 < 4)[:, None]).astype(np.float32),
    }
    image, places = open_image(volume), [(4, 130, 150), (8, 100, 140)]
    asked = (("dark", 1.0), ("bright", 1.0), ("half", 1.0), ("dark", 0.7))
    trials = [
        replace(try_model(candidate(finders[name]), image, places, zoom), model=name)
        for name, zoom in asked
    ]
    ranked = rank(trials, NM)
    assert [t.model for t in ranked] == ["dark", "dark", "half", "bright"]
    at = {(t.model, t.zoom): t for t in ranked}
    scales = measure_overlap(at["dark", 1.0], at["dark", 0.7])
    assert 0.7 < scales < 1
    halves = measure_overlap(at["dark", 1.0], at["half", 1.0])
    assert halves == pytest.approx(0.5, abs=0.05)
    opposite = measure_overlap(at["dark", 1.0], at["bright", 1.0])
    assert opposite < 0.1  # at outlines, where both are interpolated
    mean = (scales + halves + opposite) / 3
    assert at["dark", 1.0].agreement == pytest.approx(mean, abs=1e-9)
    again = rank(list(reversed(trials)), NM)
    assert [(t.model, t.zoom) for t in again] == [(t.model, t.zoom) for t in ranked]
    assert rank(trials[:1], NM) == trials[:1]
    # the same agreement with each other, but one finds less
    few, many = rank([at["half", 1.0], at["dark", 1.0]], NM)[::-1]
    assert (few.model, few.agreement) == ("half", many.agreement)


@pytest.mark.parametrize(("less", "first"), [(0.99, 1.0), (0.97, 1.4)])
def test_of_scores_as_good_as_equal_the_stated_scale_is_chosen(volume, less, first):
    seen = candidate(lambda r: (r < 0).astype(np.float32))
    trial = try_model(seen, open_image(volume), [(4, 130, 150)], 1.0)
    trials = [replace(trial, zoom=zoom, found=trial.found * part**5)  # score: found to the 0.2
              for zoom, part in ((1.4, 1.0), (1.0, less), (0.5, 0.9))]  # fmt: skip
    assert [t.zoom for t in rank(trials, NM)] == [first, 2.4 - first, 0.5]
    assert rank(trials, None)[0].zoom == 1.4, "none is stated"


def test_models_that_know_the_tissue_come_first_and_strangers_last(volume, monkeypatch):
    seen = candidate(lambda r: (r < 0).astype(np.float32))
    trial = try_model(seen, open_image(volume), [(4, 130, 150)], 1.0)
    ranked = [("a", 2, 0.9), ("b", 2, 0.8), ("b", 1, 0.8), ("a", 1, 0.7)]
    trials = [replace(trial, model=m, zoom=z, certainty=c) for m, z, c in ranked]
    for told, sized, expected in (
        ({"a": "very unlike", "b": "unlike"}, True, ["b2", "a2", "b1", "a1"]),
        ({"a": "unlike", "b": "unlike"}, True, ["a2", "b2", "b1", "a1"]),
        ({"a": "unknown", "b": "very unlike"}, True, ["a2", "b2", "b1", "a1"]),
        ({"a": "very unlike", "b": "very unlike"}, True, ["a2", "b2", "b1", "a1"]),
        ({"a": "like", "b": "unlike"}, True, ["a1", "a2", "b2", "b1"]),
        ({"a": "like", "b": "like"}, True, ["b1", "a2", "b2", "a1"]),  # the surer one
        ({"a": "unlike", "b": "like"}, False, ["a2", "b2", "b1", "a1"]),
    ):
        monkeypatch.setattr(
            preview_run,
            "_look",
            lambda _image, best, _candidates, told=told: {"likeness": told[best.model]},
        )
        image = SimpleNamespace(voxel_size=NM if sized else None)
        found, tissue = preview_run._known_first(image, trials, ())
        assert [f"{t.model}{t.zoom}" for t in found] == expected
        assert tissue == {"likeness": told[found[0].model]}


def test_doubt_costs_certainty(volume):
    trial = try_model(candidate(lambda r: np.full_like(r, 0.5)), open_image(volume),
                      [(4, 130, 150)], 1.0)  # fmt: skip
    assert trial.certainty == pytest.approx(0)


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
def test_a_zoom_shows_tissue_as_if_its_voxels_were_so_large(volume, zoom):
    """At twice the size, half the voxels fill what the network sees."""
    trial = try_model(candidate(lambda r: (r < 0).astype(np.float32)), open_image(volume),
                      [(4, 130, 150)], zoom)  # fmt: skip
    (view,) = trial.views
    side = view.roi[1].stop - view.roi[1].start
    assert len(view.probabilities) / side == pytest.approx(zoom, rel=0.05)
    assert trial.work == pytest.approx(np.prod(SHAPE) * zoom**2)


def test_a_scale_that_shows_the_same_as_another_is_left_out(tmp_path):
    """Voxels are never cut into more than five: 20 nm make 4 of the network's 5 nm, then 5."""
    coarse = write_raw(tmp_path / "v.zarr", tissue(), voxel_size=(20.0, 20.0, 20.0))
    own = candidate(lambda r: r)
    found = choose_trials(open_image(coarse), (1.0, 0.5, 1.4, 2.0, 4.0), [own])
    assert found == [(1.0, own), (0.5, own), (1.4, own)]


def test_a_slice_too_small_for_a_scale_is_left_out(volume):
    assert try_model(candidate(lambda r: r), open_image(volume), [(4, 130, 150)], 0.1) is None


def options(model, tmp_path, **changes):
    return PreviewOptions(**{"models": (model,), "zooms": (1.0, 0.7), "output": tmp_path / "s.png",
                             "seconds": 1e6, "places": 6, **changes})  # fmt: skip


def test_it_ranks_draws_and_writes_nothing_into_the_volume(volume, model, tmp_path):
    before = {p: p.read_bytes() for p in volume.rglob("*") if p.is_file()}
    report = preview(volume, options(model, tmp_path), NoProgress())
    assert {p: p.read_bytes() for p in volume.rglob("*") if p.is_file()} == before
    scores = [trial.score for trial in report.trials]
    assert scores == sorted(scores, reverse=True)
    assert {trial.zoom for trial in report.trials} == {1.0, 0.7}
    assert report.skipped == 0
    sheet = imagecodecs.png_decode(report.sheet.read_bytes())
    # a row for each place; raw and two trials
    assert len(report.places) == 6
    assert sheet.shape[0] // PANEL == ROWS
    assert sheet.shape[1] // PANEL == 3
    again = preview(volume, options(model, tmp_path), NoProgress())
    assert [t.score for t in again.trials] == scores
    assert again.places == report.places


def spot(picture, text):
    """Find the upper left corners of a text in a picture of black letters on white."""
    drawn = shape_text(text).repeat(SCALE, 0).repeat(SCALE, 1)
    dark = (picture == 0).all(axis=2)
    windows = sliding_window_view(dark, drawn.shape)[:, ::2]
    return [(int(y), 2 * int(x)) for y, x in np.argwhere((windows == drawn).all(axis=(2, 3)))]


@pytest.mark.parametrize("size", [NM, (30.0, 7.0, 4.0), None])
def test_the_sheet_names_models_places_lengths_and_colours(tmp_path, size):
    path = write_raw(tmp_path / "v.zarr", tissue(), shard=(4, 128, 128), voxel_size=size)
    image, places = open_image(path), [(4, 130, 150), (8, 100, 140)]
    seen = candidate(lambda r: (r < 0).astype(np.float32))
    first, second = (try_model(seen, image, places, zoom) for zoom in (1.0, 2.0))
    long = "/models/a-name-of-more-letters-than-fit.safetensors"
    sheet = compose_sheet(image, seen.tone, [first, replace(second, model=long)],
                          {"own": 0.5, long: 0.5})  # fmt: skip
    top, left = 2 * TALL + 2 * GAP, MARGIN + GAP
    head = sheet[:top]
    assert spot(head, "raw") == [(GAP, left)]
    assert spot(head, "own") == [(GAP, left + PANEL + GAP)]
    assert spot(head, "zoom 1") == [(GAP + TALL, left + PANEL + GAP)]
    assert spot(head, "zoom 2") == [(GAP + TALL, left + 2 * (PANEL + GAP))]
    assert spot(head, shorten(Path(long).stem, PANEL // WIDE)) == [(GAP, left + 2 * (PANEL + GAP))]
    for row, view in enumerate(first.views):
        beside = sheet[top + row * (PANEL + GAP) :][:PANEL, :MARGIN]
        for k, (axis, part) in enumerate(zip("zyx", view.roi, strict=True)):
            assert spot(beside, f"{axis} {(part.start + part.stop) // 2}") == [(k * TALL, GAP)]
        panel = sheet[top + row * (PANEL + GAP) :][:PANEL, left : left + PANEL]
        lengths = (panel[-3 * SCALE] == 255).all(axis=1).sum() / PANEL
        across = view.roi[2].stop - view.roi[2].start
        words, part = count_bar(across) if size is None else choose_bar(across * size[2])
        assert lengths == pytest.approx(part, abs=1 / PANEL)
        assert spot(255 - panel[-(TALL + 7 * SCALE) :], words)
    foot = sheet[top + 2 * PANEL + GAP :]
    # what the network saw at twice the size is a part of what it saw
    for words, colour in (
        ("object, mean probability 0.8 or more", SURE_COLOUR),
        ("object, less than that", DOUBTFUL_COLOUR),
        ("not looked at", (UNSEEN,) * 3),
    ):
        ((y, x),) = spot(foot, words)
        assert tuple(foot[y + SCALE, x - TALL // 2]) == colour


def test_a_volume_of_others_without_histogram_is_previewed_at_once(model, tmp_path):
    path = write_elsewhere(tmp_path / "else.zarr", tissue(), "0.5")
    report = preview(path, options(model, tmp_path, zooms=(1.0,)), NoProgress())
    assert len(report.trials) == 1


def test_without_time_the_first_scale_is_tried_at_least(model, tmp_path):
    volume = write_raw(tmp_path / "v.zarr", tissue(), shard=(4, 128, 128), voxel_size=None)
    report = preview(volume, options(model, tmp_path, seconds=1e-9), NoProgress())
    assert re.search(r"unknown: a zoom of 1 .*\(\w+ \d+ nm\)$", report.notes[0])
    assert [trial.zoom for trial in report.trials] == [1.0]
    assert report.skipped == report.late == 1
    assert "lack of time: 1 trial; a better scale" in describe_report(volume, report)
    unsure = replace(report, sure=False, notes=("the voxel size is unknown",))
    told = describe_report(volume, unsure)
    assert told.endswith("--voxel-size Z,Y,X")
    assert "without the highest score" not in told
    better = replace(unsure.trials[0], agreement=1.0, found=1.0)
    second = describe_report(volume, replace(unsure, trials=(*unsure.trials, better)))
    assert "advised without the highest score" in second
    # slices that nobody annotated are no background
    listed = ",".join(str(z) for z in sorted({z for z, _, _ in report.places}))
    assert f" --slices {listed} " in told


def test_an_empty_volume_and_a_network_of_volumes_are_refused(model, toy_model, volume, tmp_path):
    path = write_raw(tmp_path / "v.zarr", np.full((4, 64, 64), 9, np.uint8))
    with pytest.raises(VolumeError, match=r"holds one value wherever it was looked at"):
        preview(path, options(model, tmp_path), NoProgress())
    with pytest.raises(ParameterError, match="tries networks of slices"):
        preview(volume, options(str(toy_model), tmp_path), NoProgress())
    assert not (tmp_path / "s.png").exists()


def test_what_a_trial_saw_lies_where_it_was(volume):
    """A view of twice the tissue, and one of half of it, both with their left half found."""
    z = slice(3, 4)
    shown = (z, slice(50, 150), slice(100, 200))
    left = np.zeros((64, 64), np.float32)
    left[:, :32] = 1
    wide = View((z, slice(0, 200), slice(50, 250)), left)
    narrow = View((z, slice(75, 125), slice(125, 175)), left)
    found, seen = map_onto(shown, wide, PANEL)
    assert seen.all()
    np.testing.assert_allclose(found.mean(axis=0)[[0, 150, 170, -1]], [1, 1, 0, 0], atol=1e-3)
    found, seen = map_onto(shown, narrow, PANEL)
    assert seen.mean() == pytest.approx(0.25, abs=0.01)
    assert (found > 0.5).mean() == pytest.approx(0.125, abs=0.01)
    assert found[~seen].max() == 0


def test_outlines_surround_objects_and_nothing_else():
    raw = np.full((40, 40, 3), 100, np.uint8)
    found = np.zeros((40, 40), np.float32)
    found[10:30, 10:30] = 0.9
    drawn = outline(raw, found, 0.5)
    changed = (drawn != raw).any(axis=2)
    assert changed[10, 10:30].all()
    assert not changed[15:25, 15:25].any()
    assert not changed[found == 0].any()
    assert (drawn[changed] == SURE_COLOUR).all()


def test_the_command_line_ends_with_what_to_run(volseg, volume, model, tmp_path):
    given = ("--model", model, "--output", tmp_path / "s.png", "--places", 1, "--seconds", 1e-9)
    told = volseg("preview", volume, *given)
    assert told.exit_code == 0, told.output
    assert "contact sheet" in told.stdout
    assert "next: volseg segment" in told.stdout or "volseg train" in told.stdout
    listed = json.loads(volseg("preview", volume, *given, "--json").stdout)
    assert listed["trials"][0]["model"] == model
    assert volseg("preview", volume, "--places", 0).exit_code == 2


def test_a_sheet_that_cannot_be_written_is_refused_before_anything_is_tried(
    volume, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(preview_run, "look_around", lambda *_: pytest.fail("looked around"))
    for output in (tmp_path, tmp_path / "nowhere" / "s.png"):
        with pytest.raises(InputError, match=r"is a folder|there is no folder"):
            preview(volume, options(model, tmp_path, output=output), NoProgress())


def test_the_sheet_lies_beside_the_volume(volume, tmp_path, monkeypatch):
    assert place_sheet(volume, None) == volume.with_name("v-preview.png")
    monkeypatch.chdir(volume)
    assert place_sheet(Path(), None) == volume.with_name("v-preview.png")


@pytest.mark.parametrize("shape", [(1, 70, 300), (5, 80, 64), (200, 64, 64)])
def test_small_volumes_are_looked_at_once_in_each_place(shape, model, tmp_path):
    path = write_raw(tmp_path / "v.zarr", tissue(shape=shape), shard=(4, 64, 64))
    windows = look_around(open_image(path))
    rois = [window_about(w.centre, (192, 192), shape) for w in windows]
    assert len({str(roi) for roi in rois}) == len(rois)
    report = preview(path, options(model, tmp_path), NoProgress())
    assert [trial.zoom for trial in report.trials] == [1.0]
    assert (report.skipped, report.late) == (1, 0)
    assert "too small or too large: 1 trial" in describe_report(path, report)


@pytest.mark.parametrize("shape", [(3, 1, 9), (1, 1, 1), (4, 3, 2)])
def test_volumes_too_small_for_any_scale_are_refused(shape, model, tmp_path):
    raw = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = write_raw(tmp_path / "v.zarr", raw, shard=(4, 16, 16))
    with pytest.raises(VolumeError, match=r"too small or too large for every|holds one value"):
        preview(path, options(model, tmp_path), NoProgress())


def test_values_that_are_not_finite_are_refused(model, tmp_path):
    raw = tissue().astype(np.float32)
    raw[:, 100:160] = np.nan
    path = write_elsewhere(tmp_path / "else.zarr", raw, "0.5")
    with pytest.raises(VolumeError, match="values that are not finite"):
        preview(path, options(model, tmp_path), NoProgress())


@pytest.mark.parametrize(("zoom", "scale"), [(1.05, 1.0), (20.0, 0.2), (0.5, 2.0)])
def test_a_scale_is_the_one_that_segment_takes(volume, zoom, scale):
    """Within a tenth none, and no finer than a fifth of a voxel."""
    trial = try_model(candidate(lambda r: r), open_image(volume), [(4, 130, 150)], zoom)
    (view,) = trial.views
    side = view.roi[1].stop - view.roi[1].start
    assert side / len(view.probabilities) == pytest.approx(scale, rel=0.02)


def test_voxels_that_are_no_squares_are_shown_as_the_network_knows_them(tmp_path):
    path = write_raw(tmp_path / "v.zarr", tissue(), voxel_size=(30.0, 10.0, 5.0), shard=(4, 64, 64))
    trial = try_model(candidate(lambda r: r), open_image(path), [(4, 130, 150)], 1.0)
    (view,) = trial.views
    rows, columns = (s.stop - s.start for s in view.roi[1:])
    assert columns == 2 * rows == len(view.probabilities)


def test_no_scale_reads_more_than_a_window(volume, monkeypatch):
    monkeypatch.setattr(preview_trial, "MOST_READ", 200 * 200)
    image, place = open_image(volume), [(4, 130, 150)]
    assert try_model(candidate(lambda r: r), image, place, 1.0) is None
    assert try_model(candidate(lambda r: r), image, place, 2.0) is not None
