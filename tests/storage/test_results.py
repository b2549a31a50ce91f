"""A ledger speaks for the images that bear its mark, and for no others."""

from __future__ import annotations

import pytest

from volseg.errors import ConflictError
from volseg.storage import results
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import update_attributes, write_group
from volseg.storage.files import discard
from volseg.storage.ledger import MARK, Ledger
from volseg.storage.results import fingerprint, finish, is_complete, is_told_of
from volseg.storage.volumes import create_image, open_image

HEADER = {"model": "abc"}


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.jsonl", HEADER) as opened:
        yield opened


def create(path, mark):
    attributes = {"complete": False, "run": HEADER} | ({MARK: mark} if mark else {})
    create_image(path, fit_spec((4, 8, 8), "uint8"), None, attributes=attributes)
    return path


@pytest.fixture
def on_object_storage(monkeypatch):
    monkeypatch.setattr(results, "as_remote", lambda path: path)


def test_an_image_is_finished_once_and_forgets_its_mark(tmp_path, ledger):
    output = create(tmp_path / "image", ledger.mark)
    assert is_told_of(output, ledger)
    for _ in range(2):
        finish(output, ledger, HEADER)
        attributes = open_image(output).attributes
        assert MARK not in attributes
        assert attributes["fingerprint"] == fingerprint(HEADER)
        assert is_complete(output, HEADER, overwrite=False)


@pytest.mark.parametrize("mark", [None, "of another run"])
def test_what_stands_in_its_place_is_not_what_is_on_record(tmp_path, ledger, mark):
    assert not is_told_of(tmp_path / "image", ledger)
    output = create(tmp_path / "image", mark)
    assert not is_told_of(output, ledger)
    with pytest.raises(ConflictError, match="removed or begun anew"):
        finish(output, ledger, HEADER)
    assert open_image(output).attributes["complete"] is False


@pytest.mark.usefixtures("on_object_storage")
def test_a_ledger_on_another_machine_is_respected(tmp_path, ledger):
    output = create(tmp_path / "image", "of another run")
    with pytest.raises(ConflictError, match="begun by a run whose scratch is not"):
        is_told_of(output, ledger)
    assert is_told_of(create(tmp_path / "own", ledger.mark), ledger)


@pytest.mark.parametrize("complete", [True, False])
def test_how_a_complete_result_was_parted_does_not_matter(tmp_path, complete):
    output = create(tmp_path / "image", None)
    update_attributes(output, {"complete": complete, "run": {**HEADER, "block": [4, 4, 4]}})
    now = {**HEADER, "block": [4, 8, 8]}
    if complete:
        assert is_complete(output, now, overwrite=False)
    for stricter in (True,) if complete else (True, False):
        message = "was made in blocks of 4 x 4 x 4; you ask for blocks of 4 x 8 x 8"
        message += "; give the --block that it was made with" if complete else ""
        with pytest.raises(ConflictError, match=message):
            is_complete(output, now, overwrite=False, same_blocks=stricter)
    with pytest.raises(ConflictError, match="with the model abc"):
        is_complete(output, {**now, "model": "def"}, overwrite=False)


CPU = {"device": "cpu"}
HERE = {"device": "cuda", "batch": 32, "gpu": "Fast 9"}
SMALLER = {"device": "cuda", "batch": 8, "gpu": "Slow 1"}


@pytest.mark.parametrize(
    ("theirs", "ours", "advice"),
    [
        (HERE | {"batch": 8}, HERE, "; give --batch 8 to go on with it, choose"),
        (SMALLER, HERE, "; give --batch 8 and run it on a GPU of the kind Slow 1 to go on with"),
        (CPU, HERE, "; give --device cpu and no --batch to go on with it, choose"),
        ({"device": "cuda"}, HERE, "; choose another --name"),
    ],
)
def test_a_run_on_another_gpu_is_refused_with_the_way_to_go_on(tmp_path, theirs, ours, advice):
    output = create(tmp_path / "image", None)
    update_attributes(output, {"run": {**HEADER, **theirs}})
    with pytest.raises(ConflictError, match=advice):
        is_complete(output, {**HEADER, **ours}, overwrite=False)


def _channels(path):
    write_group(path, {"ome": {"multiscales": [{"axes": [{"name": "c"}], "datasets": []}]}})


def _version_2(path):
    path.mkdir()
    (path / ".zattrs").write_text("{}")


def _file(path):
    path.write_text("mine")


@pytest.mark.parametrize("make", [_channels, _version_2, _file])
def test_what_cannot_be_opened_is_not_replaced_unasked(tmp_path, make):
    make(tmp_path / "image")
    with pytest.raises(ConflictError, match="in the way and not of this run"):
        is_complete(tmp_path / "image", HEADER, overwrite=False)
    assert not is_complete(tmp_path / "image", HEADER, overwrite=True)


@pytest.mark.parametrize("lost", ["0", "zarr.json"])
def test_what_a_killed_run_left_is_begun_anew(tmp_path, lost):
    output = create(tmp_path / "image", None)
    discard(output / lost)
    assert not is_complete(output, HEADER, overwrite=False)
    if lost == "0":
        with pytest.raises(ConflictError, match="in the way"):
            is_complete(output, {"model": "def"}, overwrite=False)
