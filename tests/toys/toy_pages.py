"""Run the code on a page of the documentation, and compare what it prints with what is shown.

``console`` blocks hold commands after ``$ ``, and some lines of what they print, in their order;
numbers differ between the crop that the pages show and the corner of it that is used here, so they
are not compared; ``...`` stands for anything. ``python`` blocks with ``>>>`` are doctests. Other
blocks after a line that holds the name of a file and a colon are written to it. Indented blocks are
commands, or parts of a recipe. ``<!-- not executed: REASON -->`` before a block leaves it out.
"""

from __future__ import annotations

import doctest
import json
import re
import runpy
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import zarr

import volseg
from toy_weights import write_weights
from volseg.cli import main
from volseg.defaults import NAME
from volseg.models.registry import find_architecture
from volseg.sources.corrections import read_corrections
from volseg.stages.train.recipe import build_config, load_recipe, override

ROOT = Path(__file__).parents[2]
CORNER = (slice(None), slice(96, 160), slice(72, 136))
"""Of the crop: one mitochondrion, so that a network takes seconds."""
SPOT = (slice(None), slice(112, 144), slice(88, 120))
"""Of that, what the folder that is prepared for other pages holds."""

SKIP = r"(?:^<!-- not executed: (?P<reason>[^>]+) -->\n\n?)?"
FENCE = re.compile(
    SKIP + r"(?:^`(?P<name>[^`\n]+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INDENTED = re.compile(SKIP + r"(?<=\n\n)(?P<text>(?:(?: {4}.*)?\n)+)(?=\S|\Z)", re.MULTILINE)
NUMBER = re.compile(r"\d[\d.,]*")
SHORT = {
    "--minutes 5": "--steps 2",
    "--seconds 20": "--seconds 0.1",
    "--seconds 60": "--seconds 0.1",
    r"\[9, 7, 10\]": "[1]",
}
"""What takes its time on the tutorials, or names objects of the crop, and what stands for it."""
PREPARED = {
    r"--(minutes|steps|epochs) \d+": "--steps 1",
    r"--model (unet2d\S*|emnet|attention-unet)": r"--model tiny/\1.safetensors",
    r"--from (emnet)": r"--from tiny/unet2d.safetensors",
    r"(volseg train (?!.*--(?:architecture|from|patch)).*)": r"\1 --architecture unet2d",
    r"--roi 8:9,64:320,64:320(?! --model)": r"--roi 8:9,0:32,0:32 --model tiny/emnet.safetensors",
    r"64:320,64:320": "0:32,0:32",
    r"--slices [\d,]+": "--slices 0,3,6,27",
    r"--validation \d\S+": "--validation 24:32,:,:",
    r"--roi 0:132,:,:": "--roi 0:24,:,:",
    r"--patch (32,80,80|16,48,48)": "--patch 8,16,16",
    r"--patch 1,(128,128|256,256)( --batch 4)?": r"--patch 1,32,32\2",
    r"--resample-to 14,14,14 ": "",
    r"--voxel-size (8,4,4|1 )": "--voxel-size 5,5,5 ",
    r"--level 1": "--level 0",
    r"--not 12,40,77 --yes 7": "--not 1 --yes 2 --steps 1",
    r"--object 3 --object 12": "--object 1 --object 2",
    r"--repair": "--repair --model tiny/emnet.safetensors",
    r"--truth masks/": "--truth image-masks/",
    r"(--cluster slurm .*)": r"\1 --dry-run",
    r"volseg preview vol.zarr": "volseg preview wide.zarr --seconds 0.1",
}
"""The same of the other pages, which are followed in a folder that `prepare` makes."""


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


def prepare(folder: Path) -> None:
    """Make what the pages take for granted: stacks, labels, weights, and volumes with results."""
    raw, mask = (
        tifffile.imread(ROOT / "examples" / "crop" / f"{name}.tif")[SPOT]
        for name in ("raw", "labels")
    )
    truth = (mask > 0).astype(np.uint8)
    labels = truth.copy()
    labels[:, :4, :4] = 2  # another class
    for name in ("stack", "raw", "train_raw", "a", "b", "nuclei", "examples/crop/raw"):
        write_stack(folder / f"{name}.tif", raw)
    write_stack(folder / "labels.tif", labels)
    for name in ("truth", "train_labels", "a_labels", "b_labels", "instances"):
        write_stack(folder / f"{name}.tif", truth)
    for name in ("examples/crop/labels", "masks/mitochondria", "masks/membranes"):
        write_stack(folder / f"{name}.tif", truth)
    for k in range(3):
        write_stack(folder / "images" / f"{k}.tif", raw[k])
        write_stack(folder / "image-masks" / f"{k}.tif", truth[k])
    wide = tifffile.imread(ROOT / "examples" / "crop" / "raw.tif")[CORNER]
    write_stack(folder / "wide.tif", wide)
    volseg.convert(folder / "wide.tif", folder / "wide.zarr")
    zarr.save_array(folder / "array", raw)
    (folder / "gpu.toml").write_text('workers = 2\nmemory = "2GB"\n', encoding="utf-8")
    (folder / "tiny").mkdir()
    for name in ("emnet", "unet2d", "unet2d-general", "attention-unet"):
        flat = find_architecture(name.removesuffix("-general")).dimensions == 2
        tile, overlap = ((1, 32, 32), (0, 0, 0)) if flat else ((32, 32, 32), (4, 8, 8))
        made = write_weights(folder, name.removesuffix("-general"), tile, overlap, 2 if flat else 8)
        copy_weights(made, folder / "tiny" / f"{name}.safetensors")
    for name in ("mine/mine", "without-vnc"):
        copy_weights(folder / "tiny" / "unet2d.safetensors", folder / f"{name}.safetensors")
    volume = folder / "vol.zarr"
    volseg.convert(folder / "stack.tif", volume, voxel_size=(5, 5, 5))
    volseg.label(volume, probabilities=folder / "truth.tif", threshold=0.5, name="membranes")
    shutil.copytree(volume, folder / "vnc.zarr")
    for name in ("a", "b"):
        shutil.copytree(volume, folder / f"{name}.zarr")
        volseg.label(folder / f"{name}.zarr", probabilities=folder / "truth.tif", name="mito")
    volseg.segment(volume, model=folder / "tiny" / "emnet.safetensors")
    volseg.stats(volume)
    smallest = min(volseg.open(volume).tables[NAME].to_pylist(), key=lambda row: row["voxels"])
    corrections = json.dumps({"delete": [smallest["label"]]})
    (folder / "corrections.json").write_text(corrections, encoding="utf-8")
    for name in ("control-1", "control-2", "treated-1"):
        shutil.copytree(volume, folder / f"{name}.zarr")


def write_stack(path: Path, values: np.ndarray) -> None:
    """Write a stack that says how large its voxels are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"axes": "ZYX"[-values.ndim :], "spacing": 5.0, "unit": "nm"}
    tifffile.imwrite(path, values, imagej=True, metadata=size, resolution=(0.2, 0.2))


def copy_weights(weights: Path, target: Path) -> None:
    """Copy weights and their card."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for ending in (".safetensors", ".json"):
        shutil.copy(weights.with_suffix(ending), target.with_suffix(ending))


class Block(NamedTuple):
    """A block of a page: the file it is called by, its language, text, and why not to run it."""

    name: str
    language: str
    text: str
    reason: str

    @property
    def runs(self) -> bool:
        """Tell whether it is code that is run here, or a file that it takes."""
        return bool(self.language) and not self.reason


def blocks(page: Path) -> list[Block]:
    """List the blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = {}
    for match in FENCE.finditer(text):
        name, language, code, reason = (match[k] or "" for k in Block._fields)
        if not language and re.match(r"(\$ )?volseg ", code):
            language, code = "console", re.sub(r"^(?=volseg )", "$ ", code, flags=re.MULTILINE)
        found[match.start("text")] = Block(name, language, code, reason)
    # of the same length, so that the order of both kinds is known
    plain = FENCE.sub(lambda m: "\n" * len(m[0]), text)
    for match in INDENTED.finditer(plain):
        if not match["text"].strip():
            continue
        code = textwrap.dedent(match["text"]).strip("\n") + "\n"
        language = "toml" if code.startswith("[") else "console"
        if language == "console":  # a line that goes on is indented
            code = re.sub(r"^(?=\S)", "$ ", code, flags=re.MULTILINE)
        found[match.start("text")] = Block("", language, code, match["reason"] or "")
    return [found[place] for place in sorted(found)]


def run_page(page: Path, run: Callable, *, prepared: bool = False) -> None:
    """Run the blocks of a page in the current folder; the first that fails raises.

    Of a prepared folder, what other pages made is replaced.
    """
    state: dict = {}
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "console" and prepared:
            run_console(block.text, lambda *words: run(*replacing(words)), PREPARED)
        elif block.language == "console":
            run_console(block.text, run)
        elif block.language == "python":
            run_python(block.text, state, page.name)
        elif block.name:
            Path(block.name).write_text(shortened(block.text), encoding="utf-8")
        else:
            run_part(block.text, block.language)


def replacing(words: Sequence[str]) -> Sequence[str]:
    """Add `--overwrite` where a command takes it, but for marks, which no other page applies."""
    given = main.commands[words[0]].params
    takes = any("--overwrite" in parameter.opts for parameter in given)
    return [*words, "--overwrite"] if takes and not {"--repair", "--marks"} & {*words} else words


def run_part(text: str, language: str) -> None:
    """Read a part of a recipe, or corrections, as `train --config` and `apply` do."""
    path = Path(f"part.{language}")
    path.write_text(text, encoding="utf-8")
    if language == "json":
        read_corrections(path)
    else:
        build_config(override({"steps": 1}, load_recipe(path).config))


def shortened(text: str, short: Mapping[str, str] = SHORT) -> str:
    """Put what suits the folder in the place of what suits the crop, or the reader's data."""
    for given, shorter in short.items():
        text = re.sub(given, shorter, text)
    return text


def run_console(text: str, run: Callable, short: Mapping[str, str] = SHORT) -> None:
    """Run commands one after the other; what is shown must be printed, in its order."""
    text = shortened(text.replace("\\\n", " "), short)
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        printed = run_command(command, run)
        lines = iter([masked(line) for line in printed.splitlines()])
        for line in filter(None, shown.splitlines()):
            shape = re.escape(masked(line)).replace(r"\.\.\.", ".*")
            found = any(re.fullmatch(shape, other) for other in lines)
            assert found, f"$ {command}\nshows\n{line}\nbut prints\n{printed}"


def run_command(command: str, run: Callable) -> str:
    """Run a command of volseg in this process, any other by the shell."""
    words = shlex.split(command, comments=True)
    if words[0] == "volseg":
        result = run(*words[1:])
        assert result.exit_code == 0, f"$ {command}\n{result.output}"
        return str(result.output)
    made = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert made.returncode == 0, f"$ {command}\n{made.stderr}"
    return made.stdout


def masked(line: str) -> str:
    """Leave out numbers, their plurals, folders, the width of columns, and a CPU's precision."""
    line = re.sub(r"\bcpu, (float32|bfloat16)\b", "cpu, ...", line)
    line = re.sub(r"(?<=\d) [kMG](?=B? )", " ", re.sub(r" /\S+/", " /", line))
    return re.sub(
        r"\bN (\w+)s\b", r"N \1", " ".join(NUMBER.sub("N", line).replace(" B ", " ").split())
    )


def run_python(text: str, state: dict, name: str) -> None:
    """Run a block, as a doctest where it is one, with what the blocks before it left."""
    if ">>>" not in text:
        Path("page.py").write_text(text, encoding="utf-8")
        state.update(runpy.run_path("page.py", state))
        return
    test = doctest.DocTestParser().get_doctest(text, state, name, name, 0)
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.DocTestRunner(optionflags=flags).run(test, out=told.append, clear_globs=False)
    state.update(test.globs)
    assert result.failed == 0, "".join(told)
