"""Progress on standard error: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from volseg.cli.wording import duration, scaled

SECONDS_BETWEEN_LINES = 10.0
WINDOW = 64
"""Speed is averaged over this many reports: work done by an earlier run does not count."""


@dataclass
class Meter:
    """How far a job is, how fast it goes, and how long it will take."""

    total: int
    unit: str
    done: int = 0
    reports: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def advance(self, n: int, now: float) -> None:
        """Count ``n`` more units as done at the time ``now``, in seconds."""
        self.done += n
        self.reports.append((now, self.done))

    @property
    def speed(self) -> float | None:
        """Units per second since the oldest report that is remembered; None when unknown."""
        if len(self.reports) < 2:
            return None
        (first, before), (last, after) = self.reports[0], self.reports[-1]
        return (after - before) / (last - first) if last > first else None

    def describe(self) -> str:
        """Put what is known in words."""
        words = f"{scaled(self.done)} of {scaled(self.total)} {self.unit}"
        if not self.speed:
            return words
        left = duration((self.total - self.done) / self.speed)
        return f"{words}, {scaled(self.speed)} {self.unit}/s, {left} left"


@dataclass
class LineProgress:
    """Reports in plain lines, seldom enough for a log file."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    title: str = ""
    meter: Meter = field(default_factory=lambda: Meter(0, ""))
    begun: float = 0.0
    written: float = 0.0

    def start(self, total: int, unit: str, title: str) -> None:
        """Begin a job of ``total`` units."""
        self.title, self.meter = title, Meter(total, unit)
        self.begun = self.written = self.clock()

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done."""
        now = self.clock()
        self.meter.advance(n, now)
        if now - self.written >= SECONDS_BETWEEN_LINES:
            self.written = now
            self._write(self.meter.describe())

    def finish(self) -> None:
        """End the job, complete or not."""
        spent = self.clock() - self.begun
        if spent >= SECONDS_BETWEEN_LINES:
            done, total = scaled(self.meter.done), scaled(self.meter.total)
            self._write(f"{done} of {total} {self.meter.unit} after {duration(spent)}")

    def _write(self, words: str) -> None:
        print(f"{self.title}: {words}", file=self.stream, flush=True)


@dataclass
class BarProgress:
    """Reports in a bar that is redrawn in place."""

    console: Console = field(default_factory=lambda: Console(stderr=True))
    meter: Meter = field(default_factory=lambda: Meter(0, ""))
    bar: Progress | None = None

    def start(self, total: int, unit: str, title: str) -> None:
        """Begin a job of ``total`` units."""
        self.meter = Meter(total, unit)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[words]}"),
        )
        self.bar = Progress(*columns, console=self.console)
        self.bar.add_task(title, total=total, words="")
        self.bar.start()

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done."""
        self.meter.advance(n, time.monotonic())
        if self.bar is not None:
            task = self.bar.task_ids[0]
            self.bar.update(task, completed=self.meter.done, words=self.meter.describe())

    def finish(self) -> None:
        """End the job, complete or not."""
        if self.bar is not None:
            self.bar.stop()
