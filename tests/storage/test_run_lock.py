"""One process at a time works on a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from volseg.errors import ConflictError
from volseg.storage.ledger import Ledger

HOLD = """
import sys, time
from pathlib import Path
from volseg.storage.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]), {"a": 1})
print("held", flush=True)
time.sleep(60)
"""


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    path = tmp_path / "run.jsonl"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match=f"process {holder.pid} on .* is working"):
            Ledger.open(path, {"a": 1})
        held = path.read_bytes()
        with pytest.raises(ConflictError, match="is working"):
            Ledger.open(path, {"b": 2}, anew=True)
        assert path.read_bytes() == held
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    Ledger.open(path, {"a": 1}).record("x")
    assert Ledger.open(path, {"a": 1}).done() == {"x"}
    assert Ledger.open(path, {"b": 2}, anew=True).done() == set()
