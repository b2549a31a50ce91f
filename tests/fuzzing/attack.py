"""Damage one file after another and give each to the command line, in a process of its own.

    python attack.py FOLDER COUNT FIRST KIND [KIND]...

Prints one JSON object per kind: how the runs ended, and what must not happen but did. What must
not happen: an exception that volseg does not raise on purpose, a crash, more than `SECONDS` for one
file, more than `MEMORY` bytes, a file written outside the folder that the command was given.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import random
import resource
import shutil
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from kinds import Kind

SECONDS = int(os.environ.get("VOLSEG_FUZZ_SECONDS", "60"))
MEMORY = 1 << 30
SEED = "volseg"


class Watch:
    """Sees what is written: an audit hook cannot be removed, so there is one."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.outside: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what is written elsewhere than where it may be."""
        if not self.allowed or event.split(".", maxsplit=1)[0] not in {"open", "os", "shutil"}:
            return
        if event == "open":
            path, _, flags = arguments
            written = [(path, -1)] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else []
        elif event in {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}:
            written = [(arguments[0], arguments[-1])]
        elif event in {"os.rename", "os.link", "os.symlink"}:
            written = [(arguments[0], arguments[-2]), (arguments[1], arguments[-1])]
        else:
            return
        for path, folder in written:
            if isinstance(path, str | bytes | os.PathLike):
                # relative to an open folder, as when trees are removed, or to the working folder
                held = f"/proc/self/fd/{folder}" if type(folder) is int and folder >= 0 else ""
                found = os.path.realpath(os.path.join(held, os.fsdecode(path)))
                if not found.startswith(self.allowed) and "__pycache__" not in found:
                    self.outside.append(f"{event} {found}")


def attack(kind: Kind, name: str, numbers: range, folder: Path, watch: Watch) -> dict[str, Any]:
    """Run all mutations of a kind."""
    sound = folder / kind.make.__name__
    if not sound.exists():  # else another kind has made them
        sound.mkdir(parents=True)
        kind.make(sound)
    ended: Counter[str] = Counter()
    wrong: list[str] = []
    where = folder / name
    where.mkdir()
    (where / "bystander").write_text("untouched")
    for number in numbers:
        print(f"{name} {number}", file=sys.stderr, flush=True)
        case = where / f"{number:06}"
        shutil.copytree(sound, case / "in")
        (case / "out").mkdir()
        command = damage(kind, name, number, case)
        found = one_run(command, case, watch)
        ended[found.split(":")[0]] += 1
        left = sorted(p.name for p in where.iterdir())
        if left != sorted([case.name, "bystander"]):
            found = f"wrong: {left} stand beside the case"
        if found.startswith("wrong"):
            wrong.append(f"{name} {number}: {' '.join(command)}: {found}")
        shutil.rmtree(case)
    return {"kind": name, "ended": ended, "wrong": wrong}


def damage(kind: Kind, name: str, number: int, case: Path) -> list[str]:
    """Damage a file and choose a command that reads it."""
    chance = random.Random(f"{SEED} {name} {number}")
    pattern = chance.choice(list(kind.damage))
    file = chance.choice(sorted(p for p in (case / "in").glob(pattern) if p.is_file()))
    content = kind.damage[pattern](chance, file.read_bytes())
    file.write_bytes(content)
    if kind.rehash and chance.random() < 0.9:
        card = case / "in" / "toy.json"
        described = json.loads(card.read_text()) if card.exists() else {}
        card.write_text(json.dumps({**described, "sha256": hashlib.sha256(content).hexdigest()}))
        text = case / "in" / "own" / "bioimageio.yaml"
        if text.exists():
            kept = [row for row in text.read_text().splitlines() if "sha256" not in row]
            text.write_text("\n".join(kept))
    chosen = chance.choice(kind.commands)
    if "foreign" in str(file) and any("IN/own" in c for c in kind.commands[0]):
        chosen = kind.commands[1]
    elif any("IN/foreign" in c for c in chosen):
        chosen = kind.commands[0]
    words = {"FILE": str(file), "PARENT": str(file.parent)}
    filled = [words.get(w, w).replace("IN/", f"{case}/in/") for w in chosen]
    return [w.replace("OUT/", f"{case}/out/") for w in filled]


