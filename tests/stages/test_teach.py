"""Teach: which voxels are marked, what is learned of them, and what is kept and undone."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from scipy import ndimage
from torch import nn

from toy_stacks import make_stack
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.api.making import apply
from volseg.api.teaching import forget_marks
from volseg.cli.teach import describe_report
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ParameterError, SourceError, VolumeError
from volseg.geometry.grid import full_roi
from volseg.objects.intervals import find_intervals, paint_intervals
from volseg.sources.labels import find_labels
from volseg.sources.points import Point
from volseg.stages.predict.network import PredictOptions
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats
from volseg.stages.teach import judged as judged_module
from volseg.stages.teach import run as teach_run
from volseg.stages.teach.judged import open_judged
from volseg.stages.teach.learn import learn, teaching_recipe
from volseg.stages.teach.lesson import Lesson
from volseg.stages.teach.marks import Said, find_marks
from volseg.stages.teach.run import TeachOptions, TeachReport, teach
from volseg.stages.teach.seeds import Reach, grow_seed
from volseg.stages.teach.show import choose_rows, find_marked, propose_next, propose_section
from volseg.stages.teach.simulate import click
from volseg.stages.train.loop import batch_loss
from volseg.stages.train.state import Start, start_run
from volseg.storage.attributes import update_attributes
from volseg.storage.cards import load_card
from volseg.storage.files import hash_file
from volseg.storage.ledger import locked
from volseg.storage.marks import Mark, Round, load_rounds, notebook_path, save_rounds
from volseg.storage.volumes import Image, labels_path, open_image
from volseg.storage.weights import load_weights
from volseg.training.loader import draw_batch

NAME = "mitochondria"
SHAPE = (8, 64, 80)
ENGINE = EngineOptions(workers=2)
CPU = torch.device("cpu")


def tissue():
    """Bright discs on noise."""
    noise = np.random.default_rng(3).normal(0, 1, SHAPE)
    smooth = ndimage.gaussian_filter(noise, (1, 4, 4))
    return (127 + 55 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A volume with the result of a tiny network, and its weights beside it."""
    folder = tmp_path_factory.mktemp("teach")
    model = write_weights(folder, "unet2d", (8, 64, 64), (0, 16, 16), 2, seed=8)
    volume = write_raw(folder / "vol.zarr", tissue(), shard=(4, 32, 32))
    asked = PredictOptions(str(model), NAME, engine=ENGINE, views="xy")
    segment(plan_segmentation(volume, SegmentOptions(asked, min_size=5)), NoProgress())
    stats(plan_stats(volume, StatsOptions(engine=ENGINE)), NoProgress())
    return volume


@pytest.fixture
def volume(segmented, tmp_path):
    """A copy of it."""
    import shutil

    shutil.copytree(segmented.parent, tmp_path / "here")
    return tmp_path / "here" / segmented.name


@pytest.fixture
def quick(monkeypatch):
    """Make lessons of a few steps."""

    def recipe(card, _minutes, steps):
        made = teaching_recipe(card, 1)
        changed = {
            "minutes": None,
            "steps": steps or 12,
            "patch": (1, 64, 64),
            "learning_rate": 3e-3,
        }
        return replace(made, **changed)

    monkeypatch.setattr(teach_run, "teaching_recipe", recipe)


def read(volume):
    return open_image(labels_path(volume, NAME)).levels[0][full_roi(SHAPE)]


def run(volume, **options):
    return teach(volume, TeachOptions(**options, workers=1), NoProgress())


def keep_marks(volume, **options):
    return run(volume, **options, minutes=0)


def painted(mark):
    into = np.zeros(SHAPE, bool)
    paint_intervals(into, full_roi(SHAPE), mark.spans, SHAPE, 1)
    return into


def files(volume):
    """All files of the volume and beside it, with their content."""
    every = (p for p in volume.parent.rglob("*") if p.is_file() and ".lock" not in p.name)
    return {p: hash_file(p) for p in every}


def largest(labels, count):
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return [int(k) for k in np.argsort(-sizes)[:count]]


def test_a_mark_on_an_object_is_its_voxels_and_a_click_its_section(segmented):
    labels, judged = read(segmented), open_judged(segmented, NAME, None)
    first, second = largest(labels, 2)
    z, y, x = (int(c) for c in np.argwhere(labels == second)[5])
    said = Said([(first, False)], [Point((z, y, x), True, "click")])
    whole, section = find_marks(said, judged, ENGINE)
    np.testing.assert_array_equal(painted(whole), labels == first)
    parts, _ = ndimage.label(labels[z] == second, np.ones((3, 3)))
    np.testing.assert_array_equal(painted(section)[z], parts == parts[y, x])
    assert not np.delete(painted(section), z, 0).any()
    assert (whole.yes, section.yes, section.object) == (False, True, second)
    np.testing.assert_array_equal(painted(replace(section, spans=section.meant)), labels == second)
    kept = sorted({int(k) for k in np.nonzero(labels == first)[0]})[:2]
    (part,) = find_marks(Said([(first, False)], slices=kept), judged, ENGINE)
    expected = (labels == first) & np.isin(np.arange(SHAPE[0]), kept)[:, None, None]
    np.testing.assert_array_equal(painted(part), expected)
    # of a click and of a number in some slices alike, `apply` drops the whole object
    np.testing.assert_array_equal(part.meant, whole.spans)


