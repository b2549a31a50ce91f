"""Steps of a run, and the Dask graph of a window of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")

SAME_AGAIN = "what is done is on record, and the same command again does the rest"

Outcome: TypeAlias = "list[Any] | None"
"""One result or `Failure` per item of a node; None if a node that it waits for has failed."""
Graph: TypeAlias = dict[str, tuple[Any, ...]]
"""Dask's: a callable by key, followed by the keys of the nodes that it waits for."""


@dataclass(frozen=True)
class Step(Generic[Item]):
    """An item that waits for others, that others wait for, or that needs a GPU.

    Attributes
    ----------
    item : what the task is called with.
    name : under which other steps refer to it; None if none does.
    after : names of steps that must be done before, of which only earlier ones count.
    on_gpu : run it on a worker that announces a GPU, if there is any.
    """

    item: Item
    name: Hashable = None
    after: tuple[Hashable, ...] = ()
    on_gpu: bool = False


@dataclass(frozen=True)
class Failure:
    """The error of an item, in place of its result."""

    error: BaseException


@dataclass(eq=False)
class Trial:
    """An attempt at some steps: a node of a window's graph, and what became of it.

    Attributes
    ----------
    steps : more than one only if they are short.
    attempt : counted from 1.
    first_error : of the first attempt, if this is a later one.
    waits_for : those of the same graph that are not back yet.
    dependents : those of the same graph that wait for it.
    due : since when it waits for nothing but a worker.
    began : when it began, where that is known; 0 before.
    given_up : nobody waits for it any more.
    outcome, error : how it came back: what the node returned, or what kept it from that.
    """

    key: str
    steps: Sequence[Step[Any]]
    attempt: int = 1
    first_error: BaseException | None = None
    waits_for: set[Trial] = field(default_factory=set)
    dependents: list[Trial] = field(default_factory=list)
    due: float = 0.0
    began: float = 0.0
    given_up: bool = False
    handle: Any = None
    outcome: Outcome = None
    error: BaseException | None = None


def build_graph(task: Callable[[Any], Any], window: Iterable[Trial]) -> Graph:
    """Build the graph of a window: nodes carry items, edges no more than that all went well."""
    return {
        trial.key: (
            partial(attempt, task, [step.item for step in trial.steps]),
            *(source.key for source in trial.waits_for),
        )
        for trial in window
    }


def attempt(task: Callable[[Any], Any], items: Sequence[Any], *sources: Outcome) -> Outcome:
    """Run a task on items, unless one of the nodes before has failed.

    Returns
    -------
    one result per item, a `Failure` for those that failed; None if nothing was attempted.
    """
    if has_failed(sources):
        return None
    return [_try(task, item) for item in items]


def has_failed(outcomes: Sequence[Outcome]) -> bool:
    """Tell whether an item of some nodes has failed, or was not attempted."""
    return any(
        outcome is None or any(isinstance(one, Failure) for one in outcome) for outcome in outcomes
    )


def _try(task: Callable[[Any], Any], item: Any) -> Any:
    try:
        return task(item)
    except BaseException as error:  # noqa: BLE001 - it is reported where the run is directed
        _free_frames(error)
        return Failure(error)


def _free_frames(error: BaseException) -> None:
    """Free the arrays of a block that failed: its error is kept until all others are done."""
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        if (this := found.pop()) is None or id(this) in seen:
            continue
        seen.add(id(this))
        traceback.clear_frames(this.__traceback__)
        found += [this.__cause__, this.__context__, *getattr(this, "exceptions", ())]


def name_of(task: Callable[[Any], Any]) -> str:
    """Name a task as Dask shows it."""
    task = getattr(task, "func", task)  # a function of which some arguments are given
    return str(getattr(task, "__name__", type(task).__name__)).strip("<>")
