"""Levels of a folder, copied block by block; an export that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from volseg import __version__
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.geometry.grid import Block, Grid
from volseg.storage.ledger import Ledger, block_key
from volseg.storage.remote import as_remote
from volseg.storage.stores import find_stamp
from volseg.storage.targets import BEGUN, resuming
from volseg.types import Zyx

FLUSH_SECONDS = 10.0
"""After which what is written is made durable and noted."""


@dataclass(frozen=True)
class Levels:
    """Ways to write a form.

    Attributes
    ----------
    create : begins a level: folder, number, voxels.
    begun : tells whether a level that was begun is there: folder, number.
    copy : makes the task that copies one block of a level: voxels, folder, number.
    finish : writes what makes the folder complete, last.
    block : whole chunks, (z, y, x).
    opened : lends folder and ledger, given all that decides what is written; None for an output
        of its own.
    """

    create: Callable[[Path, int, Cut], object]
    begun: Callable[[Path, int], bool]
    copy: Callable[[Cut, Path, int], Callable[[Block], None]]
    finish: Callable[[Path], object]
    block: Zyx
    opened: Callable[[dict[str, Any]], AbstractContextManager[tuple[Path, Ledger]]] | None = None


@dataclass
class _Notes:
    """Notes in the ledger of blocks that are durable."""

    ledger: Ledger
    local: bool
    waiting: list[str] = field(default_factory=list)
    flushed: float = field(default_factory=time.monotonic)

    def add(self, key: str) -> None:
        """Note a block, sooner or later."""
        self.waiting.append(key)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Note all that are written."""
        if self.local and hasattr(os, "sync"):
            os.sync()
        while self.waiting:
            self.ledger.record(self.waiting.pop())
        self.flushed = time.monotonic()


def write_levels(plan: ExportPlan, progress: Progress, form: Levels) -> None:
    """Write all levels; what stands there stands until they are complete.

    Raises
    ------
    BlockError
        If blocks failed; those that did not are kept for the next time.
    ConflictError
        If another export to the same place was begun, and is not to be discarded.
    StorageError
        If it cannot be written.
    """
    options = plan.options
    own = partial(resuming, options.output, overwrite=options.overwrite)
    with (form.opened or own)(describe(plan)) as (place, ledger):
        notes = _Notes(ledger, as_remote(place) is None)
        kept = [n for n in range(len(plan.levels)) if f"level {n}" in ledger.records]
        if not all(form.begun(place, number) for number in kept):
            ledger.restart()  # as files were lost, by whatever hand
            ledger.record(BEGUN)
        for number, level in enumerate(plan.levels):
            copied, key = plan.cut_of(level), f"level {number}"
            if key not in ledger.records:
                form.create(place, number, copied)
                notes.waiting.append(key)
                notes.flush()  # durable before it is noted
            blocks = list(Grid(copied.shape, form.block).blocks())
            left = [b for b in blocks if block_key(key, b.index) not in ledger.records]
            total = math.prod(copied.shape)
            done = total - sum(core_voxels(b, None) for b in left)
            job = Job(progress, total, "voxels", f"writing {key}", done, core_voxels)
            noted = partial(_note, notes, key)
            task = form.copy(copied, place, number)
            try:
                run_blocks(task, left, options.engine, on_result=noted, progress=job)
            finally:
                notes.flush()
        form.finish(place)
        notes.flush()


def _note(notes: _Notes, key: str, block: Block, _: None) -> None:
    notes.add(block_key(key, block.index))


def describe(plan: ExportPlan) -> dict[str, Any]:
    """Describe all that decides what is written.

    Raises
    ------
    ParameterError
        If there are no voxels.
    """
    options, image = plan.options, plan.image
    if image is None or plan.cut is None:
        raise ParameterError("a table has no voxels")
    noted = json.dumps(image.attributes, sort_keys=True, default=str)
    return {
        "version": __version__,
        "volume": str(image.path.resolve()),
        "state": hashlib.sha256(noted.encode()).hexdigest(),
        "stamp": find_stamp(plan.cut.array.path),
        "what": options.what,
        "form": plan.form,
        "objects": sorted(options.objects),
        "level": options.level,
        "roi": options.roi,
        "dtype": plan.cut.dtype.name,
    }
