"""No command unpickles what a user gives it, nor reads it with anything that could run code.

How this is seen: the functions that unpickle are replaced by ones that note who calls them, and
Python's own audit events tell of every class that any unpickler looks up, in C code too. Two
callers are left out, because what they read is no file of a user's: Dask, which pickles the
messages between threads of this process, and Numba, which keeps the machine code it compiled beside
volseg's own modules. Python's import system is the only one that may unmarshal.
"""

from __future__ import annotations

import marshal
import pickle
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from volseg.cli import main

OWN_TRAFFIC = ("dask", "distributed", "cloudpickle", "numba")
INTERNAL = ("pickle", "_pickle", "copyreg", "functools", __name__)
IMPORTS = (
    "_pytest.assertion.rewrite",
    "importlib",
    "_frozen_importlib",
    "_frozen_importlib_external",
    "zipimport",
    "pkgutil",
)


def caller() -> str:
    """Name the module that called, seen from a replaced function."""
    frame = sys._getframe(1)
    while frame and frame.f_globals.get("__name__", "?") in INTERNAL:
        frame = frame.f_back
    return frame.f_globals.get("__name__", "?") if frame else "?"


class Watch:
    """Notes what is unpickled while it is active."""

    def __init__(self) -> None:
        self.active, self.found = False, []

    def note(self, what: str, allowed: tuple[str, ...] = OWN_TRAFFIC) -> None:
        """Note a call, unless it is one of those that are left out."""
        who = caller()
        if self.active and not {who, who.split(".")[0]} & set(allowed):
            self.found.append(f"{what} by {who}")

    def audit(self, event: str, _arguments: tuple) -> None:
        if event == "pickle.find_class":
            self.note(event)
        elif event in {"marshal.load", "marshal.loads"}:
            self.note(event, IMPORTS)


WATCH = Watch()
sys.addaudithook(WATCH.audit)  # for as long as Python runs, so there is one, and it can be inactive


class NotedUnpickler(pickle.Unpickler):
    """Notes that somebody made one."""

    def __init__(self, *args, **kwargs):
        WATCH.note("pickle.Unpickler")
        super().__init__(*args, **kwargs)


@pytest.fixture
def watch(monkeypatch):
    """Replace what unpickles, or reads formats that may hold code."""
    yaml = pytest.importorskip("yaml")

    def noted(module, name, is_harmless):
        original = getattr(module, name)

        def replaced(*args, **kwargs):
            if not is_harmless(args, kwargs):
                WATCH.note(f"{module.__name__}.{name}")
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, replaced)

    def never(_args, _kwargs):
        return False

    def safe(args, kwargs):
        return (kwargs.get("Loader") or args[1]) in {yaml.SafeLoader, yaml.CSafeLoader}

    for name in ("load", "loads", "_load", "_loads"):
        noted(pickle, name, never)
    monkeypatch.setattr(pickle, "Unpickler", NotedUnpickler)
    noted(torch, "load", lambda args, kwargs: kwargs.get("weights_only") is True)
    noted(np, "load", lambda args, kwargs: not kwargs.get("allow_pickle"))
    for name in ("unsafe_load", "unsafe_load_all", "full_load", "full_load_all"):
        noted(yaml, name, never)
    noted(yaml, "load", safe)
    WATCH.found.clear()
    WATCH.active = True
    yield WATCH
    WATCH.active = False


