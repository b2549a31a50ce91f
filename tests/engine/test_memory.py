"""Freed memory is kept: large arrays cost their page faults once."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
from concurrent.futures import ThreadPoolExecutor

from volseg.engine.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
import numpy as np


def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2):
        # more than a gigabyte at once, as a network holds
        _ = [np.ones(100 << 20, np.uint8) for _ in range(11)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


with ThreadPoolExecutor(1) as pool:
    pool.submit(work).result()
    print(pool.submit(work).result())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_large_arrays_are_not_cleared_again_and_again():
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", PROGRAM, how]))
        for how in ("keep", "return")
    }
    assert faults["keep"] < faults["return"] / 10
