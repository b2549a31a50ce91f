"""A ledger speaks for the images that bear its mark, and for no others."""

from __future__ import annotations

import pytest

from volseg.errors import ConflictError
from volseg.io.arrays import fit_spec
from volseg.io.ledger import MARK, Ledger
from volseg.io.volumes import create_image, open_image
from volseg.stages import results
from volseg.stages.results import fingerprint, finish, is_complete, is_told_of

HEADER = {"model": "abc"}


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path / "ledger.jsonl", HEADER)


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
