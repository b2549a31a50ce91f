"""Copies as Zarr v2 in a volume's own folder: what may have one, and how much room it takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from volseg.errors import ConflictError, ParameterError, StorageError, VolumeError, command
from volseg.storage.copies import (
    check_foreign,
    has_chunks,
    is_copied,
    is_unfinished,
    remove_copy,
    size_of_copy,
)
from volseg.storage.remote import as_remote
from volseg.storage.stores import find_zip, read_array_metadata
from volseg.storage.volumes import Image


def check_place(volume: Path, image: Image) -> None:
    """Refuse an image that cannot have a copy, or needs none.

    Raises
    ------
    InputError
        If it is Zarr v2 itself, not of three axes, a plain array, or where nothing can be written.
    """
    other = "give --output COPY.zarr"
    for level in image.levels:
        metadata = read_array_metadata(level.path) or {}
        if metadata.get("zarr_format") != 3:
            raise ParameterError(
                f"{image.path} is readable already for programs that know Zarr v2 alone, as its "
                f"own files are of that kind"
            )
        if metadata.get("chunk_key_encoding", {}).get("name", "default") != "default":
            raise ParameterError(
                f"{level.path} keeps its chunks under the names that those of Zarr v2 have, so a "
                f"copy has no place beside them; {other}"
            )
    if image.levels[0].path == image.path or image.levels[0].leading:
        form = "a plain array" if image.levels[0].path == image.path else "of more than three axes"
        raise ParameterError(f"{image.path} is {form}, which has no copy beside it; {other}")
    if find_zip(image.path) is not None:
        raise ParameterError(f"{volume} is in a zip file, which is only read; {other}")
    if (remote := as_remote(image.path)) is not None:
        remote.mkdir()


def check_copy(volume: Path, image: Image, result: tuple[str, str], *, overwrite: bool) -> None:
    """Refuse to write a copy that is there already.

    Parameters
    ----------
    volume, image : see `volseg.storage.copies.copying`
    result : its kind and name, for messages
    overwrite : whether it may be made anew
    """
    check_place(volume, image)
    check_foreign(image)
    if is_unfinished(image.path):
        return
    remove = command("export", volume, result[0], "--in-place", "--remove", name=result[1])
    if not is_copied(image.path):
        if has_chunks(image):
            raise ConflictError(
                f"{image.path} holds chunks of Zarr v2 that nothing describes; `{remove}` removes "
                f"them"
            )
    elif not overwrite:
        raise ConflictError(
            f"{image.path} has a copy as Zarr v2 already; give --overwrite to make it anew, or "
            f"remove it with `{remove}`"
        )


def tell_room(images: Sequence[Image]) -> list[str]:
    """Say how much room copies of images of one volume take, before anything is written."""
    lacking, said = 0, []
    for image in images:
        sizes, size = size_of_copy(image), "about as much again"
        if sizes is not None:
            needed, written = sizes
            lacking += needed - written
            size = f"about {_bytes(needed)}, as much again"
            free = shutil.disk_usage(image.path).free
            if lacking > free:
                raise StorageError(
                    f"what is to be copied needs about {_bytes(lacking)}, as much again as it "
                    f"takes now, and {_bytes(free)} are free; make room, or give --output to "
                    f"another disk"
                )
        said.append(f"the copy takes {size} as {image.path} takes now")
    return said


def _bytes(count: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> _bytes(2_500_000_000), _bytes(12_345)
    ('2.5 GB', '0.0123 MB')
    """
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def remove(volume: Path, image: Image, result: tuple[str, str]) -> None:
    """Remove a copy, or what is left of one."""
    check_place(volume, image)
    check_foreign(image)
    if not (is_copied(image.path) or is_unfinished(image.path) or has_chunks(image)):
        make = command("export", volume, result[0], "--in-place", name=result[1])
        raise VolumeError(f"{image.path} has no copy as Zarr v2; `{make}` makes one")
    remove_copy(volume, image)


def tell_unlisted(volume: Path, what: str) -> tuple[str, ...]:
    """Tell that programs which begin at the volume do not find labels of which raw has no copy."""
    if what != "labels" or is_copied(volume) or not (volume / "zarr.json").is_file():
        return ()
    make = command("export", volume, "raw", "--in-place")
    told = f"{volume} itself has no copy, so programs that know Zarr v2 alone find these labels by"
    return (f"{told} their own path only; `{make}` makes one",)