def test_the_watch_sees_what_it_is_for(watch, tmp_path):
    class Sneaky:
        def __reduce__(self):
            return print, ("unpickled",)

    content = pickle.dumps(Sneaky())
    np.save(tmp_path / "a.npy", np.array([Sneaky()]), allow_pickle=True)
    pickle.loads(content)  # noqa: S301 - our own, to see that it is seen
    np.load(tmp_path / "a.npy", allow_pickle=True)
    torch.save({"a": 1}, tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    marshal.loads(marshal.dumps(1))
    seen = " ".join(watch.found)
    for name in (
        "pickle.loads",
        "pickle.Unpickler",
        "numpy.load",
        "torch.load",
        "pickle.find_class",
        "marshal.loads",
    ):
        assert name in seen
    watch.found.clear()
    torch.load(tmp_path / "a.pt", weights_only=True)
    assert not watch.found


def write_sources(folder):
    """Write a stack, its labels and a recipe."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(8).random((14, 40, 40)), 2)
    raw = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    tifffile.imwrite(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "labels.tif", (raw > 150).astype(np.uint8))
    (folder / "corrections.json").write_text('{"add": [{"path": "labels.tif"}]}')
    (folder / "mine.toml").write_text(
        '[recipe]\narchitecture = "unet2d"\nwidth = 2\npatch = [1, 32, 32]\nsteps = 1\n'
        f'[[data]]\nraw = "{folder / "vol.zarr"}"\nlabels = "{folder / "labels.tif"}"\n'
    )


EXPORTS = {
    "labels": ("tif", "h5", "zarr", "precomputed", "glb", "ply", "stl"),
    "table": ("csv", *(["xlsx"] if find_spec("xlsxwriter") else [])),
}


def commands(folder, model):
    """List a call of every command; each reads what a user gives."""
    volume, run, trained = folder / "vol.zarr", folder / "run", folder / "run" / "run.safetensors"
    train = ["train", "--config", folder / "mine.toml", "--output", run, "--workers", "1"]
    truth = ["--truth", folder / "labels.tif"]
    return [
        ["convert", folder / "raw.tif", volume, "--voxel-size", "5,5,5"],
        ["segment", volume, "--model", model, "--dry-run"],
        ["segment", volume, "--model", model, "--workers", "1"],
        ["label", volume, "--threshold", "0.4", "--overwrite", "--workers", "1"],
        ["label", volume, "--probabilities", folder / "labels.tif", "--name", "theirs"],
        [
            *("teach", volume, "--not", "1", "--minutes", "0.001", "--model", model),
            *("--workers", "1"),
        ],
        ["stats", volume, "--output", folder / "objects.csv", "--workers", "1"],
        ["apply", volume, "--corrections", folder / "corrections.json", "--workers", "1"],
        *(
            ["export", volume, what, "--output", folder / f"a.{ending}"]
            for what, endings in EXPORTS.items()
            for ending in endings
        ),
        [
            *("explain", volume, "--roi", "3:4,8:24,8:24", "--model", model),
            *("--output", folder / "why.png"),
        ],
        ["report", volume, *truth, "--output", folder / "page.html"],
        [
            *("run", folder / "raw.tif", folder / "whole.zarr", "--voxel-size", "5,5,5"),
            *("--model", model, "--workers", "1"),
        ],
        ["evaluate", volume, *truth, "--output", folder / "scores", "--workers", "1"],
        ["verify", volume, "--model", model, "--workers", "1"],
        ["info", volume, "--json"],
        ["info", volume, "--explore", "--output", folder / "look.png"],
        train,
        [*train, "--steps", "2", "--overwrite"],
        ["preview", volume, "--model", trained, "--output", folder / "sheet.png"],
        ["models", "list"],
        ["models", "show", trained],
        ["models", "export", trained, "--format", "bioimageio", "--output", folder / "a.zip"],
        ["models", "import", folder / "a.zip", "--output", folder / "imported"],
    ]


@pytest.mark.usefixtures("one_thread", "quick_training", "pictures")
def test_no_command_unpickles_what_it_is_given(watch, volseg, toy_model, tmp_path):
    pytest.importorskip("bioimageio.spec")
    write_sources(tmp_path)
    calls = commands(tmp_path, toy_model)
    # which serves until it is interrupted; it reads what report reads
    assert {c[0] for c in calls} | {"view"} == set(main.commands)
    for call in calls:
        done = volseg(*call)
        assert done.exit_code in (0, 1), done.output  # of 1, verify tells: another threshold
        assert not watch.found, f"{call}: {watch.found[:5]}"


def test_importing_volseg_unpickles_nothing():
    program = (
        "import sys, importlib, pkgutil\n"
        "found = []\n"
        "def audit(event, arguments):\n"
        "    if event == 'pickle.find_class':\n"
        "        names, frame = [], sys._getframe(1)\n"
        "        while frame:\n"
        "            names.append(frame.f_globals.get('__name__', '?').split('.')[0])\n"
        "            frame = frame.f_back\n"
        "        own = {'numba', 'dask', 'distributed', 'cloudpickle'} & set(names)\n"
        "        found.extend([] if own else [names[0]])\n"
        "sys.addaudithook(audit)\n"
        "import volseg\n"
        "for module in pkgutil.walk_packages(volseg.__path__, 'volseg.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "print('unpickled by:', found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("unpickled by: []\n"), done.stdout
