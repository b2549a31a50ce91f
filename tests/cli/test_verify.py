"""``volseg verify``: exit status, words and JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from toy_volumes import write_raw
from volseg.geometry.grid import full_roi
from volseg.storage.volumes import open_image

SHAPE = (12, 80, 32)


@pytest.fixture
def volume(tmp_path):
    raw = np.random.default_rng(1).integers(1, 256, SHAPE, dtype=np.uint8)
    return write_raw(
        tmp_path / "vol.zarr", raw, (8, 16, 16), None, chunk=(4, 16, 16), complete=True
    )


def change(volume, voxel, value):
    level = open_image(volume).levels[1]
    content = level[full_roi(level.shape)]
    content[voxel] = value
    level.write(full_roi(level.shape), content)


def test_an_intact_volume_ends_with_0(volseg, volume):
    done = volseg("verify", volume, "-q")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{volume} is intact: raw; 34.6 k voxels read, after")


def test_damage_ends_with_1_and_says_where(volseg, volume):
    change(volume, (3, 30, 7), 0)
    done = volseg("verify", volume, "-q")
    assert done.exit_code == 1
    head, line, advice = done.stdout.splitlines()
    assert "to mend" in advice
    assert head.startswith(f"{volume} is damaged: 1 thing is wrong in raw")
    assert line.startswith("  pyramid: raw, level 1, block 0,1,0, voxel 3,30,7: found 0")
    assert volseg("verify", volume, "--quick", "-q").exit_code == 0


def test_json_is_one_object_also_where_something_is_wrong(volseg, volume):
    (volume / "0" / "c" / "0" / "1" / "0").write_bytes(b"rubbish")
    done = volseg("verify", volume, "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["ok"], report["failures"], report["arrays"]) == (False, 1, ["raw"])
    (finding,) = report["findings"]
    assert (finding["kind"], finding["array"], finding["level"]) == ("unreadable", "raw", 0)
    assert (finding["block"], finding["roi"]) == ([0, 1, 0], "0:8,16:32,0:16")
    assert (report["sampled"], report["skipped"]) == ([], [])


def test_wrong_usage_ends_with_2(volseg, volume, tmp_path):
    missing = volseg("verify", tmp_path / "nowhere.zarr")
    assert missing.exit_code == 2
    assert "there is nothing at" in missing.stderr
    both = volseg("verify", volume, "--quick", "--sample", "3")
    assert both.exit_code == 2
    assert "leave out --quick or --sample" in both.stderr
