"""Objects that rules dropped are counted and measured once, and told of wherever labels are."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace

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
from volseg.stages.label.run import label
from volseg.storage.arrays import ArraySpec
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


def by_scipy(probabilities):
    """Count, on the whole, what each rule drops of what those before it have left."""
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
    # without a rule its objects are kept, or counted by a later one
    for note in [n for n in report.notes if n.startswith("objects dropped")]:
        suggested = shlex.split(note.partition("`")[2].rstrip("`"))
        assert suggested[:3] == ["volseg", "label", str(volume)]
    assert len(report.notes) >= len(RULES)


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
    assert report.notes[0].startswith(f"{small['told']}; to keep them: `volseg label ")
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
