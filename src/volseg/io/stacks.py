"""Source stacks: multi-page TIFF of every kind, and folders or globs of single slices."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.io.source_metadata import StatedSize, from_imagej, from_ome_xml, from_resolution
from volseg.types import Zyx

TYPES = ("uint8", "uint16", "int16", "float32")
TIFF_SUFFIXES = {".tif", ".tiff", ".btf", ".tf8"}
SLICE_SUFFIXES = TIFF_SUFFIXES | {".png"}
SHOWN = 5

Plane = NDArray[Any]


@dataclass(frozen=True)
class Stack:
    """A stack whose planes are read one at a time, from any thread.

    Attributes
    ----------
    files : where it comes from.
    shape, dtype : of the whole stack.
    stated : the voxel sizes that the files state.
    notes : what the user should know.
    read_plane : plane number -> array, shape (y, x).
    """

    files: tuple[Path, ...]
    shape: Zyx
    dtype: np.dtype[Any]
    stated: tuple[StatedSize, ...]
    notes: tuple[str, ...]
    read_plane: Callable[[int], Plane]


@contextmanager
def open_stack(source: str | Path, channel: int | None = None) -> Iterator[Stack]:
    """Open a stack for reading.

    Parameters
    ----------
    source : file, folder or glob pattern
    channel : which channel of a colour or multi-channel source

    Raises
    ------
    SourceError
        If it cannot be read as one stack of grey images; the message names file and page.
    """
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() == ".png":
            yield _sequence([path], channel)
        else:
            with _tiff(path, channel) as stack:
                yield stack
    elif path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SLICE_SUFFIXES)
        if (path / "zarr.json").exists() or (path / ".zattrs").exists():
            raise SourceError(f"{path} is a Zarr already: use it as it is")
        if not found:
            raise SourceError(f"{path} holds no TIFF or PNG files")
        yield _sequence(found, channel)
    else:
        matches = [Path(p) for p in glob.glob(str(source)) if Path(p).is_file()]
        if not matches:
            raise SourceError(f"there is no file, folder or match for {source}")
        yield _sequence(matches, channel)


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Order names as people do.

    Examples
    --------
    >>> sorted(["s10", "s2", "s1"], key=natural_key)
    ['s1', 's2', 's10']
    """
    parts = re.split(r"(\d+)", name)
    return [(1, int(p)) if p.isdigit() else (0, p) for p in parts]


def numbering_gaps(names: list[str]) -> list[int]:
    """List the numbers that are missing, in names that differ by their last number only.

    Examples
    --------
    >>> numbering_gaps(["s08.tif", "s09.tif", "s12.tif"])
    [10, 11]
    """
    matches = [re.match(r"(.*?)(\d+)(\D*)$", n) for n in names]
    if not all(matches) or len({(m[1], m[3]) for m in matches if m}) != 1:
        return []
    numbers = sorted(int(m[2]) for m in matches if m)
    if numbers[-1] - numbers[0] > 100 * len(numbers):
        return []
    return sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))


@contextmanager
def _quiet_tifffile(complaints: list[str]) -> Iterator[None]:
    """Collect what tifffile logs about damage, instead of printing it."""
    logger = logging.getLogger("tifffile")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def _tiff(path: Path, channel: int | None) -> Iterator[Stack]:
    complaints: list[str] = []
    with _quiet_tifffile(complaints):
        try:
            file = tifffile.TiffFile(path)
        except PermissionError as error:
            raise SourceError(f"no permission to read {path}") from error
        except Exception as error:
            raise SourceError(f"{path} is not a TIFF file that can be read: {error}") from error
        with file:
            try:
                stack = _tiff_stack(file, path, channel, complaints)
            except SourceError:
                raise
            except Exception as error:
                raise SourceError(f"{path} is damaged: {error}") from error
            yield stack


