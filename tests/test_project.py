"""Promises that hold for the project as a whole."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import which

import pytest
import yaml

import volseg
from volseg.__main__ import run

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = (
    "torch",
    "dask",
    "distributed",
    "zarr",
    "numba",
    "numpy",
    "numcodecs",
    "scipy",
    "tifffile",
    "pyarrow",
)


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    program = (
        "import sys\n"
        "from volseg.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"print('loaded:', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")


def test_what_a_command_leaves_is_not_taken_apart(monkeypatch):
    monkeypatch.setattr("volseg.__main__.main", lambda: sys.exit(3))
    before = gc.get_freeze_count()
    try:
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 3
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_nothing_is_unpickled_or_executed():
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if (
                    call in {"eval", "exec"}
                    or given.get("allow_pickle", "False") != "False"
                    or (call == "torch.load" and given.get("weights_only") != "True")
                ):
                    found.append((path.name, call))
            found += [(path.name, n) for n in names if n.split(".")[0] in banned]
    assert found == []


def test_input_is_never_checked_by_assert():
    found = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_files_and_functions_stay_small():
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 300:
            long.append(f"{path.name}: {text.count(chr(10))} lines, at most 300")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node, clean=False) or ""
                size = (node.end_lineno or 0) - node.lineno - documented.count("\n")
                if size > 50:
                    long.append(f"{path.name}: {node.name} has {size} lines, at most 50")
    assert long == []


def test_all_layers_from_scores_down_are_bound_to_know_arrays_only():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = {entry["name"]: entry for entry in tools["importlinter"]["contracts"]}
    pure = contracts["Pure rooms know arrays only"]
    (layers,) = (entry for entry in contracts.values() if entry["type"] == "layers")
    rooms = [name for line in layers["layers"] for name in line.split(" | ")]
    assert len(layers["layers"]) <= 12
    below = rooms[rooms.index("scores") :]
    assert sorted(pure["source_modules"]) == sorted(f"volseg.{name}" for name in below)


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert volseg.__version__ == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_recipes_ask_for_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {"dask": "dask-core", "torch": "pytorch"}
    wanted = {
        re.sub(r"^[a-z0-9-]+", lambda m: names.get(m[0], m[0]), d) for d in project["dependencies"]
    }
    recipe = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    run = recipe.split("  run:\n")[1].split("  run_constrained")[0]
    given = {line.strip("- ").replace(" ", "") for line in run.splitlines()}
    assert wanted | {f"python{project['requires-python']}"} == given - {""}
    assert f'version = "{project["version"]}"' in recipe
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    for container in ("Dockerfile", "volseg.def"):
        extras = re.findall(r"(?i)extras=([a-z,]+)", (ROOT / "containers" / container).read_text())
        assert set(extras[0].split(",")) <= set(project["optional-dependencies"])


def test_tested_versions_are_portable():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 20
    assert [p for p in pins if p.count("==") != 1 or "+" in p or "/" in p or "@" in p] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has make and sh")
def test_continuous_integration_runs_the_readme_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "exec make test" in script
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_index_of_decisions_is_complete():
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    numbers = [name[:4] for name in pages]
    assert len(set(numbers)) == len(numbers)
    index = (folder / "README.md").read_text()
    assert [name for name in pages if f"]({name}) |" not in index] == []
    for name in pages:
        assert (folder / name).read_text().startswith(f"# {name[:4]}: ")


def test_no_docstring_opens_with_a_question():
    opening = re.compile(r'"""(?:What|Where|Whether|How|Which|Who|When|Why)\b.*')
    for path in SOURCES:
        assert opening.findall(path.read_text(encoding="utf-8")) == [], path


def test_a_demo_installs_less_and_all_else_what_is_missing(tmp_path):
    if which("make") is None:
        pytest.skip("there is no make")

    def installed_for(target, *made):
        """Ask make what it would do, where this has been done before."""
        environment = tmp_path / "-".join([target, *made])
        environment.mkdir()
        for name in made:
            (environment / name).touch()
        words = ["make", "--dry-run", f"VENV={environment}", target]
        told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return re.findall(r"-e '\.\[(.*)\]'", told)

    use, every = ".installed-for-use", ".installed"
    assert installed_for("demo") == ["report,train,view"]
    assert installed_for("demo", use) == []
    assert installed_for("demo", use, every) == []
    for target in ("test", "lint", "docs", "soak", "bench", "weights", "gpu"):
        assert installed_for(target) == ["dev"]
        assert installed_for(target, use) == ["dev"]
        assert installed_for(target, use, every) == []
    rule = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\n$(USED) $(STAMP):")[2]
    assert "touch $@ $(USED)" in rule.partition("\n\n")[0]  # all have what the demo needs
