"""Processes that are killed: workers, the scheduler, the command itself."""

from __future__ import annotations

import pytest

BLOCKS = 3 * 3 * 2


def test_a_worker_killed_in_the_middle_of_a_block_costs_nothing(faults, check_result):
    volume = faults.volume()
    fault = faults.fault("evaluate", "kill", where=[1, 0, 1], times=1)
    status, _, errors = faults.run(faults.segment(volume, *faults.cluster()), fault)
    assert status == 0, errors
    check_result(volume)
