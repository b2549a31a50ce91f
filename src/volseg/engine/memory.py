"""Memory that is used tile after tile and block after block is kept, not returned."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from functools import cache

LARGEST_KEPT, NEVER = (1 << 31) - 1, -1
# names and numbers of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep large blocks that are freed, for the next tile.

    By default it returns every block above 32 MB to the system at once, which clears each page anew
    when the next tile asks for it: that takes most of the time of a network with large tiles. So
    nothing that is free is returned before the process ends. And only its first arena can hold
    blocks above 64 MB, so there is to be one, which holds for threads that start later: call this
    first.

    Returns
    -------
    whether this system has such a setting.

    Source: the manual page mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = {M_MMAP_THRESHOLD: LARGEST_KEPT, M_TRIM_THRESHOLD: NEVER, M_ARENA_MAX: 1}
    return all(libc.mallopt(name, value) == 1 for name, value in settings.items())


def physical_bytes() -> int:
    """Count the memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Find the most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
