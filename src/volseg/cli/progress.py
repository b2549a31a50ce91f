"""Progress on standard error: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

import click

from volseg.cli.streams import say
from volseg.cli.wording import duration, scaled

SECONDS_BETWEEN_LINES = 10.0
SECONDS = "seconds"
"""The unit of a job whose length is a time."""
WINDOW = 64
"""Speed is averaged over this many reports: work done by an earlier run does not count."""


@dataclass
class Meter:
    """The state of a job: units done, speed and time left."""

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
        if not self.speed or self.unit == SECONDS:
            return self.count()
        left = duration(max(self.total - self.done, 0) / self.speed)
        return f"{self.count()}, {scaled(self.speed)} {self.unit}/s, {left} left"

    def count(self) -> str:
        """Write what is done, of how much.

        Examples
        --------
        >>> Meter(120, "seconds", 95).count(), Meter(2000, "voxels", 500).count()
        ('1 min 35 s of 2 min 0 s', '500 of 2 k voxels')
        """
        if self.unit == SECONDS:
            return f"{duration(min(self.done, self.total))} of {duration(self.total)}"
        return f"{scaled(self.done)} of {scaled(self.total)} {self.unit}"


@dataclass
class LineProgress:
    """Reports in plain lines, one every ten seconds, also while nothing is done."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    title: str = ""
    meter: Meter = field(default_factory=lambda: Meter(0, ""))
    begun: float = 0.0
    written: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, total: int, unit: str, title: str) -> None:
        """Begin a job of ``total`` units."""
        self.ended.set()
        self.title, self.meter, self.ended = title, Meter(total, unit), threading.Event()
        self.begun = self.written = self.clock()
        threading.Thread(target=self._remind, args=(self.ended,), daemon=True).start()

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done."""
        with self.lock:
            self.meter.advance(n, self.clock())
        self.tell()

    def tell(self) -> None:
        """Write a line, if the last one is ten seconds old."""
        with self.lock:
            now = self.clock()
            if now - self.written >= SECONDS_BETWEEN_LINES:
                self.written = now
                self._write(f"{self.meter.describe()}, after {duration(now - self.begun)}")

    def finish(self) -> None:
        """End the job, complete or not."""
        self.ended.set()
        spent = self.clock() - self.begun
        if spent >= SECONDS_BETWEEN_LINES:
            ended = "done" if self.meter.done >= self.meter.total else "ended"
            self._write(f"{self.meter.count()}, {ended} after {duration(spent)}")

    def _remind(self, ended: threading.Event) -> None:
        """Write lines while a block takes long."""
        while not ended.wait(SECONDS_BETWEEN_LINES):
            self.tell()

    def _write(self, words: str) -> None:
        say(f"{self.title}: {words}", self.stream)


@dataclass
class BarProgress:
    """Reports in a bar that is redrawn in place."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    meter: Meter = field(default_factory=lambda: Meter(0, ""))
    bar: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, total: int, unit: str, title: str) -> None:
        """Begin a job of ``total`` units."""
        self.meter = Meter(total, unit)
        # as wide as the terminal: a line that is wrapped cannot be redrawn
        self.bar = click.progressbar(
            length=total,
            label=title,
            file=self.stream,
            width=0,
            show_eta=False,
            item_show_func=lambda words: words,
        )
        self.bar.render_progress()

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done."""
        with self.lock:
            self.meter.advance(n, time.monotonic())
            self.bar.update(n, self.meter.describe())

    def finish(self) -> None:
        """End the job, complete or not."""
        self.bar.render_finish()