def _tiff_stack(
    file: tifffile.TiffFile, path: Path, channel: int | None, complaints: list[str]
) -> Stack:
    if not file.series:
        raise SourceError(f"{path} has no pages")
    file.filehandle.set_lock(True)
    series = file.series[0].levels[0] if file.series[0].levels else file.series[0]
    if len(file.series) > 1:
        _refuse_mixed(file, path)
    damage = [c for c in complaints if "offset" in c or "corrupt" in c or "truncat" in c]
    if damage:
        raise SourceError(
            f"{path} is truncated or damaged after page {len(file.pages)}: {damage[0]}; copy it "
            f"again from where it came"
        )
    picked = _planes(series, path, channel)
    read = _reader(file, series, path, picked)
    page = series.keyframe
    return Stack(
        (path,),
        (len(picked), page.imagelength, page.imagewidth),
        _supported(series.dtype, path),
        tuple(_stated_sizes(file, page)),
        (),
        read,
    )


def _refuse_mixed(file: tifffile.TiffFile, path: Path) -> None:
    first = file.pages[0]
    for n, page in enumerate(file.pages):
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise SourceError(
                f"{path} mixes images: page 1 is {first.shape} {first.dtype}, page {n + 1} is "
                f"{page.shape} {page.dtype}; split the file"
            )
    raise SourceError(f"{path} holds {len(file.series)} separate images; split the file")


def _planes(series: Any, path: Path, channel: int | None) -> list[tuple[int, int | None]]:
    """List (page, sample) of each plane, in z order; sample is None for grey pages."""
    sizes = dict(zip(series.axes, series.shape, strict=True))
    samples, channels = sizes.get("S", 1), sizes.get("C", 1)
    count = max(samples, channels)
    if samples > 1 and channels > 1:
        raise SourceError(f"{path} has both channels and colours (axes {series.axes}); split it")
    if count > 1 and channel is None:
        kind = "colours" if samples > 1 else "channels"
        raise SourceError(f"{path} has {count} {kind}; choose one with --channel 0..{count - 1}")
    if channel is not None and not 0 <= channel < count:
        raise SourceError(f"{path} has channels 0..{count - 1}, not {channel}")
    deep = [a for a in series.axes if a not in "YXSC" and sizes[a] > 1]
    if len(deep) > 1:
        raise SourceError(
            f"{path} has more than one axis beside (y, x): {series.axes} {series.shape}; export "
            f"one time point or position"
        )
    page = series.keyframe
    if samples > 1:
        # Planar colours hold the samples of a page before its rows, interleaved ones after.
        return [(n, channel) for n in range(len(series.pages))]
    total = int(np.prod([sizes[a] for a in series.axes if a not in "YXS"], dtype=int))
    pages = np.arange(total).reshape([sizes[a] for a in series.axes if a not in "YXS"] or [1])
    if channels > 1:
        pages = np.take(pages, channel or 0, [a for a in series.axes if a not in "YXS"].index("C"))
    if page.ndim > 2 and page.imagedepth > 1:
        raise SourceError(f"{path} keeps several planes in one page, which is not supported")
    return [(int(n), None) for n in pages.ravel()]


