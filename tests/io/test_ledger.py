"""The ledger survives kills, and refuses to mix two runs."""

from __future__ import annotations

import pytest

from volseg.errors import ConflictError
from volseg.io.ledger import Ledger

HEADER = {"model": "abc", "roi": [[0, 4], [0, 4], [0, 4]]}


def test_records_are_found_again(tmp_path):
    path = tmp_path / "run" / "ledger.jsonl"
    ledger = Ledger.open(path, HEADER)
    ledger.record("0-0-0", {"voxels": 7})
    ledger.record("0-0-1")
    again = Ledger.open(path, HEADER)
    assert again.records == {"0-0-0": {"voxels": 7}, "0-0-1": None}


@pytest.mark.parametrize("kept", range(1, 30, 4))
def test_a_torn_last_line_counts_as_not_written(tmp_path, kept):
    path = tmp_path / "ledger.jsonl"
    Ledger.open(path, HEADER).record("0-0-0")
    whole = path.read_bytes()
    Ledger.open(path, HEADER).record("0-0-1", {"a": [1, 2, 3]})
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    ledger = Ledger.open(path, HEADER)
    assert ledger.done() == {"0-0-0"}
    ledger.record("0-0-2")
    assert Ledger.open(path, HEADER).done() == {"0-0-0", "0-0-2"}


def test_a_torn_header_begins_anew(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"model": "a')
    assert Ledger.open(path, HEADER).done() == set()


def test_another_header_is_refused_and_the_difference_shown(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger.open(path, HEADER)
    with pytest.raises(ConflictError, match="model was 'abc', now 'xyz'"):
        Ledger.open(path, {**HEADER, "model": "xyz"})
