"""Programs that are killed again and again, as a power cut or a queue would end them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLOW_PREDICTION = Path(__file__).with_name("slow_prediction.py")


def kill_until_done(program: list[Any], live: Callable[[subprocess.Popen[str], int], None]) -> None:
    """Kill a Python program and what it started, and start it again, until it ends by itself.

    ``live(process, kills)`` lets it live for a while. The program must be killed at least once,
    and end well.
    """
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, *map(str, program)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            live(process, kills)
            if process.poll() is not None:
                break
            os.killpg(process.pid, signal.SIGKILL)
        kills += 1
    assert process.returncode == 0
    assert kills > 0, "the run was never interrupted"


def live_longer_each_time(luck: random.Random) -> Callable[[subprocess.Popen[str], int], None]:
    """Choose when to kill: at a random moment after the first line that is printed."""

    def live(process: subprocess.Popen[str], kills: int) -> None:
        process.stdout.readline()
        # a busy machine gets further only if it is given longer
        deadline = time.monotonic() + luck.uniform(0.3, 1.5) * (1 + kills / 4)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    return live
