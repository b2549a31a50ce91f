"""How the texts of flags are read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import numpy as np
import pytest

from toy_volumes import write_raw
from volseg.cli import main
from volseg.cli.options import parse_sizes, parse_slices, parse_voxel_size


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1.5,2,3", "0,1,1", "-1,2,3"])
def test_bad_sizes_are_named(text):
    with pytest.raises(click.BadParameter, match=r"found") as caught:
        parse_sizes(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["", "5,5", "0", "5,5,-5", "nan", "inf,1,1", "5nm", "1,2,3,4"])
def test_bad_voxel_sizes_are_named(text):
    with pytest.raises(click.BadParameter) as caught:
        parse_voxel_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["", "9-5", "3,9-5", "-3", "3-", "1-9999999999", "3,,4"])
def test_bad_numbers_of_slices_are_named(text):
    with pytest.raises(click.BadParameter, match=r"found"):
        parse_slices(text)


def test_spaces_do_not_matter():
    assert parse_sizes("64, 512, 512") == (64, 512, 512)
    assert parse_voxel_size(" 50, 4.6,4.6 ") == (50.0, 4.6, 4.6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("convert s.tif v.zarr --voxel-size 24 20 20", "--voxel-size 24,20,20"),
        ("convert s.tif v.zarr --voxel-size 24, 20, 20.5 --workers 2", "--voxel-size 24,20,20.5"),
        ("convert --voxel-size 24 20 20 s.tif v.zarr", "--voxel-size 24,20,20"),
        ("segment v.zarr --block 64 512 512", "--block 64,512,512"),
        ("segment v.zarr --roi 0:9 2:8 :", "--roi 0:9,2:8,:"),
        ("teach v.zarr --not 12 40 --yes 7", "--not 12,40"),
    ],
)
def test_numbers_without_commas_are_told_what_to_write(volseg, words, told):
    refused = volseg(*words.split())
    assert refused.exit_code == 2
    assert f"with commas and without spaces: {told}\n" in refused.stderr
    refused = volseg(*words.split(), "--json")
    assert json.loads(refused.stdout)["error"].endswith(f": {told}")


def test_other_words_too_many_are_told_as_before(volseg):
    refused = volseg("convert", "s.tif", "v.zarr", "more", "--voxel-size", "24,20,20")
    assert (refused.exit_code, "extra argument" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        (["--cluster", "slurm"], "`workers` times `cores` in --cluster-config"),
        (["--scheduler", "tcp://host:8786"], "start as many workers as you like at the scheduler"),
    ],
)
@pytest.mark.parametrize("command", ["segment", "label", "stats", "verify"])
def test_workers_that_would_be_ignored_are_refused(volseg, tmp_path, command, more, remedy):
    refused = volseg(command, tmp_path / "vol.zarr", "--workers", "2", *more)
    assert refused.exit_code == 2
    assert "--workers 2 is for this process alone" in refused.stderr
    assert remedy in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        "convert {raw} {volume} --workers 0",
        "convert {raw} {volume} --channel -1",
        "segment {volume} --workers 0",
        "segment {volume} --block-timeout 0",
        "label {volume} --threshold 0",
        "label {volume} --threshold 1.5",
        "label {volume} --seed-threshold 0",
        "label {volume} --min-probability 2",
        "label {volume} --split-depth 0",
        "evaluate {volume} --truth {raw} --iou 0",
        "evaluate {volume} --truth {raw} --min-size -1",
        "verify {volume} --sample -1",
        "train {raw} --labels {raw} --output {volume} --steps 1 --workers 0",
        *(
            f"train {{raw}} --labels {{raw}} --output {{volume}} {flag}"
            for flag in (
                *("--steps 0", "--minutes 0", "--epochs 0", "--steps 1 --patience -1"),
                *("--steps 1 --fraction 0", "--steps 1 --width 0", "--steps 1 --batch 0"),
                *("--steps 1 --gamma 0", "--steps 1 --learning-rate 0", "--steps 1 --seed -1"),
                "--steps 1 --validate-every 0",
            )
        ),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_written(volseg, crop, tmp_path, words):
    raw, volume = crop / "raw.tif", tmp_path / "vol.zarr"
    refused = volseg(*words.format(raw=raw, volume=volume).split())
    assert refused.exit_code == 2
    assert re.search(rf"(found|--channel is) .*{words.split()[-1]}", refused.stderr)
    assert "Traceback" not in refused.stderr
    assert not volume.exists()


def _commands(group):
    for command in group.commands.values():
        yield from _commands(command) if isinstance(command, click.Group) else [command]


def test_no_command_has_a_flag_twice():
    for command in _commands(main):
        flags = [flag for p in command.params for flag in (*p.opts, *p.secondary_opts)]
        assert len(flags) == len(set(flags)), command.name


def test_shells_are_told_what_may_follow(monkeypatch, capsys):
    monkeypatch.setenv("_VOLSEG_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "volseg segment --split")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit) as ended:
        main(prog_name="volseg")
    assert ended.value.code == 0
    names = "", "-depth", "-centres", "-sure", "-contour", "-votes"
    found = [f"plain,--split{name}" for name in names]
    assert capsys.readouterr().out.split() == found


@pytest.mark.parametrize(
    ("words", "standing"),
    [
        ("preview v.zarr --output {}.png", "a folder"),
        ("report v.zarr --output {}.html", "a folder"),
        ("stats v.zarr --output {}.csv", "a folder"),
        ("export v.zarr --output {}.tif", "a folder"),
        ("train v.zarr --labels a --steps 1 --output {}", "a file"),
        ("train v.zarr --labels a --steps 1 --output {}/x", "a file"),
        ("models export unet2d --format onnx --output {}/x.onnx", "a file"),
        ("evaluate v.zarr --truth a --output {}", "a file"),
    ],
)
def test_an_output_that_something_else_is_called_is_refused_at_once(
    volseg, tmp_path, monkeypatch, words, standing
):
    monkeypatch.chdir(tmp_path)
    write_raw(Path("v.zarr"), np.zeros((4, 16, 16), np.uint8))
    given = words.format("made").split()
    place = next(Path(w) for w in given if w.startswith("made"))
    if standing == "a folder":
        place.mkdir()
    else:
        Path("made").write_text("mine")
    refused = volseg(*given)
    assert (refused.exit_code, f" is {standing}; give" in refused.stderr) == (2, True)


def test_what_would_be_ignored_or_counted_twice_is_refused(volseg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raw(Path("v.zarr"), np.zeros((4, 16, 16), np.uint8))
    for words in ("stats v.zarr ./v.zarr --output a.csv", "report v.zarr ../{}/v.zarr"):
        refused = volseg(*words.format(tmp_path.name).split())
        assert (refused.exit_code, "is named twice" in refused.stderr) == (2, True)
    refused = volseg("info", "v.zarr", "--gamma", "0")
    assert (refused.exit_code, "are for --explore" in refused.stderr) == (2, True)