def _reader(
    file: tifffile.TiffFile, series: Any, path: Path, picked: list[tuple[int, int | None]]
) -> Callable[[int], Plane]:
    """Make the function that reads a plane, from mapped memory where pages are contiguous."""
    shape = (series.keyframe.imagelength, series.keyframe.imagewidth)
    total = len(picked)
    if series.dataoffset is not None and picked[0][1] is None:
        needed = series.dataoffset + series.nbytes
        if needed > path.stat().st_size:
            plane = series.nbytes // max(total, 1)
            whole = max((path.stat().st_size - series.dataoffset) // plane, 0)
            raise SourceError(
                f"{path} is truncated: {path.stat().st_size} bytes, expected {needed}; page "
                f"{whole + 1} of {total} is incomplete; copy it again from where it came"
            )
        dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        every = int(series.size // (shape[0] * shape[1]))
        mapped = np.memmap(path, dtype, "r", series.dataoffset, (every, *shape))
        return lambda n: mapped[picked[n][0]]
    pages = list(series.pages)

    def read(n: int) -> Plane:
        page, sample = picked[n]
        try:
            if pages[page] is None:
                raise ValueError("the page is missing")
            plane = pages[page].asarray()
        except Exception as error:
            raise SourceError(
                f"{path}: page {page + 1} of {total} is damaged or truncated: {error}; export it "
                f"again, or leave it out"
            ) from error
        plane = plane.reshape([d for d in plane.shape if d > 1] or [1])
        if sample is not None:
            plane = plane[sample] if plane.shape[-2:] == shape else plane[..., sample]
        return plane.reshape(shape)

    return read


def _supported(dtype: Any, path: Path) -> np.dtype[Any]:
    found = np.dtype(dtype).newbyteorder("=")
    if found.name not in TYPES:
        raise SourceError(
            f"{path} holds {found.name}; volseg reads {', '.join(TYPES)}: convert it first"
        )
    return found


def _stated_sizes(file: tifffile.TiffFile, page: Any) -> Iterator[StatedSize]:
    yx = _resolution(page)
    found: list[StatedSize | None] = []
    if file.is_ome and file.ome_metadata:
        found.append(from_ome_xml(file.ome_metadata))
    if file.is_imagej:
        found.append(from_imagej(file.imagej_metadata or {}, yx))
    elif yx is not None:
        unit = page.tags.get("ResolutionUnit")
        found.append(from_resolution(int(unit.value) if unit else 2, yx))
    yield from (s for s in found if s is not None)


def _resolution(page: Any) -> tuple[float, float] | None:
    values = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        if tag is None or not isinstance(tag.value, tuple) or tag.value[1] == 0:
            return None
        values.append(tag.value[0] / tag.value[1])
    return values[0], values[1]


def read_slice(path: Path, channel: int | None) -> Plane:
    """Read a file that holds one plane.

    Raises
    ------
    SourceError
        If it cannot be read, or holds more than one grey plane.
    """
    if path.suffix.lower() == ".png":
        try:
            plane = imagecodecs.png_decode(path.read_bytes())
        except Exception as error:
            raise SourceError(f"{path} is not a PNG that can be read: {error}") from error
        if plane.ndim == 2:
            return plane
        if channel is None:
            raise SourceError(
                f"{path} has {plane.shape[2]} colours; choose one with --channel "
                f"0..{plane.shape[2] - 1}"
            )
        return plane[..., min(channel, plane.shape[2] - 1)]
    with _tiff(path, channel) as stack:
        if stack.shape[0] != 1:
            raise SourceError(f"{path} holds {stack.shape[0]} pages, expected one slice a file")
        return np.array(stack.read_plane(0))


def _sequence(files: list[Path], channel: int | None) -> Stack:
    ordered = tuple(sorted(files, key=lambda p: natural_key(p.name)))
    wrong = [p for p in ordered if p.suffix.lower() not in SLICE_SUFFIXES]
    if wrong:
        raise SourceError(f"{wrong[0]} is neither TIFF nor PNG")
    first = read_slice(ordered[0], channel)
    dtype = _supported(first.dtype, ordered[0])
    stated: tuple[StatedSize, ...] = ()
    if ordered[0].suffix.lower() in TIFF_SUFFIXES:
        with _tiff(ordered[0], channel) as stack:
            stated = stack.stated
    gaps = numbering_gaps([p.stem for p in ordered])
    shown = ", ".join(map(str, gaps[:SHOWN])) + (", ..." if len(gaps) > SHOWN else "")
    notes = (
        (f"{len(gaps)} slices are missing from the numbering: {shown}; what is there is joined",)
        if gaps
        else ()
    )

    def read(n: int) -> Plane:
        plane = read_slice(ordered[n], channel)
        if plane.shape != first.shape or plane.dtype.newbyteorder("=") != dtype:
            raise SourceError(
                f"{ordered[n]} is {plane.shape} {plane.dtype}, but {ordered[0]} is {first.shape} "
                f"{dtype}; all slices must agree"
            )
        return plane

    y, x = first.shape
    return Stack(ordered, (len(ordered), y, x), dtype, stated, notes, read)