def test_a_mark_that_is_made_again_means_what_is_there_now(segmented, tmp_path):
    labels, judged = read(segmented), open_judged(segmented, NAME, None)
    first, second = largest(labels, 2)
    z, y, x = (int(c) for c in np.argwhere(labels == first)[5])
    clicks = tmp_path / "no.csv"
    clicks.write_text(f"z,y,x\n{z},{y},{x}\n", encoding="utf-8")
    options = TeachOptions(points=[(clicks, False)], marked_yes=[second])
    (made,) = teach_run._add_round(judged, options, [])
    click, other = sorted(made.marks, key=lambda mark: mark.yes)
    np.testing.assert_array_equal(
        click.meant, find_intervals(labels == first, full_roi(SHAPE), SHAPE)
    )
    # a click of before objects were kept, and a painted region of the same voxels
    for before in (replace(click, whole=click.spans[:0]), Mark(False, "painted", click.spans)):
        kept = [Round((before,), {"labels": "before"}), Round((other,), {})]
        found = teach_run._add_round(judged, options, kept)
        assert [len(entry.marks) for entry in found] == [1, 1]
        np.testing.assert_array_equal(found[0].marks[0].meant, click.meant)
        assert (found[0].made_on, found[1]) == (kept[0].made_on, kept[1])
    assert teach_run._add_round(judged, options, [made]) == [made]


def test_a_seed_stays_near_the_click_and_out_of_objects():
    rng = np.random.default_rng(1)
    probabilities = (ndimage.gaussian_filter(rng.random((80, 90)), 3) * 255).astype(np.uint8)
    free, at, reach = rng.random((80, 90)) > 0.1, (40, 30), Reach((2, 3), (15, 20))
    free[at] = True
    seed = grow_seed(probabilities, free, at, reach)
    assert seed[at]
    assert not seed[~free].any()
    y, x = np.nonzero(seed)
    assert (((y - 40) / 15) ** 2 + ((x - 30) / 20) ** 2 <= 1).all()
    assert ndimage.label(seed)[1] == 1
    dark = grow_seed(np.zeros_like(probabilities), free, at, reach)
    y, x = np.nonzero(dark)
    assert (((y - 40) / 2) ** 2 + ((x - 30) / 3) ** 2 <= 1).all()


class Free(nn.Module):
    """Stands for a network: each voxel has a logit of its own."""

    def __init__(self, shape):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(shape))

    def forward(self, _):
        return self.logits


def test_an_ignored_voxel_has_no_gradient(segmented, quick):
    judged = open_judged(segmented, NAME, None)
    config = teach_run.teaching_recipe(judged.card, 1, None)
    eye = teach_run._open_eye(judged, config, "cpu")
    said = Said([(n, k == 0) for k, n in enumerate(largest(read(segmented), 3))])
    lesson = Lesson(eye, find_marks(said, judged, ENGINE), [(4, 32, 40)])
    old = start_run(config, None, CPU, eye.precision).averaged
    seen = set()
    for sources in (lesson.show_marks(), lesson.remember(old)):
        for step in range(12):
            batch = draw_batch(sources, config, step, centerline=False)
            state = start_run(config, None, CPU, eye.precision)
            state.network = Free((1, 1, 64, 64))
            loss = batch_loss(state, batch)
            loss.backward()
            gradient, target = state.network.logits.grad[0], batch[1][0, 0]
            known = target >= 0
            assert not gradient[0][~known[0]].any()
            if known.any():
                signs = torch.sign(gradient[0][known[0]])
                torch.testing.assert_close(signs, 1 - 2 * target[0][known[0]])
            seen |= set(target.unique().tolist())
    assert seen == {-1.0, 0.0, 1.0}


def test_what_the_old_network_is_sure_of_is_remembered_and_marks_come_first(segmented, quick):
    judged = open_judged(segmented, NAME, None)
    eye = teach_run._open_eye(judged, teach_run.teaching_recipe(judged.card, 1, None), "cpu")
    (mark,) = find_marks(Said([(largest(read(segmented), 1)[0], False)]), judged, ENGINE)
    place = tuple(int(c) for c in np.argwhere(painted(mark))[0])

    class Says(nn.Module):
        def __init__(self, logit):
            super().__init__()
            self.logit = nn.Parameter(torch.tensor(float(logit)))

        def forward(self, raw):
            return self.logit.expand(raw.shape)

    lesson = Lesson(eye, [mark], [place])
    for logit, expected in ((5, 1), (-5, 0), (1, -1), (-1, -1)):
        (source,) = lesson.remember(Says(logit))
        roi = eye.window(place)
        inside = painted(mark)[roi]
        assert (source.labels[inside] == 0).all()
        assert (source.labels[~inside] == expected).all()


