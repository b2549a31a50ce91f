"""Damaged and hostile files of every kind that volseg reads end in a message, never in worse.

Each group of kinds is attacked in a process of its own, see ``fuzzing/attack.py``: a crash or a
hang there is a failure here, which names the mutation. ``VOLSEG_SOAK=N`` runs 2 N times as many,
21,800 with 50; ``VOLSEG_FUZZ_FIRST`` begins with another one, so that one can be repeated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).parent / "fuzzing" / "attack.py"
SOAK = int(os.environ.get("VOLSEG_SOAK", "0"))
FIRST = int(os.environ.get("VOLSEG_FUZZ_FIRST", "0"))
GROUPS = {
    "images": ("tiff", "hdf5", "slices", "jpeg", "ome-sets"),
    "mapped": ("mrc", "dm", "nifti", "nrrd"),
    "folders": ("n5", "precomputed", "zarr-axes"),
    "volumes": ("zarr", "zarr-v2", "chunks", "ledgers"),
    "models": ("cards", "weights", "descriptions", "packages", "states"),
    "training": ("recipes", "checkpoints"),
}
EACH = {"images": 40, "mapped": 16, "folders": 16, "volumes": 8, "models": 12, "training": 16}
"""Mutations of each kind in a group: as many as take a few seconds."""


@pytest.mark.timeout(120 * max(SOAK, 1) + 120)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")
@pytest.mark.parametrize("group", GROUPS)
def test_damaged_files_end_in_a_message(group, tmp_path):
    count = EACH[group] * SOAK or EACH[group] // 2
    command = [sys.executable, str(ATTACK), str(tmp_path), str(count), str(FIRST), *GROUPS[group]]
    log = tmp_path.with_suffix(".log")
    with log.open("w") as errors:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    told = log.read_text(errors="replace")
    assert done.returncode == 0, f"crashed or hung; the last lines:\n{told[-6000:]}"
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["kind"] for r in reports] == list(GROUPS[group])
    for report in reports:
        assert sum(report["ended"].values()) == count
        assert not report["wrong"], "\n".join(report["wrong"][:10])
        print(report["kind"], report["ended"])
