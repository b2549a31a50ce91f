"""Objects that rules dropped are counted and measured once, and told of wherever labels are."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, ParameterError
from volseg.geometry.grid import full_roi
from volseg.objects.dropped import RULES, DroppedObjects
from volseg.stages.label import tasks
from volseg.stages.label.again import recorded_rules
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.rules import describe_rules
from volseg.stages.label.run import label, report_on
from volseg.stages.report.methods import describe_methods
from volseg.storage.arrays import ArraySpec
from volseg.storage.attributes import update_attributes
from volseg.storage.ome import space_of
from volseg.storage.results import dropped_from
from volseg.storage.tables import read_columns
from volseg.storage.volumes import (
    create_image,
    labels_path,
    open_image,
    probabilities_path,
    table_path,
)

SHAPE, NAME, SIZE = (16, 60, 50), "mitochondria", (20.0, 5.0, 5.0)
RULED = {
    "threshold": 128 / 255,
    "min_size": 20,
    "seed_threshold": 140 / 255,
    "max_volume_um3": 340 * 5e-7,
    "max_section_um2": 100 * 25e-6,
    "min_probability": 0.54,
}


@pytest.fixture(scope="module")
def probabilities():
    rng = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), (1, 2.5, 2.5))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.clip(smooth * 200, 0, 255).astype(np.uint8)


def write_volume(path, probabilities, size=SIZE, model=None, *, planar=False):
    spec = ArraySpec(SHAPE, "uint8", (8, 32, 32), (8, 32, 32))
    space = replace(space_of(size), planar=planar)
    model = {"threshold": 0.5} | (model or {})
    run = {"roi": [[0, n] for n in SHAPE]}
    attributes = {"complete": True, "fingerprint": "test", "run": run, "model": model}
    create_image(path, spec, space, attributes={})
    found = create_image(probabilities_path(path, NAME), spec, space, attributes=attributes)
    found.levels[0].write(full_roi(SHAPE), probabilities)
    return path


def options(block=None, **rules):
    engine = EngineOptions(workers=1)
    return LabelOptions(block=block, shard=(8, 32, 32), engine=engine, **rules)


def made(volume, block=None, **rules):
    return label(plan_labels(volume, NAME, options(block, overwrite=True, **rules)), NoProgress())


def by_scipy(probabilities, without=None):
    """Count, on the whole, what each rule but one drops of what those before it have left."""
    whole, count = ndimage.label(probabilities >= 128, np.ones((3, 3, 3)))
    sizes = np.bincount(whole.ravel(), minlength=count + 1)[1:]
    each = np.arange(1, count + 1)
    sections = np.max([np.bincount(z.ravel(), minlength=count + 1)[1:] for z in whole], axis=0)
    beyond = {
        "min_size": sizes < 20,
        "seed_threshold_of_255": ndimage.maximum(probabilities, whole, each) < 140,
        "max_volume_um3": sizes > 340,
        "max_section_um2": sections > 100,
        "min_probability": ndimage.mean(probabilities, whole, each) < 0.54 * 255,
    }
    left, found = np.ones(count, bool), {}
    for rule, gone in beyond.items():
        if rule == without:
            continue
        voxels = sizes[left & gone].tolist()
        found[rule] = {"objects": len(voxels), "voxels": sum(voxels), "largest": max(voxels)}
        left &= ~gone
    kept = sorted(sizes[left].tolist())
    return found, {"voxels": sum(kept), "median": kept[(len(kept) - 1) // 2]}


@pytest.mark.parametrize("split", ["none", "distance"])
@pytest.mark.parametrize("block", [(8, 32, 32), (16, 32, 64), None])
def test_each_rule_counts_what_it_drops_for_any_blocks(tmp_path, probabilities, block, split):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    report = made(volume, block, split=split, **RULED)
    noted = open_image(labels_path(volume, NAME)).attributes
    assert (noted["dropped"], noted["kept_objects"]) == by_scipy(probabilities)
    assert list(noted["dropped"]) == list(RULES)
    assert list(report.dropped) == list(RULES)
    for rule, found in report.dropped.items():
        assert found["volume_um3"] == pytest.approx(found["voxels"] * 5e-7)
        assert noted["dropped"][rule].items() <= found.items()
    assert len([n for n in report.notes if n.startswith("objects dropped")]) == len(RULES)


def without(volseg, note):
    """Run the command that a note suggests; return its words and the labels that it makes."""
    words = shlex.split(note.partition("; without this rule: `")[2].rstrip("`"))
    done = volseg(*words[1:])
    assert done.exit_code == 0, done.output
    image = open_image(labels_path(Path(words[2]), NAME))
    return words, image.levels[0][:], image.attributes


def test_the_command_without_a_rule_finds_what_the_others_leave(tmp_path, probabilities, volseg):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    for rule, note in zip(RULES, made(volume, **RULED).notes, strict=True):
        _, labels, noted = without(volseg, note)
        assert (noted["dropped"], noted["kept_objects"]) == by_scipy(probabilities, rule)
        others = {k: v for k, v in RULED.items() if k != rule.removesuffix("_of_255")}
        made(volume, **others)
        again = open_image(labels_path(volume, NAME))
        assert again.attributes["run"] == noted["run"]
        np.testing.assert_array_equal(again.levels[0][:], labels)


@pytest.mark.parametrize("planar", [False, True])
def test_the_command_of_images_names_them_where_the_volume_does_not(
    tmp_path, probabilities, volseg, planar
):
    volume = write_volume(tmp_path / "vol.zarr", probabilities, planar=planar)
    (note,) = made(volume, images=True, min_size=20, max_section_um2=100 * 25e-6).notes[:1]
    words, labels, noted = without(volseg, note)
    assert ("--images" in words) is not planar
    planes = [ndimage.label(z >= 128, np.ones((3, 3)))[0] for z in probabilities]
    sizes = np.concatenate([np.bincount(z.ravel())[1:] for z in planes])
    assert noted["objects"] == (sizes <= 100).sum() == labels.max()


def test_killed_and_labelled_again_it_counts_the_same(tmp_path, probabilities, monkeypatch):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    plan = plan_labels(volume, NAME, options((8, 32, 32), **RULED))
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "paint", None)
        with pytest.raises(BlockError):
            label(plan, NoProgress())
    found, _ = by_scipy(probabilities)
    first, second = (label(plan, NoProgress()) for _ in range(2))
    assert first.dropped == second.dropped
    assert {rule: each["objects"] for rule, each in first.dropped.items()} == {
        rule: each["objects"] for rule, each in found.items()
    }
    assert made(volume, None, **RULED).dropped == first.dropped


@pytest.mark.parametrize(
    ("size", "planar", "unit"),
    [(None, False, "voxels"), (SIZE, False, "µm³"), (SIZE, True, "µm²")],
)
def test_sizes_are_told_as_far_as_they_are_known(tmp_path, probabilities, size, planar, unit):
    volume = write_volume(tmp_path / "vol.zarr", probabilities, size, planar=planar)
    (note,) = made(volume, min_size=20).notes
    found = dropped_from(open_image(labels_path(volume, NAME))).describe()["min_size"]
    number = {"voxels": f"{found['voxels']}", "µm³": f"{found['voxels'] * 5e-7:.3g}"}
    number["µm²"] = f"{found['voxels'] * 25e-6:.3g}"
    assert f"fewer than 20 voxels: {found['objects']} ({number[unit]} {unit}, " in note
    assert ("volume_um3" in found, "area_um2" in found) == (unit == "µm³", unit == "µm²")


def test_the_cards_own_rules_are_counted_too(tmp_path, probabilities):
    model = {"min_size": 40, "voxel_size": [10.0, 5.0, 5.0], "min_probability": 0.54}
    volume = write_volume(tmp_path / "vol.zarr", probabilities, model=model)
    report = label(plan_labels(volume, NAME, options()), NoProgress())
    assert list(report.dropped) == ["min_size", "min_probability"]
    small = report.dropped["min_size"]
    assert by_scipy(probabilities)[0]["min_size"].items() <= small.items()
    assert report.notes[0].startswith(f"{small['told']}; without this rule: `volseg label ")
    assert "--min-size 0 --min-probability 0.54 --overwrite`" in report.notes[0]
    assert "--min-size 20 --min-probability 0 --overwrite`" in report.notes[1]


@pytest.mark.parametrize("block", [(8, 32, 32), None])
@pytest.mark.parametrize("size", [SIZE, None])
def test_large_objects_are_held_to_no_mean(tmp_path, probabilities, block, size):
    model = {"min_probability": 0.54, "faint_size": 60, "voxel_size": [10.0, 5.0, 5.0]}
    volume = write_volume(tmp_path / "vol.zarr", probabilities, size, model=model)
    whole, count = ndimage.label(probabilities >= 128, np.ones((3, 3, 3)))
    each = np.arange(1, count + 1)
    sizes = np.bincount(whole.ravel())[1:]
    faint = ndimage.mean(probabilities, whole, each) < 0.54 * 255
    largest = 60 if size is None else 30
    report = made(volume, block)
    assert 0 < (faint & (sizes > largest)).sum() == report.objects - (~faint).sum()
    assert report.dropped["min_probability"]["objects"] == (faint & (sizes <= largest)).sum()
    header = open_image(labels_path(volume, NAME)).attributes["run"]
    assert (header["min_probability"], header["faint_size"]) == (0.54, largest)
    assert describe_rules(recorded_rules(header), space_of(size), {"threshold": 0.5}).items() <= (
        header.items()
    )
    assert f"is below 0.54 and they have at most {largest} voxels: " in report.notes[0]
    assert report.notes[0].endswith("--min-size 0 --min-probability 0 --overwrite`")
    # a mean that the user gives holds for all, unless a size is given, too
    assert made(volume, block, min_probability=0.54).objects == (~faint).sum()
    assert made(volume, block, min_probability=0.54, faint_size=largest).objects == report.objects
    assert made(volume, block, faint_size=0).objects == (~faint).sum()
    assert made(volume, block, min_probability=0, faint_size=9).objects == count
    with pytest.raises(ParameterError, match="faint_size must not be negative"):
        options(faint_size=-1)


def test_commands_tell_of_it(tmp_path, probabilities, volseg):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    flags = ["--threshold", "0.5", "--min-size", "20", "--min-probability", "0.54"]
    done = volseg("label", volume, *flags, "--json")
    dropped = json.loads(done.stdout)["dropped"]
    assert list(dropped) == ["min_size", "min_probability"]
    shown = volseg("info", volume).stdout
    measured = volseg("stats", volume, "--measure", "basic").stdout
    for each in dropped.values():
        assert each["told"] in done.stderr
        assert f"    {each['told']}\n" in shown
        assert f"{volume}: {each['told']}" in measured
    assert json.loads(volseg("info", volume, "--json").stdout)["labels"][NAME]["dropped"] == dropped
    (summary,) = json.loads(volseg("stats", volume, "--measure", "basic", "--json").stdout)
    assert summary["dropped"] == dropped
    assert json.loads(read_columns(table_path(volume, NAME))[2]["dropped"]) == dropped


def read(dropped, kept, run=None):
    run = {"min_size": 9, "min_probability": 0.85, "max_volume_um3": 2} if run is None else run
    return DroppedObjects.read({"dropped": dropped, "kept_objects": kept, "run": run}, SIZE)


def test_it_is_told_where_a_rule_drops_much():
    kept = {"voxels": 900, "median": 90}
    one = {"objects": 1, "voxels": 91, "largest": 91}
    assert "the largest, of 4.55e-05 µm³, is larger than half of those kept" in read(
        {"min_probability": one}, kept
    ).tell("min_probability")
    # by definition
    assert "larger than half" not in read({"max_volume_um3": one}, kept).tell("max_volume_um3")
    for voxels, much in ((100, False), (101, True)):
        many = {"objects": 20, "voxels": voxels, "largest": 8}
        told = read({"min_size": many}, kept).tell("min_size")
        assert told.endswith("of the foreground), which is much") == much, told
    told = read({"min_size": many}, {"voxels": 0, "median": 0}).tell("min_size")
    assert told.endswith("(5.05e-05 µm³, 100.00% of the foreground), and none is left")


@pytest.mark.parametrize(
    "damaged", [None, 3, [], {"objects": 1}, {"objects": -1}, {"objects": "1"}]
)
def test_a_damaged_record_is_none(damaged):
    sound = {"objects": 3, "voxels": 30, "largest": 20}
    partly = damaged | {"voxels": math.inf, "largest": 2} if isinstance(damaged, dict) else damaged
    assert read({"min_size": partly}, damaged).by_rule == {}
    assert read(damaged, damaged, damaged).describe() == {}
    assert read({"min_size": sound}, damaged).tell("min_size").endswith(": 3 (1.5e-05 µm³)")


@pytest.mark.parametrize(
    ("changed", "usable"),
    [
        ({"dropped": {"min_size": {"objects": 3, "voxels": 10**400, "largest": 20}}}, True),
        ({"dropped": {"min_size": {"objects": 3, "voxels": 0, "largest": 0}}}, True),
        ({"dropped": {"min_size": {"objects": 1, "voxels": 1 << 63, "largest": 20}}}, True),
        ({"kept_objects": {"voxels": 10**400, "median": 10**400}}, True),
        *(({"run": {"min_size": limit}}, False) for limit in ("few", None, math.nan, [3])),
        *(({"run": {"seed_threshold_of_255": n}}, False) for n in ("high", None, {}, 10**400)),
        ({"run": {"faint_size": "many"}}, False),
        *(({"run": {"median_nm": apart}}, False) for apart in ("far", None, [35])),
        ({"run": {"threshold_of_255": None}}, False),
        ({"model": None}, False),
        ({"model": {"median_nm": "far"}}, False),
    ],
)
def test_commands_go_on_beside_damaged_records(tmp_path, probabilities, volseg, changed, usable):
    volume = write_volume(tmp_path / "vol.zarr", probabilities)
    plan = plan_labels(volume, NAME, options(**{**RULED, "min_probability": 0.54}))
    sound = label(plan, NoProgress()).notes
    path = labels_path(volume, NAME)
    noted = open_image(path).attributes
    changed = {k: {**noted[k], **v} if isinstance(v, dict) else v for k, v in changed.items()}
    update_attributes(path, changed)
    notes = report_on(plan, 0).notes
    beginnings = [note.partition(" because ")[0] for note in sound]
    assert [n.partition(" because ")[0] for n in notes] == beginnings[len(sound) - len(notes) :]
    done = volseg("info", volume), volseg("stats", volume, "--measure", "basic")
    for each in done:
        assert each.exit_code == 0, each.output
    assert ["; without this rule: `volseg label" in n for n in notes] == [usable] * len(notes)
    made = [("it", open_image(volume), open_image(path), None)]
    told = " ".join(describe_methods(made, [], []).paragraphs)
    run = open_image(path).attributes["run"]
    readable = run["min_size"] == 20 and run["threshold_of_255"] == 128
    assert ("dropped below 20 voxels" in told) == readable


def test_counts_of_earlier_versions_are_told_without_a_size():
    run = {"min_size": 9, "min_probability": 0.85, "max_volume_um3": 2.0, "max_section_um2": 1.5}
    counts = {"above_max_volume": 3, "above_max_section": 0, "below_min_probability": 12}
    found = DroppedObjects.read({"run": run, **counts}, SIZE)
    assert found.describe() == {
        "max_volume_um3": {
            "objects": 3,
            "told": "objects dropped because they are larger than 2.0 µm³: 3 (of unknown size)",
        },
        "min_probability": {
            "objects": 12,
            "told": "objects dropped because their mean probability is below 0.85: 12 "
            "(of unknown size)",
        },
    }
    counts["below_min_probability"] = "12"
    assert list(DroppedObjects.read({"run": run, **counts}, SIZE).by_rule) == ["max_volume_um3"]
