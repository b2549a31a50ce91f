"""Measure what it costs to hand blocks out: blocks that do nothing, on workers of their own.

Prints seconds per block of the whole, the memory of the client and of the scheduler, and what part
of the time that is if a block takes as long as `--block` says.

    python benchmarks/engine.py --blocks 10000,100000
"""

from __future__ import annotations

import argparse
import os
import time

import psutil
from distributed import Client, LocalCluster

from volseg.blocks import Block, Grid
from volseg.stages.engine import EngineOptions, run_blocks

MEGA = 1e6


def nothing(block: Block) -> int:
    """Do nothing, as a block that is already there."""
    return block.index[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", default="10000,100000", help="how many, several times")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--block", type=float, default=30.0, help="seconds that a real block takes")
    arguments = parser.parse_args()
    for count in (int(n) for n in arguments.blocks.split(",")):
        with LocalCluster(
            n_workers=arguments.workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster:
            # the scheduler is a part of this process, and so is the client
            own = psutil.Process(os.getpid())
            with Client(cluster.scheduler_address) as client:
                client.wait_for_workers(arguments.workers)
            before = own.memory_info().rss
            grid, done = Grid((count, 1, 1), (1, 1, 1)), []
            begun, spent = time.perf_counter(), time.process_time()
            run_blocks(
                nothing,
                grid.blocks(),
                EngineOptions(scheduler=cluster.scheduler_address),
                on_result=lambda _, index, done=done: done.append(index),
            )
            seconds = time.perf_counter() - begun
            busy = time.process_time() - spent
            memory = own.memory_info().rss
            if sorted(done) != list(range(count)):
                raise SystemExit(f"{len(done)} of {count} blocks came back")
        print(
            f"{count} blocks: {seconds:.1f} s, {1e3 * seconds / count:.2f} ms each; client and "
            f"scheduler {1e3 * busy / count:.2f} ms of processor time each, "
            f"{memory / MEGA:.0f} MB ({(memory - before) / MEGA:+.0f} MB), "
            f"{100 * busy / count / arguments.block:.3f}% of blocks of {arguments.block:g} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