def test_the_sheet_draws_the_largest_sections_of_no_and_yes_by_turns():
    shape, rows, wide = (20, 8, 8), np.array([2, 3]), np.array([1, 3, 5, 2])

    def mark(yes, first, widths):
        runs = [(z * 64 + y * 8, n) for z, n in enumerate(widths, first) for y in rows]
        return Mark(yes, "object", np.array([(start, start + n) for start, n in runs]))

    no = [mark(False, 1, wide), mark(False, 5, wide[::-1])]
    yes = [mark(True, z, [1]) for z in range(9, 19)]
    expected = [(3, 3, 2), (9, 3, 0), (6, 3, 2), *((z, 3, 0) for z in range(10, 15))]
    assert choose_rows([*yes, *no], shape) == expected
    assert choose_rows(no, shape) == [(3, 3, 2), (6, 3, 2)]


def test_marks_become_weights_that_segment(volume, quick):
    labels = read(volume)
    no, *_ = largest(labels, 1)
    report = run(volume, marked_no=[no])
    assert report.weights == volume.parent / "vol-taught-1.safetensors"
    assert (report.marked_no, report.marked_yes, report.steps) == (1, 0, 12)
    assert report.after[0] < report.before[0]
    assert math.isnan(report.before[1])
    assert report.sheet is not None
    assert report.sheet.stat().st_size > 1000
    assert len(report.suspects) > 0
    assert no not in {s.object for s in report.suspects}
    card, parent = load_card(report.weights), load_card(report.parent)
    assert card.sha256 == hash_file(report.weights) != parent.sha256
    assert card.training["from"] == {"name": "toy", "sha256": parent.sha256}
    assert card.training["data"]["marks"][0].startswith(f"no: object {no}, ")
    assert (card.threshold, card.scores) == (parent.threshold, {})
    assert (card.training["strength"], report.strength) == (0.6, 0.6)
    told = describe_report(volume, NAME, replace(report, seconds=3))
    assert "12 steps from toy, 60% of the change is kept" in told
    few = "12 steps may teach little: the same command with --steps 1310, as was measured, "
    assert f"{few}takes less than 6 min here" in told
    assert "may teach little" not in describe_report(volume, NAME, replace(report, steps=400))
    asked = PredictOptions(str(report.weights), NAME, engine=ENGINE, views="xy", overwrite=True)
    segment(plan_segmentation(volume, SegmentOptions(asked, min_size=5)), NoProgress())
    # the next round starts from these, with the marks of both, whose objects have other numbers
    far = ndimage.distance_transform_edt(labels != no) * (read(volume) == 0)
    free = np.unravel_index(far.argmax(), SHAPE)
    clicks = volume.parent / "clicks.csv"
    clicks.write_text(f"z,y,x\n{','.join(map(str, free))}\n", encoding="utf-8")
    again = run(volume, points=[(clicks, True)])
    assert again.parent == str(report.weights)
    assert (again.marked_no, again.marked_yes) == (1, 1)
    assert again.weights.name == "vol-taught-2.safetensors"
    first, second = load_rounds(volume, NAME, SHAPE)
    np.testing.assert_array_equal(painted(first.marks[0]), labels == no)
    assert first.made_on["weights"] == parent.sha256
    assert second.made_on["weights"] == card.sha256


def test_strength_says_how_much_of_the_change_is_kept(segmented, quick):
    judged = open_judged(segmented, NAME, None)
    config = teach_run.teaching_recipe(judged.card, None, 4)
    marks = find_marks(Said([(largest(read(segmented), 1)[0], False)]), judged, ENGINE)
    lesson = Lesson(teach_run._open_eye(judged, config, "cpu"), marks, [(4, 32, 40)])
    start = Start(judged.card, load_weights(judged.model, judged.card))
    taught = [learn(lesson, config, start, 1, part, lambda _: None)[0] for part in (1.0, 0.25)]
    (old, whole), (_, part) = taught
    for name, tensor in part.state_dict().items():
        was, became = old.state_dict()[name], whole.state_dict()[name]
        expected = was + (became - was) * 0.25
        torch.testing.assert_close(tensor, expected.to(tensor.dtype))
    found = [lesson.measure(network, judged.threshold)[0] for network in (old, part, whole)]
    assert found[0] >= found[1] >= found[2] < found[0]


