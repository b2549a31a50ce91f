"""Encoded parts of a file, kept beside it until all are there: so a killed export goes on.

Forms with an index that is written last cannot be gone on with; what costs time is kept instead,
and put into the file at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from volseg.errors import StorageError, own_words
from volseg.exchange.volumes.levels import FLUSH_SECONDS, describe
from volseg.exchange.volumes.plan import ExportPlan
from volseg.storage.files import discard, make_durable, make_folder
from volseg.storage.ledger import Ledger
from volseg.storage.targets import going_on, unfinished

DONE = "done"
LENGTH = 8
"""Bytes before each part, that say how long it is."""


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
    StorageError
        If they cannot be written.
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
    """Lend a ledger, and a place for what is kept beside it; both go after success.

    Raises
    ------
    ConflictError, StorageError
        See `keeping`.
    """
    output, overwrite = plan.options.output, plan.options.overwrite
    path = unfinished(output)
    try:
        make_folder(path.parent)
        with going_on(path, describe(plan), overwrite=overwrite) as ledger:
            yield ledger, path.with_suffix("")
            discard(path.with_suffix(""))
    except OSError as error:
        raise StorageError(f"cannot write {output}: {own_words(error)}") from error
