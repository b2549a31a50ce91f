"""The command line with small shards, and with a fault where a test wants one.

A program of its own, so that the workers that it starts import it too, and share the fault.
``VOLSEG_TEST_FAULT`` is a JSON object: ``task`` names what goes wrong, in block ``where`` (all if
null), in the first ``times`` calls (all if null), counted over all processes by files in ``marks``.

To import everything takes seconds, and so does what commands load when they first need it. So one
process does that once, in commands that `warm` it, and each command is a fork of it. It reads one
JSON object per line, ``warm``, ``run`` or ``wait``, and answers with a number.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner

from volseg.cli import main
from volseg.models import inference
from volseg.stages.components.blocks import LabelBlock
from volseg.stages.label.tasks import WriteBlock
from volseg.stages.predict.tasks import PredictTask
from volseg.storage import arrays

CHUNK, SHARD = (4, 16, 16), (8, 32, 32)
TASKS: dict[str, tuple[type, str]] = {
    "evaluate": (PredictTask, "_evaluate"),
    "assemble": (PredictTask, "_assemble"),
    "label": (LabelBlock, "__call__"),
    "write": (WriteBlock, "__call__"),
}


def strike(marks: Path, times: int | None) -> bool:
    """Tell whether it is time for the fault; leave a mark for each."""
    number = 0
    while times is None or number < times:
        try:
            (marks / str(number)).touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        return True
    return False


def go_wrong(kind: str) -> None:
    """Do what was asked for."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        time.sleep(1000)
    elif kind == "slow":
        time.sleep(0.05)
    elif kind == "memory":
        raise MemoryError("Unable to allocate 1 PiB")
    elif kind == "error":
        raise OSError("the disk is away")


def install(fault: dict[str, Any]) -> None:
    """Let one kind of task go wrong."""
    owner, name = TASKS[fault["task"]]
    original = getattr(owner, name)

    def faulty(self: Any, item: Any) -> Any:
        index = list(getattr(getattr(item, "block", item), "index", ()))
        if fault.get("where") in (None, index) and strike(Path(fault["marks"]), fault.get("times")):
            go_wrong(fault["kind"])
        return original(self, item)

    setattr(owner, name, faulty)


def spoil_network(kind: str) -> None:
    """Let the network give NaN, or find no memory for itself."""

    def evaluate(_self: Any, batch: torch.Tensor, _taken: Any) -> torch.Tensor:
        if kind == "cuda memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB")
        return torch.full_like(batch, torch.nan)

    inference.Predictor._evaluate = evaluate


def prepare(fault: str) -> None:
    """Make shards small, and install a fault, if there is one."""
    arrays.fit_spec.__defaults__ = (CHUNK, SHARD)
    wanted = json.loads(fault) if fault else {"task": None}
    if wanted["task"] == "network":
        spoil_network(wanted["kind"])
    elif wanted["task"] is not None:
        install(wanted)


def next_command() -> list[str]:
    """Fork for each command that is asked for; return in the fork, never in the process itself."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "warm" in asked:
            done = CliRunner().invoke(main, asked["warm"])
            if done.exit_code:
                print(done.output, file=sys.stderr)
            print(done.exit_code, flush=True)
            continue
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        gc.freeze()  # a child need not look at, nor take apart, what it has not made
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        os.environ["VOLSEG_TEST_FAULT"] = asked["fault"]
        for number, name in enumerate(("/dev/null", asked["output"], asked["errors"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o666), number)
        return list(asked["run"])
    os._exit(0)


if __name__ == "__main__":
    for name in (
        "voxels.downsample",
        "stages.segment.run",
        "stages.stats.run",
        "stages.convert.run",
        "stages.verify.run",
    ):
        importlib.import_module(f"volseg.{name}")
    prepare("")
    arguments = next_command()
    prepare(os.environ["VOLSEG_TEST_FAULT"])
    sys.exit(main(arguments, prog_name="volseg"))
elif "VOLSEG_TEST_FAULT" in os.environ:  # as a worker's preload; pytest imports it, too
    prepare(os.environ["VOLSEG_TEST_FAULT"])
