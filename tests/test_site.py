"""The documentation site: it builds without a warning, and what its pages say to type works."""

from __future__ import annotations

import logging
import runpy
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest
import yaml

from toy_pages import blocks, lay_out, prepare, run_page
from volseg.stages.train import recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "tutorials").glob("[a-z]*.md"))]
ELSEWHERE = {"python.md"}
"""Pages that are followed by tests/test_documents.py."""
OTHERS = [
    page
    for page in sorted(
        [
            *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
            *(ROOT / "docs").glob("[!a-z_]*.md"),
            *(ROOT / "docs").rglob("[a-z]*.md"),
            *(ROOT / "docs").rglob("README.md"),
        ]
    )
    if page not in PAGES and page.name not in ELSEWHERE and blocks(page)
]
NOT_EXECUTED = {
    "it installs volseg": 3,
    "it installs volseg, and runs the tests": 1,
    "it installs volseg, and a viewer stays open": 1,
    "it installs napari, which stays open": 1,
    "a viewer stays open": 1,
    "it runs the tests": 1,
    "it needs a cluster": 1,
    "it needs a queue": 1,
    "it needs the reader's own stacks": 1,
    "it starts processes, as other tests do": 1,
    "it needs object storage": 1,
    "it needs annotated data that are not part of volseg": 1,
    "it is what a command prints": 2,
    "it shows errors, which have tests of their own": 1,
    "tests/test_studies.py runs the first line; the others take hours": 1,
    "the weights of the toy confirm all of its objects": 3,
}
"""Why blocks of code are not run, as the pages say themselves, and how many."""


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
    assert any(block.runs for block in blocks(page)), "it has commands to follow"
    run_page(page, volseg)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "pages"
    folder.mkdir()
    prepare(folder)
    return folder


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_thread", "quick_training")
@pytest.mark.parametrize(
    "page",
    [page for page in OTHERS if any(block.runs for block in blocks(page))],
    ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix(),
)
def test_the_code_of_other_pages_runs(page, prepared, tmp_path, monkeypatch, volseg):
    shutil.copytree(prepared, tmp_path / "pages")
    monkeypatch.chdir(tmp_path / "pages")
    small = {"patch": (1, 32, 32), "batch": 1, "width": 2}
    monkeypatch.setattr(recipe, "SLICES", recipe.SLICES | small)
    monkeypatch.setattr(recipe, "VOLUMES", recipe.VOLUMES | small | {"patch": (8, 32, 32)})
    monkeypatch.setattr(recipe, "DEFAULTS", {"emnet": {"width": 8}})
    run_page(page, volseg, prepared=True)


def test_what_is_not_executed_says_why():
    reasons = Counter(b.reason for page in (*PAGES, *OTHERS) for b in blocks(page) if b.reason)
    assert reasons == NOT_EXECUTED
