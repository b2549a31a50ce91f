"""Curves become PNG files; those that are not defined stay empty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from volseg.errors import StorageError
from volseg.storage.plots import Panel, draw_panels

pytest.importorskip("matplotlib")

LINE = np.linspace(0, 1, 5)
PANELS = [
    Panel("marked", "recall", "precision", LINE, LINE[::-1], (0.5, 0.5, "best")),
    Panel("undefined", "recall", "precision", np.full(5, math.nan), LINE),
]


def test_a_png_is_written_and_nothing_else(tmp_path):
    for _ in range(2):
        draw_panels(tmp_path / "curves.png", PANELS)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*curves\.png: No such file"):
        draw_panels(tmp_path / "none" / "curves.png", PANELS)
