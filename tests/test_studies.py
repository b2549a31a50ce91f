"""The studies of the five documents: a rehearsal of each makes its tables and figures."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[1] / "studies"
TABLES = {
    "000": ["Table I"],
    "001": ["Results"],
    "002": ["Table 1"],
    "003": ["Table 1", "Fig. 4: JAC"],
    "004": ["Exploration", "Table 1", "Table 2", "Test"],
}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("one_thread", "quick_training")
@pytest.mark.parametrize("seed", TABLES)
def test_a_rehearsal_makes_the_tables_and_figures(seed, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("skimage")
    monkeypatch.syspath_prepend(str(STUDIES))
    main = runpy.run_path(str(STUDIES / f"seed{seed}.py"))["main"]
    main(["--output", str(tmp_path)])
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "its numbers mean nothing" in report
    for title in TABLES[seed]:
        rows = report.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
        assert len(rows) > 2
        assert len({row.count("|") for row in rows}) == 1
    figures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", report)
    assert figures
    assert all((tmp_path / figure).stat().st_size > 1000 for figure in figures)
    assert "## Why the numbers differ" in report
    if seed == "001":  # one training; the same command scores nothing again
        weights = next((tmp_path / "cases").glob("*/run/run.safetensors"))
        before = weights.stat().st_mtime_ns
        main(["--output", str(tmp_path)])
        assert weights.stat().st_mtime_ns == before


def test_real_budgets_ask_for_data(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(STUDIES))
    begin = runpy.run_path(str(STUDIES / "seed_runner.py"))["begin"]
    with pytest.raises(SystemExit):
        begin("003", ["--budget", "cpu"])
    assert "give --data" in capsys.readouterr().err
