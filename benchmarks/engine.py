"""Measure what it costs to hand blocks out: blocks that do nothing, here and on Dask's workers.

Prints seconds per block of the whole, the memory of the client and of the scheduler, and what part
of the time that is if a block takes as long as `--block` says.

    python benchmarks/engine.py --blocks 10000,100000
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from distributed import Client, LocalCluster

from volseg.engine.options import EngineOptions
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid

MEGA = 1e6


def nothing(block: Block) -> int:
    """Do nothing, as a block that is already there."""
    return block.index[0]


@contextmanager
def here(workers: int) -> Iterator[EngineOptions]:
    """Choose threads of this process, as is the default."""
    yield EngineOptions(workers=workers)


@contextmanager
def on_dask(workers: int) -> Iterator[EngineOptions]:
    """Start workers that are processes; the scheduler and its client are a part of this one."""
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        with Client(cluster.scheduler_address) as client:
            client.wait_for_workers(workers)
        yield EngineOptions(scheduler=cluster.scheduler_address)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", default="10000,100000", help="how many, several times")
    parser.add_argument("--workers", type=int, default=2, help="threads, or processes of one")
    parser.add_argument("--where", default="here,Dask", help="in threads, or on Dask's workers")
    parser.add_argument("--block", type=float, default=30.0, help="seconds that a real block takes")
    arguments = parser.parse_args()
    own = psutil.Process(os.getpid())
    for count in (int(n) for n in arguments.blocks.split(",")):
        for name in arguments.where.split(","):
            with {"here": here, "Dask": on_dask}[name](arguments.workers) as options:
                before = own.memory_info().rss
                grid, done = Grid((count, 1, 1), (1, 1, 1)), []
                begun, spent = time.perf_counter(), time.process_time()
                run_blocks(
                    nothing,
                    grid.blocks(),
                    options,
                    on_result=lambda _, index, done=done: done.append(index),
                )
                seconds = time.perf_counter() - begun
                busy = time.process_time() - spent
                memory = own.memory_info().rss
                if sorted(done) != list(range(count)):
                    raise SystemExit(f"{len(done)} of {count} blocks came back")
            print(
                f"{name}: {count} blocks: {seconds:.1f} s, {1e3 * seconds / count:.3f} ms each; "
                f"this process {1e3 * busy / count:.3f} ms of processor time each, "
                f"{memory / MEGA:.0f} MB ({(memory - before) / MEGA:+.0f} MB), "
                f"{100 * busy / count / arguments.block:.4f}% of blocks of {arguments.block:g} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
