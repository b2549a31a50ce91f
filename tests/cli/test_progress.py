"""Progress: right numbers, seldom lines, speed that ignores what an earlier run did."""

from __future__ import annotations

import io
import time

import pytest

from volseg.cli import progress as progress_module
from volseg.cli.progress import BarProgress, LineProgress, Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_ignores_what_was_done_before():
    meter = Meter(1_000_000, "voxels")
    meter.advance(900_000, now=0.0)
    assert meter.speed is None
    meter.advance(10_000, now=2.0)
    assert meter.speed == pytest.approx(5000)
    assert meter.describe() == "910 k of 1 M voxels, 5 k voxels/s, 18 s left"


def test_reports_at_one_moment_give_no_speed():
    meter = Meter(10, "tiles")
    meter.advance(1, now=1.0)
    meter.advance(1, now=1.0)
    assert meter.speed is None
    assert meter.describe() == "2 of 10 tiles"


def test_lines_come_every_ten_seconds_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress.start(60, "slices", "converting")
    for _ in range(60):
        clock.now += 0.5
        progress.advance(1)
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "converting: 20 of 60 slices, 2 slices/s, 20 s left, after 10 s"
    assert lines[-1] == "converting: 60 of 60 slices, done after 30 s"


def test_lines_come_while_a_block_takes_long(monkeypatch):
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.01)
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.start(4, "blocks", "segmenting")
    for _ in range(1000):
        if stream.getvalue().count("\n") > 2:
            break
        time.sleep(0.01)
    progress.finish()
    assert stream.getvalue().startswith("segmenting: 0 of 4 blocks, after 0 s\n")
    assert stream.getvalue().count("\n") > 2


def test_a_run_of_some_minutes_shows_times():
    meter = Meter(120, "seconds")
    for now in range(0, 150, 10):
        meter.advance(10, now=float(now))
    assert meter.describe() == "2 min 0 s of 2 min 0 s"


def test_more_than_all_leaves_no_negative_time():
    meter = Meter(10, "steps")
    meter.advance(6, now=1.0)
    meter.advance(6, now=2.0)
    assert meter.describe().endswith("0 s left")


@pytest.mark.parametrize(
    ("spent", "steps", "written"),
    [
        (1, 60, ""),
        (12, 60, "converting: 60 of 60 slices, done after 12 s"),
        (12, 7, "converting: 7 of 60 slices, ended after 12 s"),
    ],
)
def test_a_long_job_says_at_its_end_whether_it_is_done(spent, steps, written):
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress.start(60, "slices", "converting")
    clock.now += spent
    progress.advance(steps)
    progress.finish()
    assert stream.getvalue().splitlines()[-1:] == ([written] if written else [])


class Terminal(io.StringIO):
    """Looks like a terminal."""

    def isatty(self):
        return True


def test_bar_shows_speed_and_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    progress = BarProgress(stream)
    progress.start(4000, "voxels", "segmenting")
    progress.advance(1000)
    progress.advance(1000)
    progress.finish()
    assert "segmenting" in stream.getvalue()
    assert "50%" in stream.getvalue()
    assert "voxels/s" in stream.getvalue()
