"""Verification: an intact volume passes; every damage is found, and found where it is."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.engine.run import same_workers
from volseg.errors import ParameterError, VolumeError
from volseg.geometry.grid import full_roi
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.verify import relabel
from volseg.stages.verify import sample as verify_sample
from volseg.stages.verify.advice import advise
from volseg.stages.verify.images import Subject
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.stages.verify.sample import ELSEWHERE, EXACT
from volseg.storage.attributes import read_attributes, update_attributes, write_group
from volseg.storage.ledger import block_key
from volseg.storage.results import fingerprint
from volseg.storage.volumes import labels_path, open_image, probabilities_path

SHAPE, SHARD, BLOCK = (20, 70, 60), (8, 32, 32), (16, 32, 64)
NAME, MIN_SIZE = "mitochondria", 5
RAW, PROBABILITIES, LABELS = "raw", f"probabilities/{NAME}", f"labels/{NAME}"
ENGINE = EngineOptions(workers=1)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One for all tests: to start it takes longer than to verify a small volume."""
    with same_workers(ENGINE):
        yield


@pytest.fixture(scope="module")
def intact(tmp_path_factory, toy_model):
    """A volume with probabilities and labels, made by the stages themselves."""
    path = tmp_path_factory.mktemp("intact") / "vol.zarr"
    raw = np.random.default_rng(3).integers(1, 256, SHAPE, dtype=np.uint8)
    write_raw(path, raw, SHARD, chunk=(8, 16, 16), complete=True)
    options = PredictOptions(
        str(toy_model), block=SHARD, shard=SHARD, device="cpu", precision="float32", engine=ENGINE
    )
    predict(plan_prediction(path, options), NoProgress())
    chosen = LabelOptions(threshold=210 / 255, min_size=MIN_SIZE, shard=SHARD, engine=ENGINE)
    report = label(plan_labels(path, NAME, chosen), NoProgress())
    assert report.objects > 100
    return path


