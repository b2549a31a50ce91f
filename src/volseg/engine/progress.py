"""How a stage tells how far it is; what is shown, and where, is the caller's business."""

from __future__ import annotations

from typing import Protocol


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
