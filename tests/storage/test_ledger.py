"""The ledger survives kills, and refuses to mix two runs."""

from __future__ import annotations

import pytest

from volseg.errors import ConflictError
from volseg.storage.ledger import MARK, Ledger

HEADER = {"model": "abc", "roi": [[0, 4], [0, 4], [0, 4]]}


def opened(path, header):
    """Open a ledger, and release its lock."""
    with Ledger.open(path, header) as ledger:
        return ledger


def test_records_are_found_again(tmp_path):
    path = tmp_path / "run" / "ledger.jsonl"
    ledger = opened(path, HEADER)
    ledger.record("0-0-0", {"voxels": 7})
    ledger.record("0-0-1")
    again = opened(path, HEADER)
    assert again.records == {"0-0-0": {"voxels": 7}, "0-0-1": None}


@pytest.mark.parametrize("kept", range(1, 30, 4))
def test_a_torn_last_line_counts_as_not_written(tmp_path, kept):
    path = tmp_path / "ledger.jsonl"
    opened(path, HEADER).record("0-0-0")
    whole = path.read_bytes()
    opened(path, HEADER).record("0-0-1", {"a": [1, 2, 3]})
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    ledger = opened(path, HEADER)
    assert set(ledger.records) == {"0-0-0"}
    ledger.record("0-0-2")
    assert set(opened(path, HEADER).records) == {"0-0-0", "0-0-2"}


def test_a_torn_header_begins_anew(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"model": "a')
    assert not opened(path, HEADER).records


def test_another_header_is_refused_and_the_difference_shown(tmp_path):
    path = tmp_path / "ledger.jsonl"
    opened(path, HEADER)
    with pytest.raises(ConflictError, match="with the model abc; you ask for the model xyz"):
        opened(path, {**HEADER, "model": "xyz"})


def test_a_ledger_keeps_its_mark_even_if_it_begins_anew(tmp_path):
    ledger = opened(tmp_path / "ledger.jsonl", HEADER)
    mark = ledger.mark
    ledger.record("0-0-0")
    ledger.restart()
    assert ledger.records == {MARK: mark}
    again = opened(tmp_path / "ledger.jsonl", HEADER)
    assert (again.mark, set(again.records)) == (mark, {MARK})
    assert opened(tmp_path / "other.jsonl", HEADER).mark != mark
