"""Print results and messages of commands; turn errors into an exit status."""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.streams import answer, say
from volseg.engine.memory import keep_freed_memory
from volseg.errors import BlockError, InputError, Notice, StorageError, WorkError
from volseg.fields import plain
from volseg.voxels.compilation import telling

if TYPE_CHECKING:
    from volseg.engine.progress import Progress

WORK_FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
COMPILING = "compiling loops over voxels, once after installation: this takes up to half a minute"
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Session:
    """The output settings of one command.

    Attributes
    ----------
    quiet : errors only.
    verbose : tracebacks and log messages too.
    as_json : standard output carries one JSON object and nothing else.
    """

    quiet: bool
    verbose: bool
    as_json: bool

    def progress(self) -> Progress:
        """Choose how progress is shown: a bar on a terminal, else seldom lines, or nothing."""
        if self.quiet:
            from volseg.engine.progress import NoProgress

            return NoProgress()
        from volseg.cli.progress import BarProgress, LineProgress

        return BarProgress() if sys.stderr.isatty() else LineProgress()

    def note(self, text: str) -> None:
        """Tell the user something on standard error."""
        if not self.quiet:
            say(text)

    def notes(self, texts: Iterable[str]) -> None:
        """Tell the user what should be known of a result."""
        for text in texts:
            self.note(f"note: {text}")

    def tell_compiling(self) -> None:
        """Say why work that begins for the first time takes long."""
        # a bar that is drawn ends in no new line
        begin = "\n" if sys.stderr.isatty() else ""
        self.note(f"{begin}note: {COMPILING}")

    def result(self, report: Any, text: str) -> None:
        """Print what a command found: ``text``, or ``report`` as JSON."""
        answer(json.dumps(plain(report), indent=1) if self.as_json else text)

    def fail(self, error: BaseException, message: str, status: int) -> None:
        """End the command with a message on standard error, and in JSON if that was asked for."""
        if self.verbose:
            say("".join(traceback.format_exception(error)), ended=False)
        say(f"error: {message}")
        if self.as_json:
            report: dict[str, Any] = {"error": message, "kind": type(error).__name__}
            if isinstance(error, BlockError):
                report["missing"] = [{"index": b.index, "roi": list(b.core)} for b in error.missing]
            with suppress(StorageError):  # the message says more
                answer(json.dumps(plain(report)))
        raise SystemExit(status)


@contextmanager
def boundary(session: Session) -> Iterator[None]:
    """Turn every exception into a message and an exit status; no traceback without ``-v``."""
    try:
        yield
    except InputError as error:
        session.fail(error, str(error), WRONG_INPUT)
    except WorkError as error:
        session.fail(error, str(error), WORK_FAILED)
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt as error:
        message = "interrupted; run the same command again to resume"
        session.fail(error, message, INTERRUPTED)
    except MemoryError as error:
        message = "the memory is full; give fewer --workers, or --overwrite and a smaller --block"
        session.fail(error, message, WORK_FAILED)
    except Exception as error:  # noqa: BLE001 - this is where an exception stops
        remedy = "" if session.verbose else "; run it again with -v to see where"
        message = f"unexpected {type(error).__name__}: {error}{remedy}"
        session.fail(error, message, WORK_FAILED)


@contextmanager
def spoken_warnings(session: Session) -> Iterator[None]:
    """Show volseg's own warnings as plain messages; those of libraries only with ``-v``."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
    ) -> None:
        ours = PACKAGE in Path(filename).parents
        if ours or session.verbose:
            kind = "note" if issubclass(category, Notice) else "warning"
            session.note(f"{kind if ours else category.__name__}: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        logging.getLogger("volseg").setLevel(logging.INFO if session.verbose else logging.WARNING)
        yield


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``-q``, ``-v`` and ``--json``, and pass them on as a `Session`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
    @click.option("-q", "--quiet", is_flag=True, help="Print errors and the result only.")
    @click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and warnings.")
    @functools.wraps(function)
    def command(*, quiet: bool, verbose: bool, as_json: bool, **values: Any) -> None:
        keep_freed_memory()
        session = Session(quiet, verbose, as_json)
        with boundary(session), spoken_warnings(session), telling(session.tell_compiling):
            function(session, **values)

    return command
