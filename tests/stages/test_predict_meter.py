"""Progress of a prediction moves from tile to tile, and ends at the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from volseg.engine.progress import NoProgress
from volseg.stages.predict.meter import TileMeter, tell_tile

HERE = Path("handovers")


class Counted(NoProgress):
    def __init__(self):
        self.steps = []

    def advance(self, n):
        self.steps.append(n)


def test_each_tile_counts_at_once_and_only_once():
    progress = Counted()
    meter = TileMeter(progress, voxels=1000, tiles=4)
    with meter.listening(HERE):
        for _ in range(3):
            tell_tile(HERE, (0, 0, 0))
        tell_tile(Path("another run"), (0, 0, 0))
    assert progress.steps == [250, 250, 250]
    assert meter.finish_block((0, 0, 0), 3) == 0
    tell_tile(HERE, (0, 0, 1))
    assert meter.finish_block((0, 0, 1), 1) == 250, "a worker elsewhere tells nothing"
    assert meter.finish() == 0


@pytest.mark.parametrize("tiles", [0, 2.5, 50])
def test_a_run_ends_at_its_whole_however_many_tiles_were_expected(tiles):
    progress = Counted()
    meter = TileMeter(progress, voxels=1000, tiles=tiles)
    with meter.listening(HERE):
        for _ in range(7):  # some of them again, after a failure
            tell_tile(HERE, (0, 0, 0))
        more = meter.finish_block((0, 0, 0), 5) + meter.finish_block((0, 1, 0), 3)
    assert sum(progress.steps) + more + meter.finish() == 1000
    assert meter.finish() == 0
