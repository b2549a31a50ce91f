"""Corrections: the outcome is that of correcting the whole array, whatever is in which block."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import volseg
from toy_volumes import write_raw
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ParameterError
from volseg.geometry.grid import full_roi
from volseg.objects.seeding import split_from_seeds
from volseg.sources.corrections import count_entries, read_corrections
from volseg.stages.apply.plan import ApplyOptions, plan_apply
from volseg.stages.apply.run import Correcting, apply
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats
from volseg.storage import stores
from volseg.storage.arrays import ArraySpec
from volseg.storage.attributes import update_attributes
from volseg.storage.results import fingerprint
from volseg.storage.tables import read_columns, write_table
from volseg.storage.volumes import create_image, open_image, register_label
from volseg.voxels.downsample import reduce_labels, reduce_mean

SHAPE, SHARD = (20, 70, 60), (8, 32, 32)
NAME, OUT = "mitochondria", "mitochondria-corrected"


def write_volume(path: Path, seed: int = 0, size=(10.0, 5.0, 5.0)) -> tuple[Path, np.ndarray]:
    """Write a volume with probabilities, and labels of blobs that cross its blocks."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), 2.5)
    found, count = ndimage.label(smooth > np.quantile(smooth, 0.75), np.ones((3, 3, 3)))
    labels = found.astype(np.uint32)
    raw = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    write_raw(path, raw, SHARD, size)
    chunk = tuple(n // 2 for n in SHARD)
    for kind, array, noted in (
        ("probabilities", raw, {"run": {"raw": "test", "roi": [[0, n] for n in SHAPE]}}),
        ("labels", labels, {"run": {}, "objects": count, "model": {"name": "toy"}}),
    ):
        spec = ArraySpec(SHAPE, array.dtype.name, chunk, SHARD)
        noted |= {"complete": True, "fingerprint": fingerprint(noted["run"])}
        image = create_image(
            path / kind / NAME, spec, size, label=kind == "labels", attributes=noted
        )
        image.levels[0].write(full_roi(SHAPE), array)
        for k, level in enumerate(image.levels[1:], 1):
            factor = np.divide(image.factors[k], image.factors[k - 1]).astype(int)
            reduce = reduce_labels if kind == "labels" else reduce_mean
            coarse = reduce(image.levels[k - 1][full_roi(SHAPE)], tuple(factor.tolist()))
            level.write(full_roi(level.shape), coarse)
    register_label(path, NAME)
    return path, labels


def draw_corrections(rng, labels, folder: Path) -> dict:
    """Draw operations that go together."""
    objects = rng.permutation(np.unique(labels[labels > 0])).tolist()

    def some(most):
        return [objects.pop() for _ in range(min(rng.integers(0, most + 1), len(objects)))]

    def voxel_of(label):
        return rng.choice(np.argwhere(labels == label)).tolist()

    asked = {"delete": [o if rng.random() < 0.5 else voxel_of(o) for o in some(3)]}
    groups = [some(3) for _ in range(2)]
    asked["merge"] = [group for group in groups if len(group) > 1]
    asked["split"] = []
    for label in some(2):
        voxels = np.argwhere(labels == label)
        count = min(len(voxels), int(rng.integers(2, 4)))
        if count > 1:
            seeds = rng.choice(voxels, count, replace=False).tolist()
            asked["split"].append({"object": label, "seeds": seeds})
    asked["add"] = []
    for k in range(rng.integers(0, 3)):
        size = rng.integers(3, [12, 40, 40])
        painted = ndimage.zoom(rng.integers(0, 3, (2, 2, 2)), size / 2, order=0).astype(np.uint16)
        if not painted.any():
            continue
        tifffile.imwrite(folder / f"{k}.tif", painted, photometric="minisblack")
        origin = rng.integers(0, np.array(SHAPE) - painted.shape + 1).tolist()
        more = {"object": objects[0]} if objects and rng.random() < 0.4 else {}
        asked["add"].append({"path": f"{k}.tif", "origin": origin, **more})
    if not any(asked.values()):
        asked["delete"] = [int(labels.max())]
    return asked


def correct_whole(labels, asked, folder: Path, spacing) -> np.ndarray:
    """Correct an array as a whole, by the words of the documentation."""
    out, fresh = labels.copy(), int(labels.max())

    def named(target):
        return target if isinstance(target, int) else int(labels[tuple(target)])

    for target in asked["delete"]:
        out[labels == named(target)] = 0
    for group in asked["merge"]:
        out[np.isin(labels, group)] = min(group)
    for split in asked["split"]:
        mask = labels == split["object"]
        (box,) = ndimage.find_objects(mask.astype(int))
        seeds = [tuple(np.subtract(s, [b.start for b in box])) for s in split["seeds"]]
        pieces = split_from_seeds(mask[box], seeds, spacing)
        for piece in range(2, len(seeds) + 1):
            fresh += 1
            out[box][pieces == piece] = fresh
    for entry in asked["add"]:
        painted = tifffile.imread(folder / entry["path"])
        box = tuple(slice(o, o + n) for o, n in zip(entry["origin"], painted.shape, strict=True))
        if "object" in entry:
            target = next((min(g) for g in asked["merge"] if entry["object"] in g), entry["object"])
            out[box][painted > 0] = target
            continue
        values = np.unique(painted[painted > 0])
        if len(values) == 1:
            painted, count = ndimage.label(painted, np.ones((3, 3, 3)))
            values = range(1, count + 1)
        for value in values:
            fresh += 1
            out[box][painted == value] = fresh
    return out


def read(volume: Path, name: str = OUT) -> list[np.ndarray]:
    return [level[full_roi(level.shape)] for level in open_image(volume / "labels" / name).levels]


@pytest.mark.parametrize(("seed", "measured"), [*((n, n % 3 > 0) for n in range(12))])
def test_equals_correcting_the_whole_array(tmp_path, seed, measured):
    folder = tmp_path
    volume, labels = write_volume(folder / "vol.zarr", seed % 7)
    if measured:
        volseg.stats(volume, workers=1)
    asked = draw_corrections(np.random.default_rng(seed), labels, folder)
    (folder / "asked.json").write_text(json.dumps(asked))
    report = volseg.apply(volume, corrections=folder / "asked.json", workers=1)
    whole = correct_whole(labels, asked, folder, (2, 1, 1))
    found = read(volume)
    np.testing.assert_array_equal(found[0], whole)
    assert report.objects == len(np.unique(whole[whole > 0]))
    factors = open_image(volume / "labels" / OUT).factors
    for k in range(1, len(found)):
        step = tuple(np.divide(factors[k], factors[k - 1]).astype(int).tolist())
        np.testing.assert_array_equal(found[k], reduce_labels(found[k - 1], step))
    if not measured:
        assert report.table is None
        return
    kept = [read_columns(volume / "tables" / f"{OUT}{end}.parquet") for end in ("", "-slices")]
    volseg.stats(volume, name=OUT, workers=1)
    for (columns, units, noted), end in zip(kept, ("", "-slices"), strict=True):
        again, same_units, same_notes = read_columns(volume / "tables" / f"{OUT}{end}.parquet")
        assert (units, noted, list(columns)) == (same_units, same_notes, list(again))
        for name, column in again.items():
            # a product of matrices rounds its last digit by how many rows they have
            np.testing.assert_allclose(columns[name], column, rtol=1e-14, err_msg=name)
            assert columns[name].dtype == column.dtype, name
    assert "probability_mean" in kept[0][0]


@pytest.fixture
def volume(tmp_path) -> Path:
    return write_volume(tmp_path / "vol.zarr")[0]


def shards(path: Path) -> dict[str, os.stat_result]:
    return {str(p.relative_to(path)): p.stat() for p in path.glob("*/c/*/*/*")}


def test_what_is_untouched_is_the_same_file_and_nothing_of_the_parent_changes(volume):
    before = shards(volume / "labels" / NAME)
    (label,) = np.unique(read(volume, NAME)[0][:1, :1, -30:])[-1:]
    report = volseg.apply(volume, corrections={"delete": [int(label)]})
    after = shards(volume / "labels" / OUT)
    own = [name for name, found in after.items() if found.st_ino != before[name].st_ino]
    assert 0 < sum(name.startswith("0/") for name in own) == report.blocks < len(before) / 3
    now = shards(volume / "labels" / NAME)
    assert {n: (f.st_ino, f.st_mtime_ns) for n, f in now.items()} == {
        n: (f.st_ino, f.st_mtime_ns) for n, f in before.items()
    }
    assert not (volume / ".volseg" / f"apply-{OUT}").exists()


def test_the_same_again_computes_nothing_and_others_are_refused(volume, monkeypatch):
    asked = {"delete": [2], "merge": [[3, 4]]}
    first = volseg.apply(volume, corrections=asked)
    monkeypatch.setattr("volseg.stages.apply.run.resolve", None)
    again = volseg.apply(volume, corrections=asked)
    assert (again.objects, again.fingerprint, again.blocks) == (
        first.objects,
        first.fingerprint,
        0,
    )
    monkeypatch.undo()
    with pytest.raises(ConflictError, match=r"other corrections.*another --output-name"):
        volseg.apply(volume, corrections={"delete": [3]})
    whole = read(volume)[0]
    assert {2, 4}.isdisjoint(np.unique(whole))
    volseg.apply(volume, corrections={"delete": [3]}, overwrite=True)
    assert {2, 4} <= {*np.unique(read(volume)[0]).tolist()}


def test_provenance_and_a_chain_of_corrections(volume):
    volseg.apply(volume, corrections={"delete": [2]})
    second = volseg.apply(volume, name=OUT, output_name="mine", corrections={"merge": [[3, 4]]})
    noted = open_image(volume / "labels" / "mine").attributes
    assert noted["fingerprint"] == second.fingerprint
    assert noted["corrections"] == {
        "parent": OUT,
        "uncorrected": NAME,
        "operations": {"merge": [[3, 4]]},
    }
    assert noted["run"]["labels"] == open_image(volume / "labels" / OUT).attributes["fingerprint"]
    assert noted["model"] == {"name": "toy"}
    assert volseg.verify(volume, sample=0).ok
    assert volseg.open(volume).labels["mine"][:].max() == read(volume, NAME)[0].max()


def test_a_changed_parent_is_found_by_verify_and_refused_by_apply(volume):
    from volseg.storage.attributes import update_attributes

    volseg.apply(volume, corrections={"delete": [2]})
    with_splits = {
        "split": [{"object": 3, "seeds": np.argwhere(read(volume)[0] == 3)[:2].tolist()}]
    }
    volseg.apply(volume, corrections=with_splits, output_name="split")
    assert volseg.verify(volume, sample=0).findings == ()
    update_attributes(volume / "labels" / NAME, {"fingerprint": "another"})
    kinds = {(f.kind, f.array) for f in volseg.verify(volume, sample=0).findings}
    assert kinds == {("origin", f"labels/{OUT}"), ("origin", "labels/split")}
    with pytest.raises(ConflictError, match="other objects"):
        volseg.apply(volume, corrections={"delete": [2]})
    with pytest.raises(ParameterError, match="fingerprint mine, labels/mitochondria has another"):
        volseg.apply(volume, corrections={"delete": [2], "fingerprint": "mine"})


def test_verify_finds_a_voxel_that_was_changed(volume):
    volseg.apply(volume, corrections={"delete": [2]})
    image = open_image(volume / "labels" / OUT)
    level, core = image.levels[0], tuple(slice(0, n) for n in SHARD)
    block = level[core]
    block[0, 0, 0] ^= 1
    level.write(core, block)
    found = volseg.verify(volume, sample=0).findings
    assert {f.kind for f in found} >= {"label"}
    assert {f.array for f in found} == {f"labels/{OUT}"}


WRONG = [
    ({"delete": [999]}, r"delete\[0\]: there is no object 999"),
    ({"delete": [[0, 0, 0]]}, r"delete\[0\]: there is no object at \[0, 0, 0\]"),
    ({"delete": [[0, 0, 60]]}, r"\[0, 0, 60\] lies outside 0:20,0:70,0:60"),
    ({"merge": [[1, 998]]}, r"merge\[0\]\[1\]: there is no object 998"),
    ({"merge": [[1, 1]]}, r"merge\[0\]: \[1, 1\] are all of object 1"),
    ({"delete": [1], "merge": [[1, 2]]}, "delete and merge both name object 1"),
    ({"delete": [1], "add": [{"path": "p.tif", "object": 1}]}, "delete and add.0. both name"),
    ({"split": [{"object": 1, "seeds": [[0, 0, 0], "TWO"]}]}, r"\[0, 0, 0\] is background, not ob"),
    ({"split": [{"object": 2, "seeds": ["TWO", "TWO"]}]}, "is named 2 times"),
    ({"split": [{"object": 1, "seeds": ["TWO", "ONE"]}]}, "is object 2, not object 1"),
    ({"add": [{"path": "p.tif", "origin": [19, 0, 0]}]}, "would cover 19:21,0:3,0:3"),
    ({"add": [{"path": "zeros.tif"}]}, "0 everywhere"),
    ({"add": [{"path": "missing.tif"}]}, "missing.tif"),
    ({}, "holds no corrections"),
    ({"deleted": [1]}, "all of it: expected an object with some of add, delete"),
    ({"delete": [1], "delte": [2]}, r"some of add, delete, .*, found \['delte'\]"),
    ({"delete": 1}, "delete: expected a list, found 1"),
    ({"delete": [0]}, "expected a label above 0"),
    ({"delete": [True]}, "expected a label above 0"),
    ({"merge": [[1]]}, "expected two objects or more"),
    ({"split": [{"object": 1, "seeds": ["ONE"]}]}, "expected two voxels or more"),
    ({"split": [{"object": 1}]}, r"split\[0\]: expected an object with some of object, seeds"),
    ({"add": [{"path": 3}]}, "the path of labels, found 3"),
    ({"delete": [[1, 2, float("nan")]]}, r"a voxel \[z, y, x\]"),
]


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    """A volume beside two paintings, in which no test writes."""
    folder = tmp_path_factory.mktemp("intact")
    for name, value in (("p", 7), ("zeros", 0)):
        painted = np.full((2, 3, 3), value, np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", painted, photometric="minisblack")
    return write_volume(folder / "vol.zarr")[0]


@pytest.mark.parametrize(("asked", "message"), WRONG, ids=[m[:30] for _, m in WRONG])
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(volseg, intact, asked, message):
    labels, text = read(intact, NAME)[0], json.dumps(asked)
    for word, label in (("ONE", 1), ("TWO", 2)):
        text = text.replace(f'"{word}"', json.dumps(np.argwhere(labels == label)[0].tolist()))
    file = intact.with_name("asked.json")
    file.write_text(text)
    done = volseg("apply", intact, "--corrections", file, "--json", "--workers", 1)
    assert done.exit_code == 2, done.output
    assert re.search(message, json.loads(done.stdout)["error"])
    assert [path.name for path in (intact / "labels").iterdir() if path.is_dir()] == [NAME]
    assert not [*intact.glob(".volseg/apply-*.jsonl")]


def test_a_rule_by_any_column_keeps_the_same_objects_for_all_blocks(volseg, tmp_path):
    volume, labels = write_volume(tmp_path / "vol.zarr")
    refused = volseg("apply", volume, "--keep", "voxels>9")
    assert (refused.exit_code, "run `volseg stats" in refused.output) == (2, True)
    found = stats(plan_stats(volume, StatsOptions(outline=True)), NoProgress()).columns
    middle = float(f"{np.nanmedian(found['darkness']):.3g}")
    rule = f"darkness>={middle:g}"
    broken = found["label"][found["darkness"] < middle]
    keep = ("--keep", rule, "--keep", "voxels<=1e9", "--keep", rule)
    done = volseg("apply", volume, *keep)
    assert done.exit_code == 0, done.output
    gone = labels[np.isin(labels, broken)].size
    size, part = gone * 250 / 1e9, gone / np.count_nonzero(labels)
    told = f"objects dropped that have no {rule}: {len(broken)} ({size:.3g} µm³, {part:.2%} of the"
    assert told in done.output
    assert "objects dropped that have no voxels<=1e+09: 0\n" in done.output
    np.testing.assert_array_equal(read(volume)[0], np.where(np.isin(labels, broken), 0, labels))
    noted = open_image(volume / "labels" / OUT).attributes["corrections"]
    none = {"objects": 0, "voxels": 0}
    assert noted["rules"] == {rule: {"objects": len(broken), "voxels": gone}, "voxels<=1e+09": none}
    written = volseg("report", volume, "--name", OUT, "--output", tmp_path / "r.html")
    assert written.exit_code == 0, written.output
    page = html.unescape((tmp_path / "r.html").read_text())
    assert f"without {rule}: {len(broken)}, {size:.3g} µm³" in page
    assert noted["operations"] == {"delete": broken.tolist()}
    assert volseg("verify", volume, "--sample", "0").exit_code == 0
    for keep, message in (
        (["voxels>0"], "have voxels>0: there is nothing to drop"),
        (["darknes<3"], "no column 'darknes'; the table has label, voxels"),
        (["darkness~3"], "such as 'darkness>0.4'; found 'darkness~3'"),
        (["voxels<nan"], "found 'voxels<nan'"),
        ([], "give either --corrections or --keep"),
    ):
        flags = [flag for text in keep for flag in ("--keep", text)]
        wrong = volseg("apply", volume, *flags, "--output-name", "other")
        assert (wrong.exit_code, message in wrong.output) == (2, True), wrong.output
    assert not (volume / "labels" / "other").exists()


def write_other(volume: Path, name: str, labels: np.ndarray, shard, roi=None) -> None:
    """Write another result into a volume, in blocks of its own."""
    noted = {"run": {}, "complete": True, "fingerprint": name, "objects": int(labels.max())}
    spec = ArraySpec(SHAPE, "uint32", shard, shard)
    image = create_image(
        volume / "labels" / name,
        spec,
        (10.0, 5.0, 5.0),
        label=True,
        attributes=noted | ({"roi": roi} if roi else {}),
    )
    image.levels[0].write(full_roi(SHAPE), labels)
    register_label(volume, name)


def test_objects_stay_of_which_half_is_found_in_another_result(volseg, tmp_path):
    volume, labels = write_volume(tmp_path / "vol.zarr")
    sizes = np.bincount(labels.ravel())
    # of each object a part in raster order, of the third exactly half or a voxel less
    shares = np.linspace(0, 1, len(sizes))
    parts = np.floor(shares * sizes).astype(int)
    parts[3] = -(-sizes[3] // 2)
    parts[4] = -(-sizes[4] // 2) - 1
    other = np.zeros_like(labels)
    for label in range(1, len(sizes)):
        other.reshape(-1)[np.flatnonzero(labels.ravel() == label)[: parts[label]]] = 9
    other[labels == 0] = 5  # what is found elsewhere says nothing
    write_other(volume, "again", other, (5, 16, 60))
    done = volseg("apply", volume, "--confirmed-by", "again", "--workers", 1)
    assert done.exit_code == 0, done.output
    gone = np.flatnonzero(2 * parts < sizes)[1:]  # 0 is none
    assert 3 not in gone
    assert 4 in gone
    found = read(volume, "mitochondria-confirmed")[0]
    np.testing.assert_array_equal(found, np.where(np.isin(labels, gone), 0, labels))
    told = f"objects dropped that have no confirmation by again: {len(gone)} ("
    assert told in done.output
    noted = open_image(volume / "labels" / "mitochondria-confirmed").attributes["corrections"]
    lost = {"objects": len(gone), "voxels": int(sizes[gone].sum())}
    assert noted["rules"] == {"confirmation by again": lost}
    assert noted["uncorrected"] == NAME
    assert noted["confirmed_by"] == {"labels": "again", "fingerprint": "again"}
    for flags, message in (
        (["--confirmed-by", "no"], "no labels/no"),
        (["--confirmed-by", NAME], "names another result than mitochondria"),
        (["--confirmed-by", "again", "--marks"], "give either --corrections or --keep"),
        (["--confirmed-by", "whole"], "there is nothing to drop"),
        (["--confirmed-by", "part"], "it confirms nothing outside"),
    ):
        write = {"whole": None, "part": [[0, 9], [0, 70], [0, 60]]}
        if (name := flags[1]) in write:
            write_other(volume, name, labels, SHARD, write[name])
        wrong = volseg("apply", volume, *flags, "--output-name", "elsewhere")
        assert (wrong.exit_code, message in wrong.output) == (2, True), wrong.output
        assert not (volume / "labels" / "elsewhere").exists()


def test_the_record_says_which_version_of_which_result_confirmed_the_objects(
    volseg, tmp_path, monkeypatch
):
    quiet = NoProgress()
    volume, labels = write_volume(tmp_path / "vol.zarr")
    even = np.where(labels % 2, 0, labels)
    write_other(volume, "first", even, SHARD)
    write_other(volume, "second", even * 7, SHARD)
    confirmed = "labels/mitochondria-confirmed"

    def told():
        done = volseg("verify", volume, "--sample", 1, "--json")
        findings = json.loads(done.stdout)["findings"]
        return [f["message"] for f in findings if (f["kind"], f["array"]) == ("origin", confirmed)]

    def confirm(*flags):
        return json.loads(volseg("apply", volume, "--json", "--confirmed-by", *flags).stdout)

    stop = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    plan = plan_apply(volume, ApplyOptions(None, confirmed_by="second"), quiet)
    with monkeypatch.context() as patched:
        patched.setattr(Correcting, "_write_coarse", stop)
        with pytest.raises(KeyboardInterrupt):
            apply(plan, quiet)
    # the same objects go, so the first goes on with it, and nothing is computed again
    for name, blocks in (("first", 18), ("second", 0)):
        assert confirm(name)["blocks"] == blocks
        noted = open_image(volume / confirmed).attributes["corrections"]
        assert noted["confirmed_by"] == {"labels": name, "fingerprint": name}
        assert list(noted["rules"]) == [f"confirmation by {name}"]
        assert f"corrected from {NAME} as confirmed by {name}" in volseg("info", volume).stdout
        assert told() == []
    update_attributes(volume / "labels" / "second", {"fingerprint": "new"})
    assert told() == ["it was confirmed by another labels/second; make it again with --overwrite"]
    assert confirm("second", "--overwrite")["blocks"] == 0
    assert told() == []


def test_a_result_of_a_mask_says_that_it_confirms_nothing_outside(volseg, tmp_path):
    volume, labels = write_volume(tmp_path / "vol.zarr")
    told = "segmented within the mask tissue, and"
    write_other(volume, "again", np.where(labels % 2, 0, labels), SHARD)
    shutil.copytree(volume / "probabilities" / NAME, volume / "probabilities" / "again")
    within = {"run": {"mask": {"labels": "tissue", "fingerprint": "abc"}}}
    for name, warned in (("again", True), (NAME, False)):
        update_attributes(volume / "probabilities" / name, within)
        done = volseg("apply", volume, "--confirmed-by", "again")
        assert (done.exit_code, told in done.output) == (0, warned), done.output


def test_so_many_objects_can_be_dropped_that_a_list_of_them_would_be_no_metadata(
    volseg, tmp_path, monkeypatch
):
    volume, labels = write_volume(tmp_path / "vol.zarr")
    single = np.arange(1, labels.size + 1, dtype=np.uint32).reshape(SHAPE)  # an object a voxel
    write_other(volume, "many", single, SHARD)
    write_other(volume, "again", np.where(single % 3, single, 0), SHARD)
    monkeypatch.setattr(stores, "METADATA_BYTES", 100_000)
    done = volseg("apply", volume, "--name", "many", "--confirmed-by", "again", "--workers", 1)
    assert done.exit_code == 0, done.output
    made = open_image(volume / "labels" / "many-confirmed")
    assert made.attributes["objects"] == np.count_nonzero(single % 3)
    np.testing.assert_array_equal(made.levels[0][full_roi(SHAPE)], np.where(single % 3, single, 0))
    verified = volseg("verify", volume, "--sample", 1, "--json")
    told = json.loads(verified.stdout)
    said = [f for f in told["findings"] if f["array"] == "labels/many-confirmed"]
    assert said == []
    assert not [told_of for told_of in told["skipped"] if "many-confirmed" in told_of]
    deleted = made.attributes["corrections"]["operations"]["delete"]
    assert count_entries(deleted) == np.count_nonzero(single % 3 == 0)


@pytest.mark.parametrize("packed", ["", "no base64!", "bm8gemxpYg==", "eJxjYGBgYGRkZGQEAAAgAAQ="])
def test_packed_numbers_that_nobody_packed_are_refused(packed):
    with pytest.raises(ParameterError, match="delete: expected a list, found"):
        read_corrections({"delete": packed})


def test_tables_of_earlier_versions_have_no_brightness_and_stay_current(volseg, tmp_path):
    volume, labels = write_volume(tmp_path / "vol.zarr")
    objects = stats(plan_stats(volume, StatsOptions()), NoProgress()).summary.objects
    columns, units, noted = read_columns(volume / "tables" / f"{NAME}.parquet")
    assert "brightness" in columns
    for table in (columns, units):
        del table["brightness"]
    write_table(volume / "tables" / f"{NAME}.parquet", columns, units, noted)
    refused = volseg("apply", volume, "--keep", "brightness<0.4")
    told = f"brightness is not measured: run `volseg stats {volume}` first"
    assert (refused.exit_code, told in refused.output) == (2, True), refused.output
    (tmp_path / "asked.json").write_text(json.dumps({"delete": [1], "merge": [[2, 3]]}))
    done = volseg("apply", volume, "--corrections", tmp_path / "asked.json")
    assert (done.exit_code, "other columns" in done.output) == (0, False), done.output
    kept = read_columns(volume / "tables" / f"{OUT}.parquet")[0]
    assert set(kept) == set(columns)
    assert len(kept["label"]) == objects - 2
    joined = kept["voxels"][kept["label"] == 2]
    assert joined == np.isin(labels, (2, 3)).sum()


@pytest.mark.parametrize(
    ("rules", "flags"),
    [(["brightness<0.4"], ""), (["voxels>9", "darkness>0.4"], " --outline")],
)
def test_a_rule_without_a_table_names_the_measuring_that_it_needs(volseg, intact, rules, flags):
    done = volseg("apply", intact, *(f"--keep={rule}" for rule in rules))
    assert done.exit_code == 2
    assert f"run `volseg stats {intact}{flags}` first" in done.output


def test_a_table_with_brightness_is_not_kept_up_where_nobody_counts_intensities(volume):
    volseg.stats(volume, workers=1)
    update_attributes(volume, {}, "histogram")
    report = volseg.apply(volume, corrections={"merge": [[2, 3]]}, workers=1)
    assert report.table is None
    (note,) = report.notes
    assert "has other columns, so run `volseg stats" in note


def test_seeds_between_voxels_are_those_of_the_nearest():
    asked = read_corrections({"delete": [[0.4, 1.5, 2]]})
    assert asked.delete == ((0, 2, 2),)


def write_foreign(volume, labels):
    """Write labels as other programs do, in other chunks and without a fingerprint."""
    import zarr

    array = zarr.create_array(
        volume / "labels" / "foreign", shape=SHAPE, dtype=labels.dtype, chunks=(7, 20, 60)
    )
    array[:] = labels
    return array


def test_labels_that_others_wrote_are_corrected_in_all_blocks(volume):
    labels = read(volume, NAME)[0].astype(np.uint16)
    write_foreign(volume, labels)
    report = volseg.apply(volume, name="foreign", corrections={"delete": [2]})
    np.testing.assert_array_equal(read(volume, "foreign-corrected")[0], labels * (labels != 2))
    assert report.objects == labels.max() - 1
    # the labels of others lie in the volume as they did when they were corrected
    assert not [f for f in volseg.verify(volume).findings if "corrected" in f.array]


def test_small_and_very_large_labels_are_merged(volume):
    labels = read(volume, NAME)[0].astype(np.uint64)
    labels[labels == 2], labels[labels == 3], labels[labels == 4] = 2**53, 2**53 + 1, 2**63 + 5
    write_foreign(volume, labels)
    volseg.apply(volume, name="foreign", corrections={"merge": [[1, 2**63 + 5], [5, 2**53 + 1]]})
    labels[labels == 2**63 + 5], labels[labels == 2**53 + 1] = 1, 5
    np.testing.assert_array_equal(read(volume, "foreign-corrected")[0], labels)


def test_very_large_labels_are_confirmed(volume):
    labels = read(volume, NAME)[0].astype(np.uint64)
    write_other(volume, "again", (labels > 4).astype(np.uint32), SHARD)
    labels[labels == 2], labels[labels == 3], labels[labels == 7] = 2**53, 2**53 + 1, 2**63 + 5
    labels[labels == 4] = 2**63 + 7
    write_foreign(volume, labels)
    volseg.apply(volume, name="foreign", confirmed_by="again")
    kept = ~np.isin(labels, np.array([1, 2**53, 2**53 + 1, 2**63 + 7], np.uint64))
    np.testing.assert_array_equal(read(volume, "foreign-confirmed")[0], labels * kept)


@pytest.mark.filterwarnings("ignore:.*is taken as a mask:UserWarning")
def test_numbers_that_are_no_objects_of_their_own_drop_none(volume):
    """Components of a mask have numbers in the table only, objects of images one in each."""
    labels = read(volume, NAME)[0].astype(np.uint16)
    write_other(volume, "again", (labels > 4).astype(np.uint32), SHARD)
    mask = write_foreign(volume, (labels > 0).astype(np.uint16))

    def refuse(told):
        volseg.stats(volume, name="foreign", measure="basic", workers=1)
        (least, *_, most) = np.sort(read_columns(volume / "tables/foreign.parquet")[0]["voxels"])
        for asked in ({"keep": f"voxels>{(least + most) // 2}"}, {"confirmed_by": "again"}):
            with pytest.raises(ParameterError, match=told):
                volseg.apply(volume, name="foreign", **asked)

    refuse("foreign is a mask, whose objects have no numbers; `volseg label .* --name NEW` gives")
    # of a volume they are one object each, through all slices
    mask[:] = labels
    assert volseg.apply(volume, name="foreign", confirmed_by="again").objects == labels.max() - 4
    names = [f"{z}.tif" for z in range(SHAPE[0])]
    update_attributes(volume, {"images": {"sizes": [[70, 60]] * SHAPE[0], "names": names}})
    refuse("foreign has the same numbers in several images")
    assert not (volume / "labels" / "foreign-corrected").exists()


def test_a_painting_that_lies_in_the_outcome_is_not_removed(volume):
    volseg.apply(volume, corrections={"delete": [2]})
    before, inside = read(volume)[0], volume / "labels" / ".." / "labels" / OUT
    asked = {"add": [{"path": str(inside), "object": 3}]}
    with pytest.raises(ConflictError, match="give another --output-name"):
        volseg.apply(volume, corrections=asked, overwrite=True)
    np.testing.assert_array_equal(read(volume)[0], before)
    assert volseg.apply(volume, corrections=asked, output_name="other").objects


def test_labels_of_others_that_changed_are_no_longer_those_that_were_corrected(volume):
    labels = read(volume, NAME)[0].astype(np.uint16)
    array, asked = write_foreign(volume, labels), {"delete": [2]}
    volseg.apply(volume, name="foreign", corrections=asked)
    assert volseg.apply(volume, name="foreign", corrections=asked).blocks == 0
    array[:2] = 900
    with pytest.raises(ConflictError, match="made with voxels"):
        volseg.apply(volume, name="foreign", corrections=asked)
    volseg.apply(volume, name="foreign", corrections=asked, overwrite=True)
    assert (read(volume, "foreign-corrected")[0][:2] == 900).all()


def test_a_killed_run_goes_on(volume, monkeypatch):
    from volseg.stages.apply import run

    labels = read(volume, NAME)[0]
    seeds = np.argwhere(labels == 5)[[0, -1]].tolist()
    asked = {"delete": [1, 2, 3], "split": [{"object": 5, "seeds": seeds}]}
    whole = correct_whole(labels, {"merge": [], "add": [], **asked}, volume, (2, 1, 1))
    steps = ["_create", "_write_blocks", "_write_coarse"]
    for step in steps:
        stop = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
        with monkeypatch.context() as patched:
            patched.setattr(run.Correcting, step, stop)
            with pytest.raises(KeyboardInterrupt):
                volseg.apply(volume, corrections=asked, workers=1)
        assert open_image(volume / "labels" / NAME).attributes.get("complete") is not False
    with monkeypatch.context() as patched:
        patched.setattr(run, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            volseg.apply(volume, corrections=asked, workers=1)
    assert volseg.apply(volume, corrections=asked).objects == len(np.unique(whole)) - 1
    np.testing.assert_array_equal(read(volume)[0], whole)


def test_other_verbs_take_the_corrected_result(volume, tmp_path):
    volseg.apply(volume, corrections={"delete": [1]})
    measured = volseg.stats(volume, name=OUT)
    assert "probability_mean" in measured.columns
    found = volseg.evaluate(volume, name=OUT, truth=NAME)
    assert (found.objects.matched, found.curves is None) == (measured.summary.objects, False)
    page = volseg.report(volume, name=OUT, output=tmp_path / "page.html")
    text = page.path.read_text()
    assert "were then corrected by hand (1 × delete)" in text
    from volseg.stages.view.plan import ViewOptions, plan_view

    assert "probabilities" in plan_view(volume, ViewOptions(name=OUT, at=2)).layers
    assert volseg.api.opening.info(volume)["labels"][OUT]["corrected_from"] == NAME
