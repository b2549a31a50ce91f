"""What numba keeps is not used when anything that it was made from has changed."""

from __future__ import annotations

import os

from volseg.voxels.compilation import forget_stale


def test_a_change_of_any_source_makes_all_of_it_stale(tmp_path):
    kept = tmp_path / "room" / "__pycache__" / "one.loop-7.nbi"
    kept.parent.mkdir(parents=True)
    (tmp_path / "__pycache__").mkdir()
    for name in ("one.py", "two.py"):
        (tmp_path / "room" / name).write_text("x = 1")
    kept.touch()
    forget_stale(tmp_path)
    assert not kept.exists()
    kept.touch()
    forget_stale(tmp_path)
    assert kept.exists()
    os.utime(tmp_path / "room" / "two.py", ns=(1, 1))
    forget_stale(tmp_path)
    assert not kept.exists()


def test_where_nothing_was_kept_nothing_happens(tmp_path):
    (tmp_path / "one.py").write_text("x = 1")
    forget_stale(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["one.py"]
