"""The documentation site: it builds without a warning, and what its pages say to type works."""

from __future__ import annotations

import logging
import runpy
import warnings
from pathlib import Path

import pytest
import yaml

from toy_pages import blocks, lay_out, run_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "tutorials").glob("[a-z]*.md"))]


def listed(entry):
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in listed(part)]


def test_every_page_is_in_the_navigation():
    nav = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
    left_out = {page for page in pages if not page.startswith("decisions/0")} - set(nav)
    assert not left_out, "add these to `nav` in mkdocs.yml"
    assert len(nav) == len(set(nav))


def test_the_site_builds_without_a_warning(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mkdocstrings", reason="the site needs volseg[docs]")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    monkeypatch.setenv("VOLSEG_DOCS_FIGURES", "0")  # drawn below
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the builder's own libraries
        from mkdocs.commands.build import build
        from mkdocs.config import load_config

        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
        config.plugins.on_startup(command="build", dirty=False)
        with caplog.at_level(logging.WARNING, "mkdocs"):
            build(config)
    assert [record.getMessage() for record in caplog.records] == []
    shown = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    assert "--views" not in shown
    assert "views" in shown, "options of functions are in the reference"
    commands = (tmp_path / "site" / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "--max-section" in commands
    assert "https://fonts" not in commands


def test_every_figure_of_the_explanation_is_drawn_by_its_script():
    pytest.importorskip("matplotlib")
    script = runpy.run_path(str(ROOT / "docs" / "figures" / "draw.py"))
    names = {figure.__name__ for figure in script["FIGURES"]}
    drawn = {path.stem for path in (ROOT / "docs" / "images" / "drawn").glob("*.png")}
    assert names == drawn
    for quick in ("blending", "handover"):
        assert script[quick]().axes


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_followed(page, tmp_path, monkeypatch, volseg):
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_page(page, volseg) == len([b for b in blocks(page) if b[1]])
