"""Report the progress of a stage; the caller decides what is shown, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from volseg.geometry.grid import roi_size


class Progress(Protocol):
    """Receives the progress of one job after another."""

    def start(self, total: int, unit: str, title: str) -> None:
        """Begin a job of ``total`` units."""

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done."""

    def finish(self) -> None:
        """End the job, complete or not."""


class NoProgress:
    """Shows nothing."""

    def start(self, total: int, unit: str, title: str) -> None:
        """Begin a job of ``total`` units."""

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done."""

    def finish(self) -> None:
        """End the job, complete or not."""


def one(_item: Any, _result: Any) -> int:
    """Count an item as one unit."""
    return 1


def core_voxels(item: Any, _result: Any) -> int:
    """Count the voxels that an item's block, or the item as a block, has for its own."""
    return roi_size(getattr(item, "block", item).core)


def returned(_item: Any, result: int) -> int:
    """Count what the task returned."""
    return result


@dataclass(frozen=True)
class Job:
    """A job whose progress is shown while its items are run.

    Attributes
    ----------
    total, unit, title : of all items, see `Progress.start`.
    done : how many units of these are done before the first item.
    size : counts the units of an item and its result.
    """

    progress: Progress
    total: int
    unit: str
    title: str
    done: int = 0
    size: Callable[[Any, Any], int] = one

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the job while it is under way."""
        self.progress.start(self.total, self.unit, self.title)
        try:
            if self.done:
                self.progress.advance(self.done)
            yield
        finally:
            self.progress.finish()

    def count(self, item: Any, result: Any) -> None:
        """Count an item as done."""
        units = self.size(item, result)
        if units:
            self.progress.advance(units)
