"""Run the code on a page of the documentation, and compare what it prints with what is shown.

``console`` blocks hold commands after ``$ ``, and some lines of what they print, in their order;
numbers differ between the crop that the pages show and the corner of it that is used here, so they
are not compared; ``...`` stands for anything. ``python`` blocks with ``>>>`` are doctests. Other
blocks after a line that holds the name of a file and a colon are written to it.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import tifffile

ROOT = Path(__file__).parents[2]
CORNER = (slice(None), slice(96, 160), slice(72, 136))
"""Of the crop: one mitochondrion, so that a network takes seconds."""

FENCE = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d.,]*")
SHORT = {
    "--minutes 5": "--steps 2",
    "--seconds 20": "--seconds 0.1",
    "--seconds 60": "--seconds 0.1",
    "[9, 7, 10]": "[1]",
}
"""What takes its time on the pages, or names objects of the crop, and what stands for it here."""


def lay_out(folder: Path) -> None:
    """Put a clone with a corner of the crop into a folder, as a reader of the pages has it."""
    crop = folder / "volseg" / "examples" / "crop"
    crop.mkdir(parents=True)
    for name in ("raw", "labels"):
        kept = tifffile.imread(ROOT / "examples" / "crop" / f"{name}.tif")[CORNER]
        size = {"spacing": 5.0, "unit": "nm"} if name == "raw" else {}
        tifffile.imwrite(
            crop / f"{name}.tif",
            kept,
            imagej=True,
            metadata={"axes": "ZYX", **size},
            resolution=(0.2, 0.2) if size else None,
        )


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """List the blocks of a page: name of a file or nothing, language, text."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def run_page(page: Path, volseg: Callable) -> int:
    """Run the blocks of a page in the current folder; return how many ran."""
    state: dict = {}
    done = 0
    for name, language, text in blocks(page):
        if language == "console":
            run_console(text, volseg)
        elif language == "python":
            run_python(text, state, page.name)
        elif name and language:
            Path(name).write_text(shortened(text), encoding="utf-8")
        else:
            continue
        done += 1
    return done


def shortened(text: str) -> str:
    """Put what suits the corner in the place of what suits the crop."""
    for given, short in SHORT.items():
        text = text.replace(given, short)
    return text


def run_console(text: str, volseg: Callable) -> None:
    """Run commands one after the other; what is shown must be printed, in its order."""
    text = shortened(text.replace("\\\n", " "))
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        printed = run_command(command, volseg)
        lines = iter([masked(line) for line in printed.splitlines()])
        for line in filter(None, shown.splitlines()):
            shape = re.escape(masked(line)).replace(r"\.\.\.", ".*")
            found = any(re.fullmatch(shape, other) for other in lines)
            assert found, f"$ {command}\nshows\n{line}\nbut prints\n{printed}"


def run_command(command: str, volseg: Callable) -> str:
    """Run a command of volseg in this process, any other by the shell."""
    words = shlex.split(command, comments=True)
    if words[0] == "volseg":
        result = volseg(*words[1:])
        assert result.exit_code == 0, f"$ {command}\n{result.output}"
        return str(result.output)
    made = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert made.returncode == 0, f"$ {command}\n{made.stderr}"
    return made.stdout


def masked(line: str) -> str:
    """Leave out numbers, their plurals, folders, and the width of columns."""
    line = re.sub(r"(?<=\d) [kMG](?=B? )", " ", re.sub(r" /\S+/", " /", line))
    return re.sub(
        r"\bN (\w+)s\b", r"N \1", " ".join(NUMBER.sub("N", line).replace(" B ", " ").split())
    )


def run_python(text: str, state: dict, name: str) -> None:
    """Run a block as a doctest, with what the blocks before it left."""
    test = doctest.DocTestParser().get_doctest(text, state, name, name, 0)
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.DocTestRunner(optionflags=flags).run(test, out=told.append, clear_globs=False)
    state.update(test.globs)
    assert result.failed == 0, "".join(told)
