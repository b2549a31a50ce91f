"""The code in docs/python.md and in the walk-through runs, and prints what it says."""

from __future__ import annotations

import doctest
import re
import runpy
import sys
from pathlib import Path

import pytest
import tifffile

import volseg
from volseg.models.inference import Predictor
from volseg.storage.cards import load_card

ROOT = Path(__file__).parents[1]
CORNER = (slice(None), slice(96, 176), slice(64, 144))


@pytest.fixture(scope="module")
def each_tile_once():
    """Let a network evaluate a tile once: the pages come to the same probabilities in many ways."""
    evaluate, known = Predictor._evaluate, {}

    def remembered(self, batch, taken):
        weights = tuple(next(self.network.parameters()).flatten().tolist())
        asked = type(self.network), weights, self.precision, tuple(taken)
        key = *asked, tuple(batch.shape), batch.numpy().tobytes()
        if key not in known:
            known[key] = evaluate(self, batch, taken)
        return known[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "_evaluate", remembered)
        yield


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("each_tile_once")
def test_the_python_page(crop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, target in (("raw", "stack"), ("labels", "labels")):
        tifffile.imwrite(f"{target}.tif", tifffile.imread(crop / f"{source}.tif")[CORNER])
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert re.findall("^```python\n", text, re.MULTILINE)
    text = re.sub("^```.*$", "", text, flags=re.MULTILINE)
    page = doctest.DocTestParser().get_doctest(text, {}, "python.md", "docs/python.md", 0)
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.DocTestRunner(optionflags=flags).run(page, out=told.append)
    assert result.attempted > 20
    assert result.failed == 0, "".join(told)


def test_the_page_on_scores(crop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    labels = tifffile.imread(crop / "labels.tif")[:4, 96:160, 72:136]
    for name in ("raw", "truth"):
        tifffile.imwrite(f"{name}.tif", labels, photometric="minisblack")
    volseg.convert("raw.tif", "vol.zarr", axes="ZYX")
    volseg.label("vol.zarr", probabilities="truth.tif", axes="ZYX")
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = re.findall("^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    Path("page.py").write_text(block, encoding="utf-8")
    runpy.run_path("page.py")
    assert capsys.readouterr().out == "1.0 []\n"


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("each_tile_once")
def test_the_walkthrough(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["walkthrough.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "walkthrough.py"))
    shown = capsys.readouterr().out
    assert "1 object(s) at threshold" in shown
    assert "1 object(s) matched" in shown
    assert shown.count("Jaccard index 0.") == 4


def test_the_card_of_the_generalist_has_the_scores_of_its_page():
    page = (ROOT / "docs" / "models" / "README.md").read_text(encoding="utf-8")
    table = page[page.index("| held out | network |") :].partition("\n\n")[0]
    told, held_out = {}, ""
    for row in table.splitlines()[2:]:
        where, network, score, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        held_out = where.replace("`", "").replace(",", "") or held_out
        if network.endswith("card's rules"):
            told["the same, three views" if "views" in network else held_out] = float(score)
    scores = load_card("unet2d-general").scores
    assert "by this card's rules" in scores["measured on"]
    assert len(told) == 5
    assert {k: v for k, v in scores.items() if k != "measured on"} == told