@pytest.fixture
def volume(intact, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(intact, tmp_path / "vol.zarr")
    return tmp_path / "vol.zarr"


def check(volume, **options):
    options = {"sample": 0, "block": BLOCK, "engine": ENGINE} | options
    return verify(volume, VerifyOptions(**options), NoProgress())


def kinds(report):
    return {(f.kind, f.array, f.level) for f in report.findings}


def only(report, kind, array):
    found = [f for f in report.findings if (f.kind, f.array) == (kind, array)]
    assert found, report.findings
    return found


def shard(volume, array, index, level=0):
    folder = volume if array == RAW else volume / array
    return folder / str(level) / "c" / "/".join(map(str, index))


def change(volume, array, voxel, value, level=0):
    """Write a voxel properly: checksums are right, the content is not."""
    stored = open_image(volume if array == RAW else volume / array).levels[level]
    content = stored[full_roi(stored.shape)]
    before = int(content[voxel])
    content[voxel] = value
    stored.write(full_roi(stored.shape), content)
    return before


@pytest.mark.parametrize("block", [SHARD, (64, 512, 512), (8, 16, 48)])
def test_an_intact_volume_passes_whatever_the_blocks(intact, toy_model, block):
    report = check(intact, block=block, sample=2, model=str(toy_model))
    assert report.ok, report.findings
    assert report.arrays == (RAW, PROBABILITIES, LABELS)
    assert report.voxels == 3 * (20 * 70 * 60 + 10 * 35 * 30)
    assert report.skipped == ()
    assert len(report.sampled) == 2
    assert {(s.array, s.largest, s.allowed) for s in report.sampled} == {(PROBABILITIES, 0, EXACT)}
    assert not [p for p in (intact / ".volseg").iterdir() if p.name.startswith("verify")]


@pytest.mark.parametrize(
    "seen", [{"views": "ortho"}, {"views": "ortho", "tile": (48, 48, 48)}, {"images": True}]
)
def test_slices_are_predicted_again_on_their_own_lattices(seen, tmp_path):
    path = tmp_path / "vol.zarr"
    raw = np.random.default_rng(3).integers(1, 256, (40, 70, 60), dtype=np.uint8)
    write_raw(path, raw, SHARD, chunk=(8, 16, 16), complete=True)
    model = write_weights(tmp_path, "unet2d", (8, 64, 64), (0, 16, 16))
    options = PredictOptions(
        str(model),
        **seen,
        block=SHARD,
        shard=SHARD,
        device="cpu",
        precision="float32",
        engine=ENGINE,
    )
    plan = plan_prediction(path, options)
    tiles = {lattice.tile for lattice in plan.handover.lattices}
    assert (len(tiles) > 1) == ("views" in seen)
    predict(plan, NoProgress())
    report = check(path, sample=1, model=str(model))
    assert report.ok, report.findings
    assert [(s.largest, s.allowed) for s in report.sampled] == [(0, EXACT)]


def test_nothing_is_changed(volume):
    def content():
        return {p: p.read_bytes() for p in volume.rglob("*") if p.is_file()}

    before = content()
    assert check(volume).ok
    assert content() == before


@pytest.mark.parametrize(
    ("array", "level", "quick"),
    [
        (RAW, 0, True),
        (RAW, 1, False),
        (PROBABILITIES, 0, False),
        (LABELS, 0, True),
        (LABELS, 1, False),
    ],
)
def test_a_flipped_byte_is_found_in_its_chunk(volume, array, level, quick):
    index = (1, 1, 0) if level == 0 else (0, 0, 0)
    path = shard(volume, array, index, level)
    damaged = bytearray(path.read_bytes())
    damaged[10] ^= 0xFF
    path.write_bytes(damaged)
    report = check(volume, quick=quick)
    (finding,) = only(report, "unreadable", array)
    assert (finding.level, finding.block) == (level, index)
    assert finding.roi is not None
    assert "chunks cannot be read" in finding.message
    assert kinds(report) == {("unreadable", array, level)}


@pytest.mark.parametrize("keep", [0, 7, 0.5])
def test_a_truncated_shard_is_found(volume, keep):
    path = shard(volume, PROBABILITIES, (0, 1, 1))
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    (finding,) = only(check(volume, quick=True), "unreadable", PROBABILITIES)
    assert (finding.level, finding.block) == (0, (0, 1, 1))
    assert finding.roi == "0:8,32:64,32:60"


@pytest.mark.parametrize("array", [RAW, PROBABILITIES, LABELS])
def test_a_missing_shard_is_found(volume, array):
    shard(volume, array, (1, 1, 0)).unlink()
    report = check(volume)
    found = only(report, "pyramid", array)
    assert [f.level for f in found] == [1] * len(found)
    assert "level 0 has no block 1,1,0" in found[0].message
    if array == RAW:
        (finding,) = only(report, "intensities", RAW)
        assert finding.block == (1, 1, 0)
        assert "voxels have the intensity 0, expected 0" in finding.message
    else:
        found = only(report, "label", LABELS)
        assert all(f.level == 0 for f in found)


def test_a_missing_shard_of_a_coarse_level_is_found(volume):
    shard(volume, RAW, (0, 0, 0), 1).unlink()
    (finding, *_) = only(check(volume), "pyramid", RAW)
    assert (finding.level, finding.block, finding.voxel) == (1, (0, 0, 0), (0, 0, 0))


@pytest.mark.parametrize("array", [RAW, PROBABILITIES, LABELS])
def test_a_wrong_voxel_of_a_pyramid_is_found(volume, array):
    voxel = (7, 20, 29)
    before = change(volume, array, voxel, 77, level=1)
    report = check(volume)
    assert kinds(report) == {("pyramid", array, 1)}
    (finding,) = report.findings
    stored = open_image(volume if array == RAW else volume / array).levels[1]
    assert finding.block == tuple(v // n for v, n in zip(voxel, stored.shard, strict=True))
    assert finding.voxel == voxel
    assert finding.message.startswith(f"found 77, level 0 gives {before}; voxels that differ")
    assert finding.message.endswith(": 1")
    assert report.failures == 1


def at_a_face(volume):
    """Find an object that crosses the face between two blocks at y = 32, and a voxel of it."""
    labels = open_image(labels_path(volume, NAME)).levels[0][full_roi(SHAPE)]
    touching = (labels[:, 31] > 0) & (labels[:, 31] == labels[:, 32])
    z, x = np.argwhere(touching)[0]
    return labels, (int(z), 32, int(x))


def test_a_label_that_changes_at_a_face_is_found(volume):
    labels, voxel = at_a_face(volume)
    number = int(labels[voxel])
    stored = open_image(labels_path(volume, NAME)).levels[0]
    broken = labels.copy()
    broken[:, 32:][labels[:, 32:] == number] = labels.max() + 1
    stored.write(full_roi(SHAPE), broken)
    report = check(volume)
    found = only(report, "label", LABELS)
    words = f"found label {labels.max() + 1}, labelled again {number}"
    assert all(f.message.startswith(words) for f in found)
    assert {int(labels[f.voxel]) for f in found} == {number}
    assert found[0].voxel == tuple(np.argwhere(broken != labels)[0])
    (beyond, *_) = only(report, "objects", LABELS)
    assert f"found label {labels.max() + 1}, expected {labels.max()} at most" in beyond.message


def test_merged_objects_are_found(volume):
    stored = open_image(labels_path(volume, NAME)).levels[0]
    labels = stored[full_roi(SHAPE)]
    lost = labels == 4
    labels[lost] = 2
    stored.write(full_roi(SHAPE), labels)
    found = only(check(volume), "label", LABELS)
    assert all(lost[f.voxel] for f in found)
    assert found[0].voxel == tuple(np.argwhere(lost)[0])
    assert "found label 2, labelled again 4" in found[0].message


def test_merged_objects_are_found_where_the_others_are_numbered_anew(volume):
    stored = open_image(labels_path(volume, NAME)).levels[0]
    labels = stored[full_roi(SHAPE)]
    lost = labels == 4
    labels[lost] = 2
    labels[labels > 4] -= 1
    stored.write(full_roi(SHAPE), labels)
    update_attributes(volume / LABELS, {"objects": int(labels.max())})
    report = check(volume)
    assert only(report, "label", LABELS)[0].voxel == tuple(np.argwhere(lost)[0])
    expected = f"its attributes say {labels.max()} objects, expected {labels.max() + 1}"
    assert [f.message for f in only(report, "objects", LABELS)] == [expected]


def test_exchanged_numbers_are_found(volume):
    stored = open_image(labels_path(volume, NAME)).levels[0]
    labels = stored[full_roi(SHAPE)]
    two, four = labels == 2, labels == 4
    labels[two], labels[four] = 4, 2
    stored.write(full_roi(SHAPE), labels)
    found = only(check(volume), "label", LABELS)
    assert all((two | four)[f.voxel] for f in found)
    assert "found label 4, labelled again 2" in found[0].message


def test_an_object_without_a_label_is_found(volume):
    stored = open_image(labels_path(volume, NAME)).levels[0]
    labels = stored[full_roi(SHAPE)]
    voxel = tuple(int(n) for n in np.argwhere(labels == 3)[0])
    labels[labels == 3] = 0
    stored.write(full_roi(SHAPE), labels)
    report = check(volume)
    found = only(report, "label", LABELS)
    assert found[0].voxel == voxel
    assert "found label 0, labelled again 3" in found[0].message


def test_a_label_where_there_is_nothing_is_found(volume):
    probabilities = open_image(probabilities_path(volume, NAME)).levels[0][full_roi(SHAPE)]
    voxel = tuple(int(n) for n in np.argwhere(probabilities < 100)[500])
    change(volume, LABELS, voxel, 2)
    found = only(check(volume), "label", LABELS)
    assert voxel in {f.voxel for f in found}
    assert "found label 2, labelled again 0" in found[0].message


def test_probabilities_that_were_changed_a_little_are_found(volume, toy_model, monkeypatch):
    region = slice(8, 16), slice(32, 64), slice(0, 32)
    monkeypatch.setattr(verify_sample, "choose_blocks", lambda *_: [region])
    stored = open_image(probabilities_path(volume, NAME)).levels[0]
    content = stored[full_roi(SHAPE)]
    part = content[region]
    content[region] = np.where(part < 120, part + 3, part)
    stored.write(full_roi(SHAPE), content)
    first = np.argwhere(part < 120)[0] + (8, 32, 0)
    report = check(volume, sample=1, model=str(toy_model))
    (finding,) = only(report, "probabilities", PROBABILITIES)
    assert finding.voxel == tuple(first)
    assert (finding.block, finding.roi) == ((1, 1, 0), "8:16,32:64,0:32")
    assert "off by up to 3 of 255, mean" in finding.message
    assert only(report, "pyramid", PROBABILITIES)
    (sampled,) = report.sampled
    assert (sampled.roi, sampled.largest) == ("8:16,32:64,0:32", 3)
    assert sampled.block != SHARD
    assert sampled.mean > ELSEWHERE.mean
    report = check(volume, sample=1, model=str(toy_model), elsewhere=True)
    assert "off by up to 3 of 255" in only(report, "probabilities", PROBABILITIES)[0].message


def test_what_cannot_be_predicted_again_is_said_and_leaves_nothing(volume, toy_model, monkeypatch):
    region = slice(0, 8), slice(0, 32), slice(0, 32)
    monkeypatch.setattr(verify_sample, "choose_blocks", lambda *_: [region])
    shard(volume, RAW, (0, 0, 0)).write_bytes(b"rubbish")
    report = check(volume, sample=1, model=str(toy_model))
    first = only(report, "probabilities", PROBABILITIES)[0]
    assert "it cannot be predicted again" in first.message
    assert "\n" not in first.message
    assert only(report, "unreadable", RAW)[0].block == (0, 0, 0)
    assert not [p for p in (volume / ".volseg").iterdir() if p.name.startswith("verify")]


def test_another_machine_may_round_differently(volume, toy_model, monkeypatch):
    voxel = (9, 33, 3)
    region = slice(8, 16), slice(32, 64), slice(0, 32)
    monkeypatch.setattr(verify_sample, "choose_blocks", lambda *_: [region])
    content = open_image(probabilities_path(volume, NAME)).levels[0][full_roi(SHAPE)]
    change(volume, PROBABILITIES, voxel, int(content[voxel]) - 2)
    (finding,) = only(check(volume, sample=1, model=str(toy_model)), "probabilities", PROBABILITIES)
    assert finding.voxel == voxel
    assert finding.message.endswith("number of threads that made them")
    report = check(volume, sample=1, model=str(toy_model), elsewhere=True)
    assert "probabilities" not in {f.kind for f in report.findings}
    assert report.sampled[0].allowed == ELSEWHERE


def test_a_lost_block_is_among_the_first_to_be_predicted_again(volume, toy_model):
    shard(volume, PROBABILITIES, (2, 0, 1)).unlink()
    report = check(volume, sample=1, model=str(toy_model))
    (finding,) = only(report, "probabilities", PROBABILITIES)
    assert finding.block == (2, 0, 1)


def test_without_its_model_the_sample_is_skipped_and_another_is_refused(volume):
    report = check(volume, sample=1)
    assert report.ok
    assert report.sampled == ()
    assert "name it with --model" in report.skipped[0]
    with pytest.raises(ParameterError, match="did not make the result"):
        check(volume, sample=1, model="emnet")


@pytest.mark.parametrize("array", [PROBABILITIES, LABELS])
def test_what_is_incomplete_is_found(volume, array):
    update_attributes(volume / array, {"complete": False})
    report = check(volume)
    assert kinds(report) == {("incomplete", array, None)}


def test_a_block_that_is_not_on_record_is_found(volume):
    for verb, array in (("predict", PROBABILITIES), ("label", LABELS)):
        ledger = volume / ".volseg" / f"{verb}-{NAME}.jsonl"
        lines = ledger.read_text().splitlines(keepends=True)
        lost = (1, 1, 0) if verb == "predict" else (0, 0, 0)
        key = block_key("written", lost)
        ledger.write_text("".join(n for n in lines if json.dumps({"key": key})[:-1] not in n))
        (finding,) = only(check(volume), "ledger", array)
        assert finding.block == lost
    shutil.rmtree(volume / ".volseg")
    assert check(volume).ok


def test_a_damaged_ledger_is_found(volume):
    (volume / ".volseg" / f"label-{NAME}.jsonl").write_text("rubbish\n")
    assert kinds(check(volume)) == {("ledger", LABELS, None)}


def test_results_of_something_else_are_found(volume):
    update_attributes(volume, {"fingerprint": "of another stack"})
    run = read_attributes(volume / LABELS)["volseg"]["run"]
    update_attributes(volume / LABELS, {"run": {**run, "min_size": 10_000}})
    shutil.rmtree(volume / ".volseg")
    report = check(volume)
    assert ("origin", PROBABILITIES, None) in kinds(report)
    assert ("metadata", LABELS, None) in kinds(report)
    assert only(report, "label", LABELS)
    assert only(report, "objects", LABELS)[0].message.endswith("objects, expected 0")


def test_a_result_that_cannot_be_opened_is_found(volume):
    (volume / LABELS / "1" / "zarr.json").unlink()
    (volume / PROBABILITIES / "zarr.json").write_text("{")
    report = check(volume)
    assert kinds(report) == {("metadata", LABELS, None), ("metadata", PROBABILITIES, None)}
    with pytest.raises(VolumeError, match="there is nothing at"):
        check(volume / "nowhere")


def test_labels_without_their_probabilities_have_no_number_beyond_the_last(volume):
    shutil.rmtree(volume / PROBABILITIES)
    report = check(volume)
    assert report.ok
    (why,) = report.skipped
    assert why.startswith(f"{LABELS}: it cannot be made again: ")
    assert "has no probabilities/mitochondria" in why
    change(volume, LABELS, (0, 0, 0), 1000)
    assert ("objects", LABELS, 0) in kinds(check(volume))


def test_what_others_wrote_is_read_but_not_judged(volume):
    attributes = read_attributes(volume)
    write_group(volume, {"ome": attributes["ome"]})
    for array in (PROBABILITIES, LABELS):
        shutil.rmtree(volume / array)
    change(volume, RAW, (0, 0, 0), 9, level=1)
    report = check(volume)
    assert report.ok
    assert report.skipped == ("raw: volseg did not make its pyramid",)


def test_many_findings_are_counted_and_the_first_are_shown(volume):
    stored = open_image(labels_path(volume, NAME)).levels[0]
    stored.write(full_roi(SHAPE), np.full(SHAPE, 1, np.uint32))
    report = check(volume)
    assert report.failures > len(report.findings)
    found = only(report, "label", LABELS)
    assert len(found) == 5
    assert found[0].block == (0, 0, 0)


@pytest.mark.parametrize("block", [SHARD, (64, 512, 512)])
def test_dropped_for_their_mean_probability_is_no_damage_but_removed_is(volume, block):
    rules = {"threshold": 0.8, "min_probability": 0.85, "shard": SHARD, "engine": ENGINE}
    report = label(plan_labels(volume, NAME, LabelOptions(**rules, overwrite=True)), NoProgress())
    assert "objects dropped because" in report.notes[0]
    assert report.objects > 10
    report = check(volume, block=block)
    assert report.ok, report.findings
    assert report.skipped == ()
    stored = open_image(volume / LABELS).levels[0]
    labels = stored[full_roi(SHAPE)]
    removed = labels == np.bincount(labels[labels > 0]).argmax()
    stored.write(full_roi(SHAPE), np.where(removed, 0, labels).astype(labels.dtype))
    findings = only(check(volume, block=block), "label", LABELS)
    assert all("found label 0" in f.message and removed[f.voxel] for f in findings)


def test_labels_that_fail_to_be_made_again_are_not_called_good(volume, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(relabel, "label", full)
    (finding,) = only(check(volume), "incomplete", LABELS)
    assert "No space left" in finding.message


def test_rules_that_are_not_known_are_not_judged(volume):
    run = {**read_attributes(volume / LABELS)["volseg"]["run"], "smoothed": 3}
    update_attributes(volume / LABELS, {"run": run, "fingerprint": fingerprint(run)})
    shutil.rmtree(volume / ".volseg")
    report = check(volume)
    assert report.ok, report.findings
    assert report.skipped == (f"{LABELS}: its rules are not known here (smoothed was 3, now None)",)
    change(volume, LABELS, (0, 0, 0), 100_000)
    (finding,) = only(check(volume), "objects", LABELS)
    assert finding.voxel == (0, 0, 0)


@pytest.mark.parametrize("faint", [None, 10**400, math.nan, -1, 2, True, "0.9"])
def test_a_recorded_mean_that_is_none_is_no_rule(volume, faint):
    run = {**read_attributes(volume / LABELS)["volseg"]["run"], "min_probability": faint}
    update_attributes(volume / LABELS, {"run": run, "fingerprint": fingerprint(run)})
    shutil.rmtree(volume / ".volseg")
    report = check(volume)
    assert report.findings or report.skipped[0].startswith(f"{LABELS}: ")


@pytest.mark.parametrize(
    "rules",
    [
        {"split": "distance"},
        {"split": "kmeans", "fill_holes": True},
        {"fill_holes": True, "min_probability": 0.85},
        {"max_volume_um3": 2e-4, "max_section_um2": 0.01},
        {"median_nm": 20},
    ],
)
def test_filled_and_split_objects_are_compared_with_the_same_made_anew(volume, rules):
    rules |= {"threshold": 200 / 255, "seed_threshold": 220 / 255, "min_size": 3}
    options = LabelOptions(**rules, shard=SHARD, engine=ENGINE, overwrite=True)
    objects = label(plan_labels(volume, NAME, options), NoProgress()).objects
    assert objects > 10
    before = {p.relative_to(volume) for p in volume.rglob("*")}
    report = check(volume)
    assert report.ok, report.findings
    assert report.skipped == ()
    assert {p.relative_to(volume) for p in volume.rglob("*")} == before
    stored = open_image(volume / LABELS).levels[0]
    labels = stored[full_roi(SHAPE)]
    z, y, x = map(int, np.argwhere(labels > 0)[len(labels) // 2])
    change(volume, LABELS, (z, y, x), labels[z, y, x] % objects + 1)
    (finding,) = only(check(volume), "label", LABELS)
    assert finding.voxel == (z, y, x)
    assert f"labelled again {labels[z, y, x]}; voxels that differ in" in finding.message
    assert finding.message.endswith(": 1")


@pytest.mark.parametrize(("model", "words"), [({"name": "emnet"}, " --model emnet"), ({}, "")])
def test_the_advice_names_no_model_that_is_not_on_record(model, words):
    attributes = {"run": {"roi": []}, "model": model}
    image = SimpleNamespace(path=Path("v.zarr/probabilities/mine"), attributes=attributes)
    subject = Subject("probabilities", "probabilities/mine", image)
    damage = SimpleNamespace(array=subject.array, kind="pyramid")
    (advice,) = advise(Path("v.zarr"), [damage], [subject])
    assert f"volseg segment v.zarr{words} --repair --name mine" in advice
