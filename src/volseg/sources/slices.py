"""Files of one stack, one slice each or several, in natural order."""

from __future__ import annotations

import bisect
import glob
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError, list_some
from volseg.sources.names import find_gaps, find_sequences, sort_names, tell_decimals
from volseg.sources.readers import PICTURES, find_reader, open_file
from volseg.sources.stack import WHOLE, Selection, Stack
from volseg.sources.voxel_size import StatedSize, find_contradiction
from volseg.storage.locations import check_text

SHOWN = 5
ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
"""Zeros before a number, which is the same without them."""


def list_images(found: Sequence[Path]) -> list[Path]:
    """List the files that a folder consists of, in natural order.

    TIFF, PNG and dm files if there are any, else those of JPEG, which may be overviews of others;
    or else what other readers know by its name.

    Raises
    ------
    SourceError
        If one is a link to a file that is not there, as where a data set was fetched in part.
    """
    ranks: dict[int, list[Path]] = {}
    for path in found:
        reader = find_reader(path.name)
        if reader is not None and (path.is_file() or _leads_nowhere(path)):
            rank = PICTURES.get(reader.kind, len(PICTURES))
            ranks.setdefault(rank, []).append(path)
    images = sort_names(ranks[min(ranks)]) if ranks else []
    if lost := [path for path in images if _leads_nowhere(path)]:
        more = f", and {len(lost) - 1} more are such links" if len(lost) > 1 else ""
        raise SourceError(
            f"{lost[0]} is a link to {lost[0].readlink()}, where nothing is{more}: fetch what is "
            f"missing, or remove the link"
        )
    return images


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def list_within(place: Path) -> list[Path]:
    """List what is in a folder, but for what is hidden, or what a glob finds."""
    if place.is_dir():
        return [p for p in place.iterdir() if not p.name.startswith(".")]
    return [Path(p) for p in glob.glob(str(place))]


def list_sequence(source: str | Path) -> list[Path]:
    """List the files of a folder, a glob or a single file, in natural order."""
    path = Path(source)
    if path.is_file():
        return [path]
    found = list_within(path)
    images = list_images(found)
    if not images:
        what = f"{len(found)} files, none of them of a kind that is read" if found else "nothing"
        raise SourceError(
            f"{source}: found {what}; expected a stack, a folder or glob of slices (TIFF, PNG, "
            f"JPEG), or a Zarr image; see docs/formats.md"
        )
    kinds = {reader.kind: p for p in images if (reader := find_reader(p.name))}
    if len(kinds) > 1:
        raise SourceError(
            f"{source} mixes {' and '.join(sorted(kinds, reverse=True))} files: choose with a "
            f"glob, such as '{images[0].parent}/*{images[0].suffix}'"
        )
    return [check_text(image) for image in images]


@dataclass
class _Part:
    """A file of a sequence.

    Attributes
    ----------
    shape : of its pages, (z, y, x).
    form : what all files have in common.
    stack : of a file of several pages, which stays open.
    """

    file: Path
    shape: tuple[int, int, int]
    form: tuple[Any, ...]
    stack: Stack | None


def open_sequence(
    files: Sequence[Path], selection: Selection = WHOLE, *, chosen: bool = False
) -> Stack:
    """Open files, of one page each or of several, as one stack.

    Parameters
    ----------
    chosen : whether the user chose the files, so that names of several sequences are no error
    """
    first = open_file(files[0], selection)
    if len(first.files) > 1 and set(first.files) >= set(files):
        return first  # which knows its other files
    parts, stated = [_as_part(files[0], first)], first.stated
    try:
        warnings = [] if selection.images else _check_names(files, chosen=chosen)
        for file in files[1:]:
            stack = open_file(file, selection)
            parts.append(_as_part(file, stack))
            _check_equal(parts[0], parts[-1], selection)
            if stated is first.stated and find_contradiction((*stated, *stack.stated)) is not None:
                # one slice without a size is enough to ask for it
                stated = (*_found_in(files[0], stated), *_found_in(file, stack.stated))
        if any(part.stack for part in parts):
            chosen = chosen or bool(selection.images)
            warnings.append(_check_joined(files, parts, chosen=chosen))
    except BaseException:
        _close(parts)
        raise
    return _join(first, parts, selection, stated, (*first.warnings, *warnings))


def _as_part(file: Path, stack: Stack) -> _Part:
    several = stack.shape[0] > 1
    if not several:
        stack.close()
    return _Part(file, stack.shape, _form_of(stack), stack if several else None)


def _form_of(stack: Stack) -> tuple[Any, ...]:
    """Tell what all files of a sequence have in common."""
    return stack.dtype, stack.metadata.get("photometric") == "MINISWHITE"


