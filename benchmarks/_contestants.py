"""Let contestants work in processes of their own, in turn, and compare the times they took.

Turns, so that what else the machine does meets all of them; processes, so that peak memory can be
told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Found = dict[str, float]


def parser_of(description: str | None, contestants: Sequence[str]) -> argparse.ArgumentParser:
    """Make a parser of what every such benchmark takes; `take_turns` uses those that are hidden."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=contestants, help=argparse.SUPPRESS)
    return parser


def take_turns(
    contestants: Sequence[str], volume: Path, arguments: argparse.Namespace, *more: str
) -> dict[str, list[Found]]:
    """Run this program again with ``--only`` for each contestant, as often as was asked for.

    Each prints one JSON object of what it measured; they are collected by contestant.
    """
    results: dict[str, list[Found]] = {c: [] for c in contestants}
    command = [sys.executable, sys.argv[0], "--volume", volume, *more]
    command += ["--workers", str(arguments.workers)]
    for _ in range(arguments.repeats):
        for contestant in contestants:
            done = subprocess.run(
                [*command, "--only", contestant], check=True, capture_output=True, text=True
            )
            results[contestant].append(json.loads(done.stdout))
            print(contestant, results[contestant][-1], flush=True)
    return results


def median(found: list[Found], what: str = "seconds") -> float:
    """Find the median of what a contestant measured."""
    return statistics.median(f[what] for f in found)


def times_as_much(found: list[Found], other: list[Found], what: str = "seconds") -> float:
    """Find by how much one took more than another: the median of the rounds' ratios."""
    return statistics.median(f[what] / o[what] for f, o in zip(found, other, strict=True))


def peak_megabytes() -> float:
    """Return the peak of this process's memory so far; ru_maxrss would hold the parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024


def print_peers(results: dict[str, list[Found]], voxels: float, last: str, form: str) -> None:
    """Print a line for each contestant: its speed, volseg's beside it, and what is ``last``.

    Parameters
    ----------
    form : of the name and of the speed, for example ``"{:7} {:6.0f}"``.
    """
    rounds = len(results["volseg"])
    print(f"{voxels / 1e6:.0f} Mvoxel, medians of {rounds} rounds:")
    for contestant, found in results.items():
        speed = form.format(contestant, voxels / 1e6 / median(found))
        ratio = times_as_much(found, results["volseg"])
        peak = max(f["megabytes"] for f in found)
        print(
            f"{speed} Mvoxel/s   volseg is {ratio:.2f} times as fast   peak {peak:.0f} MB   "
            + last.format(**found[0])
        )
