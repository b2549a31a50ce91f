"""Run one function over many blocks, by Dask, here or on a cluster: honest about failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from volseg.engine.local import LocalScheduler
from volseg.engine.memory import keep_freed_memory
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job
from volseg.engine.steps import Step
from volseg.engine.windows import Windows
from volseg.errors import BlockError, ParameterError, WorkError
from volseg.geometry.grid import Block

if TYPE_CHECKING:
    from volseg.engine.windows import Scheduler

Item = TypeVar("Item")
Result = TypeVar("Result")

SHOWN_FAILURES = 5

_kept: ContextVar[Scheduler | None] = ContextVar("kept", default=None)


@contextmanager
def same_workers(options: EngineOptions) -> Iterator[None]:
    """Run all blocks within on the same workers, in place of new ones for each stage."""
    if _kept.get() is not None:
        yield
        return
    with _scheduler(options) as scheduler:
        token = _kept.set(scheduler)
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def _scheduler(options: EngineOptions) -> Iterator[Scheduler]:
    kept = _kept.get()
    if kept is not None:
        yield kept
        return
    keep_freed_memory()
    if options.scheduler is None and options.cluster is None:
        with closing(LocalScheduler(options.threads)) as here:
            yield here
        return
    # imported only here: it takes as long as measuring half a gigavoxel
    try:
        from volseg.engine.remote import remote_scheduler
    except ModuleNotFoundError as error:
        if error.name != "distributed":
            raise
        raise ParameterError(
            "--cluster, --scheduler and several GPUs need distributed: pip install "
            "'volseg[cluster]'; --workers 1 does without"
        ) from error

    with remote_scheduler(options) as elsewhere:
        yield elsewhere


def run_blocks(
    task: Callable[[Item], Result],
    items: Iterable[Item | Step[Item]],
    options: EngineOptions,
    *,
    on_result: Callable[[Item, Result], object] | None = None,
    progress: Job | None = None,
    batch: int = 1,
) -> None:
    """Run a task on every item: windows of them are Dask graphs, so no more are held than of use.

    What fails is tried again after all others, up to `volseg.engine.windows.ATTEMPTS` times.

    Parameters
    ----------
    task : picklable callable
        Reads, computes and writes by itself, the same if it runs twice; returns a few numbers.
    items : iterable of picklable items
        Consumed as the work proceeds; its text names an item in messages. A `Step` in place of an
        item says what comes after what: steps that are waited for come first.
    on_result : called here, in order of completion
    batch : how many items make one node of a graph; more than 1 for those that take less than 1 ms

    Raises
    ------
    BlockError
        If any item failed, after all others were done; it lists them.
    WorkError
        If the scheduler is lost, or all workers hang.
    InputError
        If a task found the input unusable: the same for every block, so the run stops at once.
    """
    steps = (item if isinstance(item, Step) else Step(item) for item in items)
    with _scheduler(options) as scheduler, progress.shown() if progress else nullcontext():
        windows = Windows(scheduler, task, steps, batch=batch, block_seconds=options.block_seconds)
        try:
            for item, result in windows.results():
                if on_result is not None:
                    on_result(item, result)
                if progress is not None:
                    progress.count(item, result)
        finally:
            windows.leave()
    if failures := windows.failures:
        raise BlockError(_describe(failures), _blocks_of(failures)) from failures[0][1]


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