def test_the_next_command_has_the_rules_of_the_result(volume):
    import volseg

    rules = {"seed_threshold": 0.6, "connectivity": 6, "min_size": 9, "fill_holes": True}
    volseg.label(volume, **rules, threshold=0.5, overwrite=True, workers=1)
    judged = open_judged(volume, NAME, None)
    assert judged.options() == {"threshold": 0.5, **rules}
    inverted = replace(judged, run={**judged.run, "invert": True}).options()
    assert inverted == {**judged.options(), "invert": True}
    flips = replace(judged, run={**judged.run, "averaged": [True, True, "xz"]}).options()
    assert flips == {**judged.options(), "tta": True, "rotations": True, "views": "xz"}
    given = {**inverted, "zoom": 2.0}
    rule = "darkness>0.4"
    nothing = (0, 0), (0, 0), 1, 0.6, None, ()
    said = TeachReport(volume, "unet2d", 0, 1, *nothing, None, rule, given, 1)
    assert f"volseg apply {volume} --keep 'darkness>0.4'" in describe_report(volume, NAME, said)
    after, then = describe_report(volume, NAME, said).splitlines()[-2:]
    assert after.endswith(
        " --threshold 0.5 --seed-threshold 0.6 --connectivity 6 --min-size 9 --fill-holes "
        f"--invert --zoom 2.0 --overwrite --name {NAME}-taught"
    )
    assert then.endswith(f": volseg apply {volume} --confirmed-by {NAME}-taught --overwrite")
    told = describe_report(volume, NAME, replace(said, marked_no=2))
    assert told.endswith(f"volseg apply {volume} --marks --overwrite")


@pytest.mark.parametrize("source", ["zarr3://https://host/vol.zarr", "python://volume/1"])
def test_clicks_in_a_volume_that_lies_elsewhere_mark_what_was_seen(volume, source):
    group = zarr.open_group(volume)
    ome = group.attrs["ome"]
    (first, *_), origin = ome["multiscales"][0]["datasets"], (8, 3, 20)
    size = open_image(volume).voxel_size
    moved = [o * s for o, s in zip(origin, size, strict=True)]
    first["coordinateTransformations"][1:] = [{"type": "translation", "translation": moved}]
    ome["multiscales"][0]["datasets"] = [first]
    group.attrs["ome"] = ome
    labels = read(volume)
    (number,) = largest(labels, 1)
    place = np.argwhere(labels == number)[0] + (0.5 if "python" in source else np.array(origin))
    said = {"type": "point", "id": "1", "point": place[::-1].tolist()}
    shown = [
        {"type": "image", "name": "raw", "source": source},
        {"type": "annotation", "name": "no", "annotations": [said]},
    ]
    axes = {a: [s * 1e-9, "m"] for a, s in zip("zyx", size, strict=True)}
    file = volume.parent / "state.json"
    file.write_text(json.dumps({"dimensions": dict(reversed(axes.items())), "layers": shown}))
    keep_marks(volume, points=[(file, None)])
    (entry,) = load_rounds(volume, NAME, SHAPE)
    assert [mark.object for mark in entry.marks] == [number]


def test_slices_that_were_taken_as_images_are_taught_as_such(volume, quick, volseg):
    model = next(volume.parent.glob("*.safetensors"))
    again = ["--overwrite", "--views", "xy", "--min-size", "5", "--workers", "1"]
    done = volseg("segment", volume, "--images", "--model", model, *again)
    assert done.exit_code == 0, done.output
    judged = open_judged(volume, NAME, None)
    assert judged.options()["images"] is True
    eye = teach_run._open_eye(judged, teaching_recipe(judged.card, 1), "cpu")
    assert eye.tone.images
    report = run(volume, marked_no=[largest(read(volume), 1)[0]], steps=2)
    next_one = next(s for s in describe_report(volume, NAME, report).splitlines() if "next:" in s)
    assert " --images " in next_one


def test_a_click_beyond_a_smaller_image_is_refused(volume):
    sizes = [[64, 80]] * (SHAPE[0] - 1) + [[40, 50]]
    names = [f"{z}.tif" for z in range(SHAPE[0])]
    update_attributes(volume, {"images": {"sizes": sizes, "names": names}})
    (y, x), z = np.argwhere(read(volume)[-1, 45:, 60:] == 0)[0] + (45, 60), SHAPE[0] - 1
    clicks = volume.parent / "clicks.csv"
    clicks.write_text(f"z,y,x\n{z},{y},{x}\n")
    with pytest.raises(ParameterError, match=r"outside of image 7, which has \(40, 50\) pixels"):
        keep_marks(volume, points=[(clicks, True)])
    clicks.write_text(f"z,y,x\n0,{y},{x}\n")
    assert read(volume)[0, y, x] or keep_marks(volume, points=[(clicks, True)]).marked_yes == 1


def test_what_lies_below_the_threshold_is_not_taught_but_dropped(volume, quick):
    import volseg

    volseg.label(volume, threshold=0.5, complement=True, overwrite=True, workers=1, min_size=5)
    (number,) = largest(read(volume), 1)
    before = files(volume)
    with pytest.raises(ParameterError, match="marks teach what is above it; give --minutes 0"):
        run(volume, marked_no=[number], steps=2)
    assert files(volume) == before
    assert keep_marks(volume, marked_no=[number]).marked_no == 1
    assert apply(volume, marks=True).objects == read(volume).max() - 1


