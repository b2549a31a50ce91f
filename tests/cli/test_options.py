"""How the texts of flags are read."""

from __future__ import annotations

import click
import pytest

from volseg.cli import main
from volseg.cli.options import parse_sizes, parse_voxel_size


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


def test_spaces_do_not_matter():
    assert parse_sizes("64, 512, 512") == (64, 512, 512)
    assert parse_voxel_size(" 50, 4.6,4.6 ") == (50.0, 4.6, 4.6)


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
    assert capsys.readouterr().out.split() == ["plain,--split", "plain,--split-depth"]