def one_run(command: list[str], case: Path, watch: Watch) -> str:
    """Run a command; say how it ended, ``wrong`` if in a way it must not."""
    from click.testing import CliRunner

    from volseg.cli import main
    from volseg.stages.train import run as train

    reader = command[0] in {"convert", "models"}
    target = case / "out" if reader else case
    before = reset_peak()
    watch.outside.clear()
    watch.allowed = (f"{target.resolve()}/", str(target.resolve()), os.environ["TMPDIR"], "/dev/")
    os.chdir(case / "in")
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        with patch.object(train, "train_steps", train_nothing):
            done = CliRunner().invoke(main, command)
    finally:
        faulthandler.cancel_dump_traceback_later()
        watch.allowed = ()
        os.chdir(case.parent)
    peak = high_water() - before
    if watch.outside:
        return f"wrong: wrote outside: {watch.outside[:3]}"
    if peak > MEMORY:
        return f"wrong: took {peak >> 20} MiB"
    return judge(done)


def judge(done: Any) -> str:
    """Say how a command ended."""
    from volseg.errors import VolsegError

    if done.exit_code == 0 and done.exception is None:
        return "done"
    error = done.exception.__context__ if isinstance(done.exception, SystemExit) else done.exception
    said = done.output.strip()[-400:]
    if "Traceback" in done.output or done.exit_code not in (1, 2):
        return f"wrong: status {done.exit_code}: {error!r} {said}"
    if error is None and done.exit_code == 1:
        return "findings"  # of verify, which damage does not stop
    if not isinstance(error, VolsegError):
        return f"wrong: {type(error).__name__}{place(error)}: {said}"
    cause = error.__cause__
    if error.__class__.__name__ == "BlockError" and not isinstance(cause, VolsegError):
        return f"wrong: a block failed with {type(cause).__name__}{place(cause)}: {said}"
    return type(error).__name__


def place(error: BaseException | None) -> str:
    """Say where in volseg an exception came from."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    ours = [f for f in frames if "volseg/" in f.filename] or frames[-1:]
    return f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""


def high_water() -> int:
    """Find the peak of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) << 10 for row in lines if row.startswith("VmHWM"))


def reset_peak() -> int:
    """Forget the peak; return what is in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return high_water()


def limit_memory(more: int) -> None:
    """Refuse this process more address space than it has, and so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def train_nothing(run: Any, *_: Any) -> None:
    """Stand in for the training itself: a damaged recipe may ask for a million steps."""
    from volseg.errors import TrainingError

    raise TrainingError(f"stopped at step {run.step}, on purpose")


@contextmanager
def prepared() -> Iterator[None]:
    """Load what commands need, start the workers, and set limits."""
    import torch

    from volseg.engine.options import EngineOptions
    from volseg.engine.run import same_workers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with same_workers(EngineOptions(workers=1)):
        limit_memory(4 * MEMORY)
        yield


def main_of_child(arguments: list[str]) -> None:
    """Attack the kinds that are named."""
    folder, count, first = Path(arguments[0]).resolve(), int(arguments[1]), int(arguments[2])
    (folder / "tmp").mkdir(parents=True)
    os.environ["TMPDIR"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "tmp")
    threading.stack_size(1 << 20)
    faulthandler.enable()
    sys.path.append(str(Path(__file__).parents[1] / "toys"))  # what all tests share
    from kinds import all_kinds  # beside this script

    known, watch = all_kinds(), Watch()
    sys.addaudithook(watch)
    with prepared():
        for name in arguments[3:]:
            found = attack(known[name], name, range(first, first + count), folder, watch)
            print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main_of_child(sys.argv[1:])