def test_a_lesson_keeps_the_weights_of_one_that_ended_meanwhile(volume, quick, monkeypatch):
    other, learn_on = volume.parent / "vol-taught-1.safetensors", teach_run.learn

    def meanwhile(*given):
        other.write_bytes(b"other")
        return learn_on(*given)

    monkeypatch.setattr(teach_run, "learn", meanwhile)
    (number,) = largest(read(volume), 1)
    report = run(volume, marked_no=[number], steps=2)
    assert report.weights.name == "vol-taught-2.safetensors"
    assert report.sheet.name == "vol-taught-2.png"
    assert other.read_bytes() == b"other"


def test_each_rule_that_the_next_command_may_repeat_is_a_flag_of_segment(volseg, volume):
    given = {"threshold": 0.5, "seed_threshold": 0.6, "invert": True, "zoom": 2.0, "views": "xz"}
    given |= {"tta": True, "rotations": True, "images": True}
    given |= dict.fromkeys(judged_module.RULES, 8) | {"fill_holes": True, "split": "distance"}
    given |= {"min_probability": 0.5}
    nothing = (0, 0), (0, 0), 1, 0.6, None, (), None, None
    report = TeachReport(volume, "unet2d", 0, 1, *nothing, given, 1)
    (line,) = (s for s in describe_report(volume, NAME, report).splitlines() if "next:" in s)
    asked = shlex.split(line)
    assert "--median" in asked
    flags = {word for word in asked if word.startswith("--")}
    assert flags <= set(volseg("segment", "--help").output.split())


def asks_for(mean, faint):
    """Load cards that ask objects of up to so many voxels for a mean probability."""
    return lambda model: replace(load_card(model), min_probability=mean, faint_size=faint)


def test_the_next_command_takes_nothing_that_an_earlier_card_did_not_ask_for(volume, monkeypatch):
    """The card asks for a mean since the result was made, and that of what is taught will too."""
    probabilities = open_judged(volume, NAME, None).probabilities
    assert probabilities.attributes["model"]["min_probability"] == 0
    before = open_judged(volume, NAME, None).options()
    monkeypatch.setattr(judged_module, "load_card", asks_for(0.65, 99))
    assert open_judged(volume, NAME, None).options() == {**before, "min_probability": 0.0}


def test_no_size_is_told_of_a_mean_that_is_not_asked_for(volume, monkeypatch):
    """A model asks objects of up to 99 voxels for a mean of 0.8; its user asks none."""
    import volseg

    monkeypatch.setattr(judged_module, "load_card", asks_for(0.8, 99))
    probabilities = open_judged(volume, NAME, None).probabilities
    size = list(probabilities.space.voxel_size or (5, 5, 5))
    model = {"min_probability": 0.8, "faint_size": 99, "voxel_size": size}
    update_attributes(probabilities.path, {"model": probabilities.attributes["model"] | model})
    for given, told in (
        ({"min_probability": 0}, {"min_probability": 0.0}),
        ({"min_probability": 0.7}, {"min_probability": 0.7}),
        ({"min_probability": 0.7, "faint_size": 9}, {"min_probability": 0.7, "faint_size": 9}),
        ({"faint_size": 9}, {"faint_size": 9}),
        ({}, {}),
    ):
        volseg.label(volume, **given, threshold=0.5, min_size=9, overwrite=True, workers=1)
        found = open_judged(volume, NAME, None).options()
        assert found == {"threshold": 0.5, "min_size": 9, **told}


def test_forgetting_restores_what_was_there(volume):
    first, second = largest(read(volume), 2)
    assert keep_marks(volume, marked_no=[first]).weights is None
    before = hash_file(notebook_path(volume, NAME))
    keep_marks(volume, marked_yes=[second])
    assert forget_marks(volume) == (1, 1)
    assert hash_file(notebook_path(volume, NAME)) == before
    assert forget_marks(volume) == (1, 0)
    assert not notebook_path(volume, NAME).exists()
    with pytest.raises(ParameterError, match="nothing to forget"):
        forget_marks(volume)


