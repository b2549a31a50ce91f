"""Exports that go on where they were killed: levels of a folder by blocks, a file by its parts.

Forms with an index that is written last cannot be gone on with; what costs time is kept beside the
file instead, until all of it is there, and put into the file at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from volseg import __version__
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, StorageError, own_words
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.geometry.grid import Block, Grid
from volseg.storage.files import discard, make_durable, make_folder
from volseg.storage.ledger import Ledger, block_key
from volseg.storage.remote import as_remote
from volseg.storage.stores import find_stamp
from volseg.storage.targets import BEGUN, going_on, resuming, unfinished
from volseg.types import Zyx

FLUSH_SECONDS = 10.0
"""After which what is written is made durable and noted."""
DONE = "done"
LENGTH = 8
"""Bytes before each part, that say how long it is."""


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
    """
    options = plan.options
    own = partial(resuming, options.output, overwrite=options.overwrite)
    with (form.opened or own)(_describe(plan)) as (place, ledger):
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


def _describe(plan: ExportPlan) -> dict[str, Any]:
    """Describe all that decides what is written."""
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


@dataclass
class Pieces:
    """Parts that are being written, some at a time.

    Attributes
    ----------
    file : of parts, at its end.
    ledger : notes how many are durable, and how many bytes they take.
    count : how often parts were added.
    size : bytes that those take; what comes after them was being written when it was interrupted.
    flushed : when they were last made durable.
    """

    file: BinaryIO
    ledger: Ledger
    count: int
    size: int
    flushed: float = field(default_factory=time.monotonic)

    def add(self, parts: Sequence[bytes]) -> None:
        """Keep some parts, and make all durable every now and then."""
        for part in parts:
            self.file.write(len(part).to_bytes(LENGTH))
            self.file.write(part)
        self.count, self.size = self.count + 1, self.file.tell()
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make all durable, and note it."""
        make_durable(self.file)
        self.ledger.record(DONE, [self.count, self.size])
        self.flushed = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        """Read all parts in their order.

        Raises
        ------
        StorageError
            If they are damaged; then none counts as kept.
        """
        self.file.seek(0)
        while (left := self.size - self.file.tell()) > 0:
            length = int.from_bytes(self.file.read(LENGTH))
            part = self.file.read(min(length, left))
            if len(part) < length:
                self.count = self.size = 0
                raise StorageError(f"{self.file.name} is damaged; the same command begins anew")
            yield part


@contextmanager
def keeping(plan: ExportPlan) -> Iterator[Pieces]:
    """Lend the parts that an export has kept; they are removed once it is complete.

    Raises
    ------
    ConflictError
        If another export to the same place was begun, and is not to be discarded.
    """
    with beginning(plan) as (ledger, kept):
        count, size = ledger.records.get(DONE, (0, 0))
        if not kept.is_file() or kept.stat().st_size < size:
            count, size = 0, 0
        with kept.open("rb+" if size else "wb+") as file:
            file.truncate(size)  # what was written after it was last made durable may be torn
            file.seek(size)
            pieces = Pieces(file, ledger, count, size)
            try:
                yield pieces
            except BaseException:
                with suppress(OSError, StorageError):  # the reason why it failed says more
                    pieces.flush()
                raise


@contextmanager
def beginning(plan: ExportPlan) -> Iterator[tuple[Ledger, Path]]:
    """Lend a ledger, and a place for what is kept beside it; both go after success."""
    output, overwrite = plan.options.output, plan.options.overwrite
    path = unfinished(output)
    try:
        make_folder(path.parent)
        with going_on(path, _describe(plan), overwrite=overwrite) as ledger:
            yield ledger, path.with_suffix("")
            discard(path.with_suffix(""))
    except OSError as error:
        raise StorageError(f"cannot write {output}: {own_words(error)}") from error
