"""Packages of models: a description and the files that it names, in a zip or a folder.

Packages come from others. Nothing is unpacked to disk, names are names of files in the
package and nothing else, and every size is checked before it is read.
"""

from __future__ import annotations

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from volseg.errors import ModelError, require
from volseg.fields import plain

DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml")
DESCRIPTION_BYTES = 1 << 20
"""A description is read into memory whole, so one that is larger than this is refused."""
DAMAGED = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    lzma.LZMAError,
    zlib.error,
)
"""Errors of reading a file of a damaged zip, or of one of an unusual kind."""
MOST_FILES = 1000
MOST_ENTRIES = 100_000
"""Of a description with its aliases written out, which can make a long story of a short file."""


@dataclass(frozen=True)
class Package:
    """A package that lies on disk.

    Attributes
    ----------
    path : zip file, or folder.
    description : name of the file that describes it.
    """

    path: Path
    description: str

    def read(self, name: str, most: int) -> bytes:
        """Read a file of the package.

        Parameters
        ----------
        most : bytes beyond which it is refused.

        Raises
        ------
        ModelError
            If it is missing, damaged or larger, or no name of a file in the package.
        """
        inside = _checked_name(name)
        try:
            with ExitStack() as opened:
                if self.path.is_dir():
                    file: IO[bytes] = opened.enter_context(self._file(inside).open("rb"))
                    size = self._file(inside).stat().st_size
                else:
                    archive = opened.enter_context(zipfile.ZipFile(self.path))
                    size = archive.getinfo(inside).file_size
                    file = opened.enter_context(archive.open(inside))
                if size > most:
                    raise ModelError(
                        f"{name} of {self.path} has {size} bytes, expected at most {most}: it is "
                        f"not what the package says"
                    )
                # declared sizes may lie: never more than one byte beyond what was allowed
                content = file.read(most + 1)
        except KeyError:
            raise ModelError(f"{self.path} names {name}, which is not in it") from None
        except DAMAGED as error:
            why = getattr(error, "strerror", None) or "the zip is damaged"
            raise ModelError(f"cannot read {name} of {self.path}: {why}") from error
        if len(content) > most:
            raise ModelError(f"{name} of {self.path} is larger than it says; expected {most} bytes")
        return content

    def describe(self) -> dict[str, Any]:
        """Read the description.

        Raises
        ------
        ModelError
            If it is no YAML mapping, or larger than `DESCRIPTION_BYTES`.
        """
        yaml = _yaml()
        text = self.read(self.description, DESCRIPTION_BYTES)
        try:
            # the safe loader: plain values only, no tag makes an object
            content = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise ModelError(f"{self.description} of {self.path} is no YAML") from error
        if not isinstance(content, dict):
            raise ModelError(f"{self.description} of {self.path} describes nothing")
        if not _is_short(content):
            raise ModelError(
                f"{self.description} of {self.path} has more than {MOST_ENTRIES} entries, written "
                f"out: this is no description of a model"
            )
        return content

    def _file(self, inside: str) -> Path:
        """Resolve a name in a folder; links must not lead out of it."""
        root, path = self.path.resolve(), (self.path / inside).resolve()
        if root not in path.parents:
            raise ModelError(f"{inside} of {self.path} is a link to {path}, outside the package")
        return path


def open_package(path: Path) -> Package:
    """Find a package's description: ``path`` is a zip, a folder, or the description itself.

    Raises
    ------
    ModelError
        If there is no package, or one of its names would lie outside of it.
    """
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return Package(path.parent, path.name)
    if path.is_dir():
        names = [name for name in DESCRIPTIONS if (path / name).is_file()]
    elif zipfile.is_zipfile(path):
        names = _names(path)
    else:
        raise ModelError(
            f"{f'{path} is no package' if path.exists() else f'there is nothing at {path}'}; "
            f"expected a zip, a folder or its {' or '.join(DESCRIPTIONS)} on this disk; nothing is "
            f"fetched"
        )
    for name in DESCRIPTIONS:
        if name in names:
            return Package(path, name)
    raise ModelError(f"{path} has neither {' nor '.join(DESCRIPTIONS)}: it is no package")


def _is_short(content: Any) -> bool:
    """Tell whether nested values have at most `MOST_ENTRIES` entries, repeated ones counted."""
    left, count = [content], 0
    while left:
        value = left.pop()
        entries = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(entries, list | tuple):
            count += len(entries)
            left.extend(entries)
        if count > MOST_ENTRIES:
            return False
    return True


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is a damaged zip") from error
    if len(names) > MOST_FILES:
        raise ModelError(f"{path} has {len(names)} files, at most {MOST_FILES} are expected")
    if len(set(names)) < len(names):
        raise ModelError(f"{path} has several files of one name: which of them is meant is unclear")
    for name in names:
        _checked_name(name.rstrip("/"))
    return names


def _checked_name(name: str) -> str:
    """Refuse names that are addresses or lead out of a package.

    Examples
    --------
    >>> _checked_name("./weights/a.pt")
    'weights/a.pt'
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or set(name) & {"\\", ":", "\0"}:
        raise ModelError(
            f"{name!r} is no name of a file inside a package; those that lead elsewhere are refused"
        )
    return str(PurePosixPath(name))


def read_weights(package: Package, described: Any, most: int) -> bytes:
    """Read the weights that a description names, and check their hash, if it has one."""
    named = described if isinstance(described, dict) else {}
    source, expected = named.get("source"), named.get("sha256")
    if not isinstance(source, str):
        raise ModelError(f"{package.description} names no file of weights, found {source!r}")
    content = package.read(source, most)
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise ModelError(
            f"{source} is not the file that {package.description} describes: sha256 {found[:12]}..."
            f", expected {str(expected)[:12]}...; fetch the package again"
        )
    return content


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the description of a folder's files beside them."""
    text = _yaml().safe_dump(plain(description), sort_keys=False, allow_unicode=True, width=100)
    (folder / DESCRIPTIONS[0]).write_text(text, encoding="utf-8")


def zip_folder(folder: Path, path: Path) -> None:
    """Zip the files of a folder, uncompressed: weights are noise to a compressor."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)


def _yaml() -> Any:
    require("yaml", "export", "packages need PyYAML")
    import yaml  # type: ignore[import-untyped]

    return yaml