def test_marked_objects_are_dropped_from_any_result_of_the_volume(volseg, volume):
    refused = volseg("apply", volume, "--marks")
    assert (refused.exit_code, "holds no marks that say no" in refused.stderr) == (2, True)
    labels, judged = read(volume), open_judged(volume, NAME, None)
    first, second, third = largest(labels, 3)
    at = {n: tuple(int(c) for c in np.argwhere(labels == n)[5]) for n in (first, second)}
    said = Said([(third, True)], [Point(at[first], False, "a"), Point(at[second], False, "b")])
    marks = find_marks(said, judged, ENGINE)
    both = replace(marks[2], yes=True, spans=marks[2].spans[:1])
    save_rounds(volume, NAME, [Round((*marks, both), judged.made_on)], SHAPE)
    kept = load_rounds(volume, NAME, SHAPE)[0].marks
    assert all(np.array_equal(a.meant, b.meant) for a, b in zip(kept, (*marks, both), strict=True))
    done = volseg("apply", volume, "--marks", "--workers", "1")
    assert done.exit_code == 0, done.output
    # what is marked both ways stays
    of = 100 * (labels == first).sum() / np.count_nonzero(labels)
    assert "objects dropped that are marked as none: 1 (" in done.output
    assert f", {of:.2f}% of the foreground)" in done.output
    assert "no object is left" not in done.output
    found = open_image(labels_path(volume, f"{NAME}-marked"))
    np.testing.assert_array_equal(
        found.levels[0][full_roi(SHAPE)], np.where(labels == first, 0, labels)
    )
    assert found.attributes["corrections"]["rules"] == {
        "marks": {"objects": 1, "voxels": (labels == first).sum()}
    }
    # parts that another threshold leaves of the object have other numbers, and go, too
    volseg("label", volume, "--threshold", "0.6", "--min-size", "1", "--overwrite")
    refused = volseg("apply", volume, "--marks", "--workers", "1")
    assert (refused.exit_code, "give --overwrite" in refused.stderr) == (2, True)
    apply(volume, corrections={"delete": [int(read(volume).max())]}, workers=1)
    by_hand = files(labels_path(volume, f"{NAME}-corrected") / "0")
    assert volseg("apply", volume, "--marks", "--overwrite", "--workers", "1").exit_code == 0
    assert files(labels_path(volume, f"{NAME}-corrected") / "0") == by_hand
    again = open_image(labels_path(volume, f"{NAME}-marked")).levels[0][full_roi(SHAPE)]
    fragments = read(volume)
    assert fragments[labels == first].any()
    np.testing.assert_array_equal(again, np.where(labels == first, 0, fragments))