def _check_equal(first: _Part, other: _Part, selection: Selection) -> None:
    same = other.shape[1:] == first.shape[1:] or selection.fit is not None
    if not same or other.form != first.form:
        hint = "" if same else ", or give --crop or --pad if their upper left corners are the same"
        raise SourceError(
            f"{other.file} is {_form(other)}, {first.file.name} is {_form(first)}: all slices must "
            f"be equal; remove what does not belong to the stack, choose with a glob{hint}"
        )


def _form(part: _Part) -> str:
    (_, height, width), (dtype, inverted) = part.shape, part.form
    return f"{width} x {height} {dtype}{', 0 as white' if inverted else ''}"


def _check_joined(files: Sequence[Path], parts: Sequence[_Part], *, chosen: bool) -> str:
    """Say that files of several pages are joined, which the user or their names must ask for."""
    if not chosen and not find_sequences([f.name for f in files]):
        raise SourceError(
            f"{files[0].parent} holds files of several pages, whose names do not say that they "
            f"belong together: name one, or join them with a quoted glob"
        )
    return (
        f"{len(files)} files of {sum(p.shape[0] for p in parts)} pages are joined along z, from "
        f"{files[0].name} to {files[-1].name}"
    )


def _join(
    first: Stack,
    parts: Sequence[_Part],
    selection: Selection,
    stated: tuple[StatedSize, ...],
    warnings: tuple[str, ...],
) -> Stack:
    begins = list(itertools.accumulate((p.shape[0] for p in parts), initial=0))
    rows, columns = zip(*(p.shape[1:] for p in parts), strict=True)
    choose = max if selection.fit == "pad" else min
    height, width = choose(rows), choose(columns)

    def read_page(z: int, out: NDArray[Any]) -> None:
        k = bisect.bisect_right(begins, z) - 1
        part = parts[k]
        page = out if part.shape[1:] == out.shape else np.zeros(part.shape[1:], first.dtype)
        stack = part.stack or open_file(part.file, selection)
        try:
            if (stack.shape, _form_of(stack)) != (part.shape, part.form):
                raise SourceError(
                    f"{part.file} was replaced by another file meanwhile; give the command again"
                )
            stack.read_page(z - begins[k], page)
        finally:
            if part.stack is None:
                stack.close()
        if page is not out:
            out[...] = 0
            out[: page.shape[0], : page.shape[1]] = page[: out.shape[0], : out.shape[1]]

    sizes: tuple[tuple[int, int], ...] = ()
    if len(set(rows)) > 1 or len(set(columns)) > 1:
        if selection.fit == "pad":
            sizes = tuple(size for p in parts for size in [p.shape[1:]] * p.shape[0])
        how = "padded with 0 to the largest" if selection.fit == "pad" else "cut to the smallest"
        measured = f"{min(columns)} to {max(columns)} x {min(rows)} to {max(rows)} pixels"
        warnings += (f"slices measure {measured}, and are {how} at the right and below",)
    return replace(
        first,
        files=tuple(p.file for p in parts),
        shape=(begins[-1], height, width),
        read_page=read_page,
        close=lambda: _close(parts),
        stated=stated,
        metadata={"format": f"{parts[0].file.suffix[1:].upper()} sequence", "files": len(parts)},
        warnings=warnings,
        array=None,
        sizes=sizes,
    )


def _close(parts: Sequence[_Part]) -> None:
    for part in parts:
        if part.stack is not None:
            part.stack.close()


def _check_names(files: Sequence[Path], *, chosen: bool) -> list[str]:
    """Check that names are those of one sequence; return what the user should know."""
    folder = files[0].parent
    sequences = find_sequences([f.name for f in files])
    if len(sequences) > 1:
        found = f"{folder} holds slices of several sequences: {list_some(sequences, SHOWN)}"
        if not chosen:
            raise SourceError(f"{found}; choose with a glob, such as '{folder / sequences[0]}'")
        return [f"{found}; all are taken, one after the other in the order of their names"]
    told = []
    if taken := tell_decimals([f.stem for f in files]):
        told.append(
            f"numbers with dots in the names of {folder} are taken as {taken}; if that is wrong, "
            f"rename the files so that the same number of digits follows each dot"
        )
    if gaps := find_gaps([f.stem for f in files]):
        missing = f"the numbering of {folder} has gaps: {list_some(gaps, SHOWN)} missing"
        told.append(f"{missing}; the slices around them are taken as neighbours")
    bare = [ZEROS.sub("", f.stem) for f in files]
    pairs = zip(itertools.pairwise(files), itertools.pairwise(bare), strict=True)
    if twice := [f"{a.name} and {b.name}" for (a, b), (i, k) in pairs if i == k]:
        same = f"slices of {folder} have the same number: {list_some(twice, SHOWN)}"
        told.append(f"{same}; both are taken, so remove one if it is a copy")
    return told


def _found_in(file: Path, stated: Sequence[StatedSize]) -> list[StatedSize]:
    """Name the file that states a size."""
    return [StatedSize(s.axes, f"{s.origin} ({file.name})") for s in stated]
