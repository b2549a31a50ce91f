"""The public names: light to import, with the command line's options and defaults."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import click
import numpy as np
import pytest

import volseg
from volseg.api import judging, looking, making, training
from volseg.cli import main
from volseg.stages.apply.plan import ApplyOptions
from volseg.stages.evaluate.plan import EvaluateOptions
from volseg.stages.label.plan import LabelOptions
from volseg.stages.predict.network import PredictOptions
from volseg.stages.stats.plan import StatsOptions
from volseg.stages.verify.run import VerifyOptions
from volseg.stages.view.plan import ViewOptions

OF_COMMANDS = {"as_json", "quiet", "verbose", "scratch"}
OF_FUNCTIONS = {"progress", "on_note", "on_row"}
VERBS = {
    "convert": making.convert,
    "segment": making.segment,
    "label": making.label,
    "apply": making.apply,
    "stats": judging.stats,
    "evaluate": judging.evaluate,
    "train": training.train,
    "verify": judging.verify,
    "view": looking.view,
}
STAGES = {
    "segment": PredictOptions,
    "label": LabelOptions,
    "apply": ApplyOptions,
    "stats": StatsOptions,
    "evaluate": EvaluateOptions,
    "verify": VerifyOptions,
    "view": ViewOptions,
}


def test_import_loads_nothing_heavy():
    program = (
        "import sys, volseg\n"
        "assert {'open', 'segment'} <= set(dir(volseg))\n"
        "volseg.open, volseg.segment, volseg.stats, volseg.train, volseg.verify\n"
        "heavy = {'torch', 'dask', 'distributed', 'zarr', 'tensorstore', 'numba', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_every_public_name_exists_and_no_other():
    assert all(getattr(volseg, name) is not None for name in volseg.__all__)
    assert set(volseg._PLACES) < set(volseg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        volseg.segmnt  # noqa: B018 - asking for it is the test


def keywords(function):
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}


def options_given(verb):
    return [name for name in keywords(VERBS[verb]) if name not in OF_FUNCTIONS]


@pytest.mark.parametrize("verb", VERBS)
def test_commands_and_functions_have_the_same_options_and_defaults(verb):
    command = main.commands[verb]
    flags = {p.name: p for p in command.params if isinstance(p, click.Option)}
    options = {name: v for name, v in keywords(VERBS[verb]).items() if name not in OF_FUNCTIONS}
    split = {"min_size_nm3"} if "connectivity" in options else set()  # of --min-size
    # in Python: estimate; link and open_napari
    extra = {"segment": {"dry_run"}, "view": {"linked", "in_napari"}}.get(verb, set())
    assert set(flags) - OF_COMMANDS - extra == set(options) - split
    for name, default in options.items():
        if name in split or default is inspect.Parameter.empty:
            continue
        shown = flags[name].default
        if type(shown).__name__ == "Sentinel":  # click's word for no default
            shown = None
        if default is None or default is False or default == ():
            assert not shown, name
        else:
            assert str(shown) == str(default), name


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_described_once(verb):
    described = inspect.getdoc(VERBS[verb]).splitlines()
    assert all(described.count(name) == 1 for name in options_given(verb))
    flags = [p for p in main.commands[verb].params if isinstance(p, click.Option)]
    assert all(flag.help for flag in flags)


def test_unknown_and_missing_options_are_refused():
    for call in (
        lambda: volseg.label("vol.zarr", treshold=0.5),
        lambda: volseg.segment("vol.zarr", modl="emnet"),
        lambda: volseg.train("vol.zarr", labels="a.tif", output="run", step=3, steps=3),
        lambda: volseg.evaluate("vol.zarr"),
        lambda: volseg.map_blocks(len, "vol.zarr", (8, 8, 8), wrkers=2),
    ):
        with pytest.raises(TypeError, match=r"unexpected keyword|missing a required"):
            call()


@pytest.mark.parametrize("verb", STAGES)
def test_stages_have_the_same_defaults(verb):
    options = keywords(VERBS[verb])
    for field in dataclasses.fields(STAGES[verb]):
        if field.name in options and field.default is not dataclasses.MISSING:
            assert options[field.name] == field.default, field.name


def test_three_numbers_are_taken_from_any_sequence_and_nothing_else(tmp_path):
    array = np.ones((4, 16, 16), np.uint8)
    for size in (5, [5, 5, 5], np.array([5.0, 5.0, 5.0])):
        found = volseg.measure_array(array, voxel_size=size, measure="basic")
        assert found.columns["volume_nm3"].tolist() == [4 * 16 * 16 * 125]
    for size in ((5, 5), "555", (5, "a", 5)):
        with pytest.raises(volseg.InputError, match="voxel_size is three numbers along"):
            volseg.convert("s.tif", tmp_path / "v.zarr", voxel_size=size)
    for size in ((5, 5, -5), (5, 5, 0), float("nan")):
        with pytest.raises(volseg.InputError, match="three positive numbers in nm"):
            volseg.label_array(array, threshold=0.5, voxel_size=size)
    with pytest.raises(volseg.InputError, match=r"^prediction has the shape .*, array\.zarr"):
        volseg.compare_arrays(array, array[:2])
    with pytest.raises(volseg.InputError, match="leave out --overwrite"):
        volseg.segment(tmp_path / "v.zarr", repair=True, overwrite=True)
    rules = {"threshold": np.float32(0.5), "min_size": np.int64(9), "connectivity": np.int8(6)}
    assert volseg.label_array(array > 0, **rules).max() == 1
    for words in ({"block": (4, 64)}, {"tile": 64}, {"block": (4.5, 64, 64)}):
        with pytest.raises(volseg.InputError, match="is three numbers along"):
            volseg.segment(tmp_path / "v.zarr", **words)
