"""Copies as Zarr v2 beside a volume's own files, read by what knows v2 alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

import volseg as front
from toy_volumes import write_labels, write_raw
from volseg.errors import ConflictError, ParameterError, StorageError, VolumeError
from volseg.exchange.volumes import in_place, zarr_v2
from volseg.geometry.grid import full_roi
from volseg.storage import copies
from volseg.storage.arrays import fit_spec
from volseg.storage.ledger import locked
from volseg.storage.ome import Space
from volseg.storage.results import NewImage, create_images
from volseg.storage.volumes import labels_path, open_image, scratch_path

SHAPE, SIZE, ORIGIN = (12, 140, 150), (30.0, 5.0, 4.0), (600.0, 50.0, 92.0)
SPACE = Space(SIZE, ORIGIN, ("nanometer",) * 3)
NAME = "mitochondria"


@pytest.fixture
def volume(tmp_path):
    raw = np.random.default_rng(2).integers(0, 255, SHAPE, np.uint8)
    raw[:, :, 128:] = 0  # chunks of which there is no file
    path = write_raw(tmp_path / "vol.zarr", raw, (16, 64, 64), SPACE)
    labels = np.zeros(SHAPE, np.uint32)
    labels[2:9, 10:40, 10:30], labels[5:11, 30:130, 40:80] = 1, 70_000
    write_labels(path, labels, SPACE, objects=2, highest=70_000)
    return path


def files_of(volume):
    """Read all files but scratch."""
    found = sorted(p for p in volume.rglob("*") if p.is_file() and ".volseg" not in p.parts)
    return {str(p.relative_to(volume)): p.read_bytes() for p in found}


def read_by_hand(array):
    """Read an array of Zarr v2 from its description; a chunk without a file is filled."""
    described = json.loads((array / ".zarray").read_text())
    assert described["zarr_format"] == 2
    assert (described["order"], described["filters"]) == ("C", None)
    codec = numcodecs.get_codec(described["compressor"])
    shape, chunk = described["shape"], described["chunks"]
    whole = np.full(shape, described["fill_value"], described["dtype"])
    for index in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunk, strict=True))):
        file = array / described["dimension_separator"].join(map(str, index))
        if file.exists():
            box = tuple(slice(k * c, (k + 1) * c) for k, c in zip(index, chunk, strict=True))
            found = np.frombuffer(codec.decode(file.read_bytes()), described["dtype"])
            whole[box] = found.reshape(chunk)[tuple(slice(n) for n in whole[box].shape)]
    return whole


def check_copy(path):
    """Check all levels, their sizes and places, read without Zarr v3."""
    source = open_image(path)
    assert json.loads((path / ".zgroup").read_text()) == {"zarr_format": 2}
    attributes = json.loads((path / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    assert multiscale["version"] == "0.4"
    assert [(a["name"], a["unit"]) for a in multiscale["axes"]] == [(a, "nanometer") for a in "zyx"]
    group = zarr.open_group(path, mode="r", zarr_format=2)
    for dataset, level, factor in zip(
        multiscale["datasets"], source.levels, source.factors, strict=True
    ):
        expected = level[full_roi(level.shape)]
        for found in (read_by_hand(path / dataset["path"]), group[dataset["path"]][...]):
            assert found.dtype == level.dtype
            np.testing.assert_array_equal(found, expected)
        scale, shift = (step[step["type"]] for step in dataset["coordinateTransformations"])
        np.testing.assert_allclose(scale, np.multiply(SIZE, factor))
        np.testing.assert_allclose(shift, ORIGIN + np.multiply(SIZE, np.subtract(factor, 1)) / 2)
    return attributes


def test_readers_of_v2_alone_open_the_volume_itself(volseg, volume):
    before = files_of(volume)
    done = volseg("export", volume, "labels", "--in-place")
    assert done.exit_code == 0, done.output
    assert "as much again as" in done.stderr
    assert f"`volseg export {volume} raw --in-place`" in done.stderr
    assert front.export(volume, "raw", in_place=True).notes == ()
    assert "image-label" not in check_copy(volume)
    listed = json.loads((volume / "labels" / ".zattrs").read_text())["labels"]
    assert listed == [NAME]
    assert (volume / "labels" / ".zgroup").exists()
    label = check_copy(volume / "labels" / listed[0])["image-label"]
    assert label == {"version": "0.4", "source": {"image": "../../"}}
    after = files_of(volume)
    assert {k: v for k, v in after.items() if k in before} == before
    added = {Path(k).name for k in set(after) - set(before) if Path(k).name.startswith(".")}
    assert added == {".zgroup", ".zattrs", ".zarray"}
    group = zarr.open_group(volume, mode="r", zarr_format=3)
    np.testing.assert_array_equal(group["0"][...], open_image(volume).levels[0][full_roi(SHAPE)])


def test_commands_read_the_volume_as_before_and_tell_of_the_copy(volseg, volume, tmp_path):
    front.export(volume, "raw", in_place=True)
    front.export(volume, "labels", in_place=True)
    for command in (
        ("info", volume),
        ("verify", volume),
        ("stats", volume),
        ("convert", volume, tmp_path / "other.zarr"),
        ("export", volume, "raw", "--output", tmp_path / "a.zarr"),
    ):
        done = volseg(*command)
        assert done.exit_code == 0, done.output
        assert "Warning" not in done.output
        assert "format" not in done.output
    assert volseg("info", volume).stdout.count("and a copy as Zarr v2") == 2
    np.testing.assert_array_equal(
        front.open(tmp_path / "other.zarr").raw[...], open_image(volume).levels[0][full_roi(SHAPE)]
    )
    assert not copies.is_copied(tmp_path / "other.zarr")


def test_removing_a_copy_leaves_what_was_there(volseg, volume):
    before = files_of(volume)
    front.export(volume, "raw", in_place=True)
    front.export(volume, "labels", in_place=True)
    with pytest.raises(ConflictError, match="--overwrite to make it anew, or remove it with"):
        front.export(volume, "labels", in_place=True)
    front.export(volume, "labels", in_place=True, overwrite=True)
    done = volseg("export", volume, "labels", "--in-place", "--remove")
    assert done.exit_code == 0, done.output
    assert "its copy as Zarr v2 is removed" in done.stdout
    assert not (volume / "labels" / ".zattrs").exists()
    check_copy(volume)
    front.export(volume, "raw", in_place=True, remove=True)
    assert files_of(volume) == before
    with pytest.raises(VolumeError, match="has no copy as Zarr v2; `volseg export"):
        front.export(volume, "raw", in_place=True, remove=True)


def replace_labels(volume):
    image = open_image(labels_path(volume, NAME))
    spec = image.levels[0]
    new = NewImage(image.path, fit_spec(spec.shape, spec.dtype.name), SPACE, {}, label=True)
    create_images([new])


def test_a_result_that_is_replaced_takes_its_copy_along(volume):
    front.export(volume, "labels", in_place=True)
    write_labels(volume, np.ones(SHAPE, np.uint32), SPACE, "second")
    front.export(volume, "labels", in_place=True, name="second")
    assert json.loads((volume / "labels" / ".zattrs").read_text())["labels"] == [NAME, "second"]
    replace_labels(volume)
    assert json.loads((volume / "labels" / ".zattrs").read_text())["labels"] == ["second"]
    assert not list((volume / "labels" / NAME).rglob(".z*"))
    check_copy(volume / "labels" / "second")
    front.apply(volume, corrections={"delete": [1]}, name="second", workers=1)
    assert json.loads((volume / "labels" / ".zattrs").read_text())["labels"] == ["second"]


def test_a_volume_that_is_converted_again_has_no_copy(volume, tmp_path):
    front.export(volume, "raw", in_place=True)
    shutil.copytree(volume, tmp_path / "source.zarr")
    front.convert(tmp_path / "source.zarr", volume, overwrite=True)
    assert not list(volume.rglob(".z*"))


@pytest.mark.parametrize("at", ["chunk", "metadata"])
def test_what_was_interrupted_is_not_read_and_goes_on(at, volume, monkeypatch):
    monkeypatch.setattr(zarr_v2, "BLOCK", (64, 128, 128))
    real, done = (zarr_v2.CopyBlock.__call__, copies.write_file), []

    def copy(task, block):
        assert not list(volume.rglob(".zarray")), "an array that is not whole is seen"
        if at == "chunk" and block.index == (0, 1, 1):
            raise OSError(28, "No space left on device")
        real[0](task, block)
        done.append((task.cut.shape, block.index))

    def write(path, *content):
        if at == "metadata" and path.name == ".zattrs":
            raise StorageError("the disk is full")
        real[1](path, *content)

    with monkeypatch.context() as patch:
        patch.setattr(zarr_v2.CopyBlock, "__call__", copy)
        patch.setattr(copies, "write_file", write)
        with pytest.raises(StorageError, match=r"the copy in .* is incomplete; |the disk is full"):
            front.export(volume, "raw", in_place=True, workers=1)
    with pytest.raises(FileNotFoundError):
        zarr.open_group(volume, mode="r", zarr_format=2)
    assert front.verify(volume, quick=True).skipped == ("raw: its copy as Zarr v2 is unfinished",)
    again = []

    def count(task, block):
        again.append((task.cut.shape, block.index))
        real[0](task, block)

    monkeypatch.setattr(zarr_v2.CopyBlock, "__call__", count)
    front.export(volume, "raw", in_place=True, workers=1)
    assert set(again).isdisjoint(done)
    assert len(done) >= 3
    check_copy(volume)
    assert not copies.is_unfinished(volume)


def test_what_was_begun_for_a_result_that_was_replaced_begins_anew(volume, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr_v2.CopyBlock, "__call__", fail)
        with pytest.raises(StorageError, match=r"the copy in .* is incomplete; the same"):
            front.export(volume, "labels", in_place=True)
    shutil.rmtree(labels_path(volume, NAME))
    write_labels(volume, np.full(SHAPE, 5, np.uint32), SPACE)
    front.export(volume, "labels", in_place=True)
    check_copy(labels_path(volume, NAME))


def test_labels_that_are_replaced_while_they_are_copied(volume, monkeypatch):
    real = zarr_v2.CopyBlock.__call__

    def replace_too(task, block):
        if copies.is_unfinished(labels_path(volume, NAME)):
            replace_labels(volume)
        real(task, block)

    monkeypatch.setattr(zarr_v2.CopyBlock, "__call__", replace_too)
    with pytest.raises(ConflictError, match="was replaced while it was copied"):
        front.export(volume, "labels", in_place=True, workers=1)
    assert not list(volume.rglob(".z*"))
    assert not left_chunks(volume)
    (labels_path(volume, NAME) / "0" / "0" / "0").mkdir(parents=True)
    (labels_path(volume, NAME) / "0" / "0" / "0" / "0").write_bytes(b"left")
    front.export(volume, "labels", in_place=True, remove=True)
    assert not left_chunks(volume)


def left_chunks(volume):
    return [p for p in labels_path(volume, NAME).glob("*/*") if p.name.isdigit()]


def test_labels_that_are_replaced_when_their_copy_is_complete(volume, monkeypatch):
    real = copies.write_file

    def write(path, *content):
        if path.name == ".zattrs" and path.parent.name == NAME:
            replace_labels(volume)
        real(path, *content)

    monkeypatch.setattr(copies, "write_file", write)
    with pytest.raises(ConflictError, match="was replaced while it was copied"):
        front.export(volume, "labels", in_place=True, workers=1)
    assert not list(volume.rglob(".z*"))
    assert not left_chunks(volume)


@pytest.mark.parametrize("verb", ["label", "apply"])
def test_who_copies_labels_and_who_replaces_them_wait_for_each_other(verb, volume, monkeypatch):
    before, lock = files_of(volume), scratch_path(volume) / f"{verb}-{NAME}.lock"
    with locked(lock), pytest.raises(ConflictError, match="is working on this run now"):
        front.export(volume, "labels", in_place=True)
    assert files_of(volume) == before
    real = zarr_v2.CopyBlock.__call__

    def replace_too(task, block):
        with pytest.raises(ConflictError, match="is working on this run now"), locked(lock):
            replace_labels(volume)
        real(task, block)

    monkeypatch.setattr(zarr_v2.CopyBlock, "__call__", replace_too)
    front.export(volume, "labels", in_place=True, workers=1)
    check_copy(labels_path(volume, NAME))


def test_labels_that_are_replaced_before_their_copy_is_begun(volume, monkeypatch):
    def look(*_):
        replace_labels(volume)
        return "the copy takes little"

    monkeypatch.setattr(in_place, "tell_room", look)
    with pytest.raises(ConflictError, match="was changed in the meantime"):
        front.export(volume, "labels", in_place=True)
    assert not list(volume.rglob(".z*"))


@pytest.mark.parametrize("file", [".zattrs", "0/.zarray"])
@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"remove": True}])
def test_what_another_program_wrote_stays(file, options, volume):
    (volume / "0" / "0" / "0").mkdir(parents=True)
    (volume / "0" / "0" / "0" / "0").write_bytes(b"theirs")
    (volume / file).write_text("{}")
    before = files_of(volume)
    with pytest.raises(ConflictError, match="is of Zarr v2 and not of volseg"):
        front.export(volume, "raw", in_place=True, **options)
    assert files_of(volume) == before


def test_groups_of_another_program_stay(volume):
    (volume / "labels" / ".zattrs").write_text('{"labels": ["theirs"]}')
    (volume / "labels" / ".zgroup").write_text('{"zarr_format": 2}')
    before = files_of(volume)
    front.export(volume, "raw", in_place=True)
    front.export(volume, "raw", in_place=True, remove=True)
    assert files_of(volume) == before


def test_what_is_not_there_is_told_by_the_names_of_results(volume):
    with pytest.raises(VolumeError, match=f"there is {NAME} in labels"):
        front.export(volume, "labels", in_place=True, name="nope")


def test_verify_compares_copies(volseg, volume):
    front.export(volume, "labels", in_place=True)
    other = np.full((12, 128, 128), 9, np.uint32)
    place = labels_path(volume, NAME) / "0"
    codec = numcodecs.get_codec(json.loads((place / ".zarray").read_text())["compressor"])
    (place / "0" / "0" / "0").write_bytes(codec.encode(other))
    done = volseg("verify", volume, "--quick")
    assert done.exit_code == 0, done.output
    done = volseg("verify", volume)
    assert done.exit_code == 1
    assert "its copy as Zarr v2 has 9, expected 0" in done.stdout
    assert f"volseg export {volume} labels --in-place --overwrite" in done.stdout
    (place / "0" / "0" / "0").write_bytes(b"torn")
    found = front.verify(volume).findings
    assert [f.kind for f in found] == ["copy"]
    front.export(volume, "labels", in_place=True, overwrite=True)
    assert front.verify(volume).ok
    file = labels_path(volume, NAME) / ".zattrs"
    file.write_text(file.read_text().replace("30.0", "40.0"))
    (found,) = front.verify(volume).findings
    assert "states other sizes, places or levels" in found.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1}, "leave out --level, --roi and --dtype"),
        ({"roi": "0:4,:,:"}, "leave out --level"),
        ({"what": "table"}, "labels, probabilities or raw"),
        ({"output": "a.zarr"}, "give --output, the file or folder"),
        ({"in_place": False}, "or --in-place, for a copy in the volume"),
        ({"in_place": False, "output": "a.zarr", "remove": True}, "leave out --output"),
        ({"what": "labels", "name": "../.."}, "a name is that of one folder"),
        ({"objects": [1]}, "--object chooses"),
    ],
)
def test_what_does_not_go_together(options, message, volume):
    what = {"what": "raw", "in_place": True, **options}
    with pytest.raises(ParameterError, match=message):
        front.export(volume, what.pop("what"), **what)
    assert not list(volume.rglob(".z*"))


@pytest.mark.parametrize("form", ["v2", "migrated", "plain", "channels", "zip"])
def test_volumes_of_others_that_have_no_place_for_a_copy(form, volseg, tmp_path):
    raw, path = np.ones((4, 20, 20), np.uint8), tmp_path / "v.zarr"
    axes = [{"name": a, "type": "space"} for a in "zyx"]
    if form == "plain":
        zarr.create_array(path, data=raw)
    else:
        version = 2 if form == "v2" else 3
        group = zarr.create_group(path, zarr_format=version)
        if form == "channels":
            raw, axes = raw[None], [{"name": "c", "type": "channel"}, *axes]
        keys = {"name": "v2", "separator": "/"} if form in ("v2", "migrated") else None
        group.create_array("0", data=raw, chunk_key_encoding=keys)
        datasets = [
            {
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": [1] * raw.ndim}],
            }
        ]
        described = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
        group.attrs.update(described if form == "v2" else {"ome": {"version": "0.5", **described}})
    if form == "zip":
        path = Path(shutil.make_archive(str(path), "zip", path))
    before = files_of(tmp_path)
    done = volseg("export", path, "raw", "--in-place")
    assert done.exit_code == 2, done.output
    said = {
        "v2": "is readable already",
        "migrated": "under the names that those of Zarr v2 have",
        "plain": "is a plain array",
        "channels": "is of more than three axes",
        "zip": "is in a zip file",
    }
    assert said[form] in done.stderr
    assert volseg("export", path, "raw", "--in-place", "--remove").exit_code == 2
    assert files_of(tmp_path) == before


def test_labels_in_a_volume_of_zarr_v2(tmp_path):
    path = write_raw(tmp_path / "vol.zarr", np.ones((4, 20, 20), np.uint8), (8, 32, 32), SPACE)
    front.export(path, "raw", output=tmp_path / "v2.zarr")
    labels = np.zeros((4, 20, 20), np.uint32)
    labels[1:3, 4:9, 4:9] = 3
    write_labels(tmp_path / "v2.zarr", labels, SPACE)
    assert not copies.is_copied(tmp_path / "v2.zarr")
    front.export(tmp_path / "v2.zarr", "labels", in_place=True)
    np.testing.assert_array_equal(read_by_hand(tmp_path / "v2.zarr/labels" / NAME / "0"), labels)


def test_too_little_room_is_told_before_anything_is_written(volseg, volume, monkeypatch):
    before = files_of(volume)
    monkeypatch.setattr(in_place.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    done = volseg("export", volume, "raw", "--in-place")
    assert done.exit_code == 1
    assert "needs about" in done.stderr
    assert files_of(volume) == before


def test_room_is_for_all_copies_together(volume, monkeypatch):
    image = open_image(volume)
    needed, _ = copies.size_of_copy(image)
    usage = shutil._ntuple_diskusage(0, 0, needed + needed // 2)
    monkeypatch.setattr(in_place.shutil, "disk_usage", lambda _: usage)
    assert len(in_place.tell_room([image])) == 1
    with pytest.raises(StorageError, match="needs about"):
        in_place.tell_room([image, image])


def test_raw_has_no_name(volseg, volume):
    done = volseg("export", volume, "raw", "--in-place", "--name", "nope")
    assert done.exit_code == 2
    assert "raw has no --name" in done.stderr


def test_of_several_names_copies_that_are_whole_are_kept(volume):
    write_labels(volume, np.full(SHAPE, 3, np.uint32), SPACE, name="others")
    front.export(volume, "labels", in_place=True)
    before, told = files_of(volume / "labels" / NAME), []
    both = f"{NAME},others"
    front.export_all(volume, "labels", name=both, in_place=True, on_note=told.append)
    assert any("which is kept" in note for note in told)
    assert files_of(volume / "labels" / NAME) == before
    assert (read_by_hand(volume / "labels" / "others" / "0") == 3).all()
    with pytest.raises(ConflictError, match="already"):
        front.export_all(volume, "labels", name=both, in_place=True)