def test_what_marks_leave_is_told(volseg, volume):
    """Under half, yes of as many, and nothing at all."""
    labels, judged = read(volume), open_judged(volume, NAME, None)
    (first,) = largest(labels, 1)
    spans = find_intervals(labels == first, full_roi(SHAPE), SHAPE)
    part, yes = Mark(False, "part", spans[: len(spans) // 4]), Mark(True, "yes", spans, first)
    for marks, message in (
        ([part], "marks cover less than half of 1, and 0 have as many"),
        ([replace(yes, yes=False), yes], "marks cover less than half of 0, and 1 have"),
        ([replace(yes, yes=False), yes], "1 have as many voxels marked yes as no"),
    ):
        save_rounds(volume, NAME, [Round(tuple(marks), judged.made_on)], SHAPE)
        done = volseg("apply", volume, "--marks", "--workers", "1")
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
        assert not labels_path(volume, f"{NAME}-marked").exists()
    for flags, message in (
        (["--keep", "voxels>9"], "give either --corrections or --keep or --marks"),
        (["--output-name", NAME], "stay as they are"),
        (["--name", "others"], "has no labels/others"),
    ):
        before = files(volume)
        done = volseg("apply", volume, "--marks", *flags)
        assert (done.exit_code, message in " ".join(done.stderr.split())) == (2, True)
        assert files(volume) == before
    every = find_intervals(labels > 0, full_roi(SHAPE), SHAPE)
    save_rounds(volume, NAME, [Round((Mark(False, "all", every),), judged.made_on)], SHAPE)
    done = volseg("apply", volume, "--marks", "--workers", "1")
    assert (done.exit_code, "no object is left in" in done.output) == (0, True)


def test_marks_alone_are_kept_once_and_counted_again(volume):
    first, *_ = largest(read(volume), 1)
    with pytest.raises(ParameterError, match="nothing is marked"):
        keep_marks(volume)
    keep_marks(volume, marked_no=[first])
    assert keep_marks(volume).marked_no == 1
    assert len(load_rounds(volume, NAME, SHAPE)) == 1
    with pytest.raises(ParameterError, match="no weights or sheet are written"):
        keep_marks(volume, output=volume.parent / "own.safetensors")


def test_the_same_marks_again_count_once(volume):
    first, second = largest(read(volume), 2)
    keep_marks(volume, marked_no=[first])
    assert keep_marks(volume, marked_no=[first]).marked_no == 1
    assert len(load_rounds(volume, NAME, SHAPE)) == 1
    assert keep_marks(volume, marked_no=[first, second]).marked_no == 2


def test_the_next_suspects_are_the_largest_that_are_like_what_is_marked_no():
    # two kinds, told apart by how sure the network was; the marked ones are among neither's largest
    sizes, sure = [20, 90, 80, 70, 15, 60, 50], [0.9, 0.9, 0.9, 0.9, 0.6, 0.6, 0.6]
    table = {
        "label": np.arange(1, 8),
        "voxels": np.array(sizes),
        "probability_mean": np.array(sure),
    }
    table |= {f"centroid_{axis}": np.zeros(7) for axis in "zyx"}
    mark = [Mark(False, "", np.zeros((0, 2), np.int64), 5), Mark(True, "", np.zeros((0, 2)), 1)]
    found = propose_next(table, *find_marked(table, [mark]))
    assert [entry.object for entry in found][:2] == [6, 7]
    assert {entry.object for entry in found} == {2, 3, 4, 6, 7}
    assert found[0].reasons[0].endswith("% like what is none")
    assert found[0].size == "60 voxels"
    image = Image(Path("vol.zarr"), (), (), (50.0, 10.0, 10.0))
    assert propose_next(table, *find_marked(table, [mark]), image)[0].size == "0.0003 µm³"
    flat = replace(image, space=replace(image.space, planar=True))
    assert propose_next(table, *find_marked(table, [mark]), flat)[0].size == "0.006 µm²"
    assert propose_next(table, np.ones(7, bool), np.zeros(7, bool)) == ()
    both = [*mark, replace(mark[0], yes=True)]
    assert not find_marked(table, [both])[0].any()


def test_two_do_not_teach_at_once(volume):
    with locked(volume / ".volseg" / f"teach-{NAME}.lock"), pytest.raises(ConflictError):
        run(volume, marked_no=[1])


def test_the_truth_clicks_on_what_is_wrong(volume):
    labels = read(volume)
    no, missed = largest(labels, 2)
    truth = np.where(np.isin(labels, [no, missed]), 0, labels > 0).astype(np.uint8)
    truth[2:7, 3:9, 3:9] = 1
    labels_at = write_raw(volume.parent / "truth.zarr", truth, shard=(4, 32, 32))
    report = keep_marks(volume, simulate=str(labels_at), slices=[3, 5])
    (only,) = load_rounds(volume, NAME, SHAPE)
    assert report.marked_no > 0
    for mark in only.marks:
        where = painted(mark)
        assert set(np.nonzero(where)[0].tolist()) <= {3, 5}
        assert mark.yes or set(np.unique(labels[where]).tolist()) <= {no, missed}
        assert not mark.yes or truth[where].any()


def test_an_image_does_not_click_in_place_of_the_truth(volume):
    greys = write_raw(volume.parent / "greys.zarr", make_stack(SHAPE), shard=(4, 32, 32))
    for given in ({"simulate": str(greys)}, {"painted": str(greys)}):
        with pytest.raises(VolumeError, match="holds grey values"):
            keep_marks(volume, **given)


def test_the_truth_that_clicks_may_be_slices_within_pixels(volume):
    truth = (read(volume) == 0).astype(np.uint8)
    within = volume.parent / "within.tif"
    samples = np.ascontiguousarray(truth.transpose(1, 2, 0))
    tifffile.imwrite(within, samples, photometric="rgb", planarconfig="contig")
    with pytest.raises(SourceError, match="--axes YXZ"):
        keep_marks(volume, simulate=str(within), slices=[3])
    assert keep_marks(volume, simulate=str(within), slices=[3], axes="YXZ").marked_no > 0
    with pytest.raises(ParameterError, match="none are"):
        keep_marks(volume, marked_no=[1], axes="YXZ")


def test_the_truth_clicks_within_the_region_that_was_segmented(volume):
    labels = open_judged(volume, NAME, None).labels
    true = write_raw(volume.parent / "truth.zarr", np.zeros(SHAPE, np.uint8) + 1, shard=(4, 32, 32))
    region = slice(4, 8), slice(10, 64), slice(20, 70)
    clicks = click(replace(labels, region=region), find_labels(open_image(volume), str(true)), None)
    assert {point.place[0] for point in clicks if point.yes} <= {4, 6, 7}
    for point in clicks:
        assert all(s.start <= c < s.stop for s, c in zip(region, point.place, strict=True))
    with pytest.raises(ParameterError, match="has the slices 4 to 7, found 3"):
        click(replace(labels, region=region), labels, [3])


def test_a_click_outside_of_the_region_that_was_segmented_is_refused(volume):
    judged = open_judged(volume, NAME, None)
    z, y, x = np.argwhere(read(volume) == 0)[0].tolist()
    part = replace(judged.labels, region=(slice(z + 1, SHAPE[0]), slice(0, 64), slice(0, 64)))
    said = Said((), [Point((z, y, x), True, "row 1")], None, None)
    assert find_marks(said, judged, ENGINE)
    with pytest.raises(ParameterError, match="which is all that was segmented"):
        find_marks(said, replace(judged, labels=part), ENGINE)


def test_a_largest_section_is_proposed_where_it_tells_marks_apart():
    def mark(yes, voxels):
        return Mark(yes, "", np.array([[0, voxels], [200, 205]]), 1)

    small = [mark(True, n) for n in (10, 12, 15, 20, 25)]
    large = [mark(False, n) for n in (100, 120, 140, 150, 190)]
    found = propose_section(small + large, (2, 10, 20), (50, 10, 10))
    assert found == pytest.approx(math.sqrt(25 * 100) * 1e-4, rel=0.05)
    assert propose_section([*small, *large, mark(False, 15)], (2, 10, 20), (50, 10, 10)) is None
    assert propose_section(small + large, (2, 10, 20), None) is None
    assert propose_section(small + large[:4], (2, 10, 20), (50, 10, 10)) is None


BAD = [
    (["--not", "9999"], "there is no object 9999: the result has"),
    (["--not", "0"], "there is no object 0"),
    (["--not", "1", "--yes", "1"], "contradict each other: --yes and --not both name 1"),
    (["--points", "no={outside}"], "lies outside of the volume"),
    (["--points", "no={nothing}"], "says no where nothing was found"),
    (["--points", "yes={inside}", "--not", "{object}"], "contradict each other"),
    (["--points", "{inside}"], "has no column 'mark'"),
    (["--points", "yes={missing}"], "cannot read points"),
    (["--painted", "{painted}"], "paints nothing"),
    (["--painted", "{odd}"], "odd.tif holds the value 3: 1 stands for none, 2 for a"),
    (["--not", "1", "--slices", "9999"], "has no object 1 in the slices of --slices"),
    (["--simulate", "mitochondria"], "nothing is false or missed"),
    ([], "nothing is marked"),
    (["--not", "1", "--minutes", "-1"], "minutes must be 0 or more"),
    (["--not", "1", "--strength", "0"], "strength must be above 0, and 1 at most"),
    (["--not", "1", "--model", "unet2d"], "did not make the result"),
    (["--not", "1", "--output", "{volume}"], "weights end in .safetensors"),
    (["--not", "1", "--output", "{missing}/x.safetensors"], "there is no folder"),
    (["--not", "1", "--output", "{card}"], "x.json exists; choose another --output"),
    (["--not", "1", "--name", "others"], "has no labels/others"),
    (["--forget"], "nothing to forget"),
    (["--forget", "--not", "1"], "takes no others"),
]


@pytest.mark.parametrize(("flags", "message"), BAD)
def test_bad_marks_end_with_a_message_and_change_nothing(volseg, volume, tmp_path, flags, message):
    labels = read(volume)
    inside, nothing = (np.argwhere(labels > 0)[0], np.argwhere(labels == 0)[0])
    places = {"inside": inside, "nothing": nothing, "outside": (3, 40, SHAPE[2])}
    named = {"volume": volume, "missing": tmp_path / "missing.csv"}
    named["object"] = labels[tuple(inside)]
    named["card"] = tmp_path / "x.safetensors"
    named["card"].with_suffix(".json").write_text("{}", encoding="utf-8")
    for name, place in places.items():
        named[name] = tmp_path / f"{name}.csv"
        row = ",".join(map(str, place))
        named[name].write_text(f"axis-0,axis-1,axis-2\n{row}\n", encoding="utf-8")
    blank = np.zeros(SHAPE, np.uint8)
    named["painted"] = write_raw(tmp_path / "painted.zarr", blank, shard=(4, 32, 32))
    named["odd"], blank[:2, :2] = tmp_path / "odd.tif", [[[1]], [[3]]]
    tifffile.imwrite(named["odd"], blank)
    before = files(volume)
    done = volseg("teach", volume, *(flag.format(**named) for flag in flags))
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert "--labels" not in done.stderr  # which teach has not
    assert files(volume) == before


def test_corrected_labels_are_not_taught_and_it_says_which_are(volume):
    update_attributes(labels_path(volume, NAME), {"corrections": {"uncorrected": "first"}})
    with pytest.raises(ParameterError, match=r"volseg teach .* --name first"):
        open_judged(volume, NAME, None)


def test_a_contradiction_with_earlier_marks_is_refused(volseg, volume, quick):
    (first,) = largest(read(volume), 1)
    done = volseg("teach", volume, "--not", f"{first}", "--minutes", "0", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["marked_no"], told["weights"], told["steps"]) == (1, None, 0)
    before = files(volume)
    done = volseg("teach", volume, "--yes", f"{first}")
    assert done.exit_code == 2
    assert "contradict each other" in done.stderr
    assert files(volume) == before
    done = volseg("teach", volume, "--forget")
    assert done.stdout == "1 mark dropped, 0 left\n"
    done = volseg("teach", volume, "--yes", f"{first}", "--workers", "1")
    assert done.exit_code == 0, done.output
    after, then = done.stdout.splitlines()[-2:]
    for line in (after, then):
        _, *argv = shlex.split(line[line.index("volseg ") :])
        kept = volseg(*argv, "--workers", "1")
        # weights that say yes of what was found may confirm all of it
        assert kept.exit_code == 0 or "there is nothing to drop" in kept.output, kept.output
    assert (volume / "labels" / f"{NAME}-taught").is_dir()
