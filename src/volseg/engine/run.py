"""Run one function over many blocks, here or on Dask's workers: windowed, honest about failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from volseg.engine.memory import keep_freed_memory
from volseg.engine.options import EngineOptions
from volseg.engine.threads import threads
from volseg.engine.trials import Run, Workers
from volseg.errors import BlockError, InputError, WorkError
from volseg.geometry.grid import Block

Item = TypeVar("Item")
Result = TypeVar("Result")

SHOWN_FAILURES = 5

_kept: ContextVar[Workers | None] = ContextVar("kept", default=None)


@contextmanager
def same_workers(options: EngineOptions) -> Iterator[None]:
    """Run all blocks within on the same workers, in place of new ones for each stage."""
    if _kept.get() is not None:
        yield
        return
    with _workers(options) as workers:
        token = _kept.set(workers)
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def _workers(options: EngineOptions) -> Iterator[Workers]:
    kept = _kept.get()
    if kept is not None:
        yield kept
        return
    keep_freed_memory()
    if options.scheduler is None and options.cluster is None:
        with threads(options.threads) as here:
            yield here
        return
    # imported only here: it takes as long as measuring half a gigavoxel
    from volseg.engine.dask_workers import connect

    with connect(options.scheduler, options.cluster) as elsewhere:
        yield elsewhere


def run_blocks(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    options: EngineOptions,
    *,
    on_result: Callable[[Item, Result], Iterable[Item] | None],
    on_gpu: type | None = None,
) -> None:
    """Run ``task`` on every item, never handing out more of them than the workers can use.

    What fails is tried again after all others, up to `ATTEMPTS` times.

    Parameters
    ----------
    task : picklable callable
        Reads, computes and writes by itself, the same if it runs twice; returns a few numbers.
    items : iterable of picklable items
        Consumed as the work proceeds; its text names an item in messages.
    options : EngineOptions
    on_result : callable
        Called here, in order of completion. The items that it returns, if any, run next.
    on_gpu : kind of items
        Which need a GPU; they go to workers that announce one, if there are any.

    Raises
    ------
    BlockError
        If any item failed, after all others were done; it lists them.
    WorkError
        If the scheduler is lost, or all workers hang.
    InputError
        If a task found the input unusable: the same for every block, so the run stops at once.
    """
    with _workers(options) as workers:
        run = Run(workers, options.block_seconds, task, iter(items), on_gpu)
        try:
            while (trial := run.wait()) is not None:
                if trial.error is None:
                    run.urgent.extend(on_result(trial.item, trial.result) or ())
                elif isinstance(trial.error, InputError):
                    raise trial.error
                else:
                    run.fail(trial)
        finally:
            run.leave()
    if run.failures:
        raise BlockError(_describe(run.failures), _blocks_of(run.failures)) from run.failures[0][1]


@contextmanager
def naming(missing: Callable[[], Iterable[Block]]) -> Iterator[None]:
    """Say what is missing now, whatever ended the work: also what waited for what has failed.

    Raises
    ------
    BlockError
        In place of every `WorkError`.
    """
    try:
        yield
    except WorkError as error:
        raise BlockError(str(error), tuple(missing())) from error


def _blocks_of(failures: list[tuple[Any, BaseException]]) -> tuple[Block, ...]:
    """List the blocks among what failed."""
    found = (getattr(item, "block", item) for item, _ in failures)
    return tuple(block for block in found if isinstance(block, Block))


def _describe(failures: list[tuple[Any, BaseException]]) -> str:
    lines = [f"{item}: {type(e).__name__}: {e}" for item, e in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"and {len(failures) - SHOWN_FAILURES} more")
    listed = "\n  ".join(lines)
    return (
        f"{len(failures)} block(s) failed; what is missing is not marked as done, and running the "
        f"same command again does only that:\n  {listed}"
    )
