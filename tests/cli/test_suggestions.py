"""Commands that messages, help and documents suggest can be pasted into a shell."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from volseg.cli import main
from volseg.errors import command

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
QUOTED = re.compile(r"`(volseg [a-z][^`]*)`")


def parse(words):
    """Parse a command as click does, without running it."""
    assert words[0] == "volseg"
    group, name = main, "volseg"
    rest = words[1:]
    context = click.Context(main)
    while isinstance(group, click.Group):
        name, group, rest = group.resolve_command(context, rest)
    group.make_context(name, rest)


def written(path):
    """Find the calls of `command` in a module, and its texts that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    calls, texts = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command":
            calls.append([words for part in node.args if (words := word(part)) is not None])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts += [node.value] if id(node) not in documented else []
    return calls, texts


def word(part):
    """Take a word as it is written; what is known only later is some path or number."""
    if isinstance(part, ast.Starred):
        return None
    return str(part.value) if isinstance(part, ast.Constant) else "1"


SUGGESTED = [
    pytest.param(["volseg", *call], id=f"{path.stem}-{' '.join(call)}")
    for path in SOURCES
    for call in written(path)[0]
    if call
]


def test_there_are_suggestions():
    assert len(SUGGESTED) > 10


@pytest.mark.parametrize("words", SUGGESTED)
def test_suggested_commands_parse(words):
    known = ["5,5,5" if word == "Z,Y,X" else word for word in words]
    if words[1] == "export" and words[3] == "1":
        known[3] = "labels"  # one of a few words, known only later
    parse(known)


def test_the_table_of_which_command_to_take_parses():
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    section = text.split("## Which command")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    quoted = [words for row in rows for words in QUOTED.findall(row)]
    assert len(quoted) > 10
    for words in quoted:
        parse(shlex.split(words))
    verbs = {words.split()[1] for words in quoted}
    assert verbs == {"run", "segment", "label", "stats", "apply", "teach", "train", "verify"}


def test_commands_in_texts_are_complete():
    found = [(path, text) for path in SOURCES for text in written(path)[1] if "`volseg" in text]
    for path, text in found:
        assert QUOTED.search(text), f"{path}: {text} is put together; use volseg.errors.command"
        for quoted in QUOTED.findall(text):
            parse(shlex.split(quoted))


def test_paths_are_quoted():
    assert (
        command("stats", Path("my data") / "a'b.zarr") == """volseg stats 'my data/a'"'"'b.zarr'"""
    )


def examples(group, path=()):
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from examples(found, (*path, name))
        else:
            yield pytest.param(found, id=" ".join((*path, name)))


@pytest.mark.parametrize("found", list(examples(main)))
def test_the_help_of_every_command_ends_in_an_example(found):
    text = found.get_help(click.Context(found))
    _, _, example = text.partition("Example:\n")
    parse(shlex.split(example))
    sentence = (found.help or "").split()[0]
    assert sentence[0].isupper(), sentence


def test_long_help_is_grouped(volseg):
    shown = volseg("segment", "--help").stdout
    titles = [line for line in shown.splitlines() if re.fullmatch(r"[A-Z][a-z]+:", line)]
    assert titles == ["Basic:", "Network:", "Objects:", "Running:", "Resuming:", "Output:"]
    assert "Options:" in volseg("info", "--help").stdout


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_in_documents_parse(path):
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    for line in lines:
        found = re.fullmatch(r"(?:    |\$ )(volseg [a-z].*)", line)
        if found:
            words = shlex.split(found[1], comments=True)
            try:
                parse(words)
            except click.ClickException as error:
                raise AssertionError(f"{path.name}: {line.strip()}: {error.message}") from error
