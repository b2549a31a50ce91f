"""Places on object storage, which answer the part of `pathlib.Path` that volumes need."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from volseg.errors import StorageError, VolumeError
from volseg.storage.connections import connect, explain, is_refused

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
Answer = TypeVar("Answer")


def as_remote(path: Path) -> RemotePath | None:
    """Tell a place on object storage from a folder."""
    found: object = path
    return found if isinstance(found, RemotePath) else None


@dataclass(frozen=True, order=True)
class RemotePath:
    """A place on object storage; holds no connection, so it travels to any worker.

    Attributes
    ----------
    scheme : one of `volseg.storage.connections.SCHEMES`.
    root : bucket, or host and port.
    key : names joined by ``/``; empty for the root itself.
    """

    scheme: str
    root: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.root}/{self.key}".rstrip("/")

    def __truediv__(self, other: str) -> RemotePath:
        # as with pathlib, what begins with a slash begins at the root
        return RemotePath(self.scheme, self.root, posixpath.join(self.key, str(other)).strip("/"))

    def joinpath(self, *others: str) -> RemotePath:
        """Descend several names."""
        found = self
        for other in others:
            found = found / other
        return found

    @property
    def name(self) -> str:
        """The last name."""
        return posixpath.basename(self.key)

    @property
    def suffix(self) -> str:
        """The last name's ending, with its dot."""
        return posixpath.splitext(self.name)[1]

    @property
    def stem(self) -> str:
        """The last name without its ending."""
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> RemotePath:
        """The place that this one lies in."""
        return RemotePath(self.scheme, self.root, posixpath.dirname(self.key))

    @property
    def read_only(self) -> bool:
        """Tell whether the scheme is read-only."""
        return self.scheme.startswith("http")

    def with_name(self, name: str) -> RemotePath:
        """Name a place beside this one."""
        return self.parent / name

    def resolve(self) -> RemotePath:
        """Follow ``..``, which no object storage does."""
        key = posixpath.normpath(f"/{self.key}").strip("/")
        return RemotePath(self.scheme, self.root, key)

    def is_relative_to(self, other: RemotePath) -> bool:
        """Tell whether this lies within another place."""
        same = (self.scheme, self.root) == (other.scheme, other.root)
        return same and (not other.key or f"{self.key}/".startswith(f"{other.key}/"))

    def is_file(self) -> bool:
        """Tell whether there is an object of this key."""
        # a web server answers for folders too, with a page or with another place
        folder = self.read_only and self.name not in METADATA and self.is_zarr()
        return bool(self.key) and not folder and self._has()

    def is_dir(self) -> bool:
        """Tell whether objects lie below; over http only volumes and what is in them are known."""
        return self.is_zarr() if self.read_only else self._has_any()

    def is_zarr(self) -> bool:
        """Tell whether this is a Zarr group or array: by one request for what volseg writes."""
        return any((self / name)._has() for name in METADATA)

    def exists(self) -> bool:
        """Tell whether there is an object, or something below.

        Raises
        ------
        VolumeError
            If there is no such bucket, or no permission.
        StorageError
            If the server does not answer.
        """
        if self.read_only:
            return self.is_zarr() or self.is_file()
        return self._has_any() or self.is_file()

    def read_bytes(self) -> bytes:
        """Read an object.

        Raises
        ------
        FileNotFoundError
            If there is none.
        VolumeError, StorageError
            As with `exists`.
        """
        return self._call("read", lambda o, s: bytes(o.get(s, self.key).bytes()))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read an object as text; errors as `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def read_end(self, length: int) -> tuple[bytes, int]:
        """Read an object's last bytes, and find its size; errors as `read_bytes`."""

        def read(obstore: Any, store: Any) -> tuple[bytes, int]:
            found = obstore.get(store, self.key, options={"range": {"suffix": length}})
            return bytes(found.bytes()), found.meta["size"]

        return self._call("read", read)

    def read_parts(self, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """Read parts of an object, neighbours in one request; errors as `read_bytes`."""

        def read(obstore: Any, store: Any) -> list[bytes]:
            found = obstore.get_ranges(store, self.key, starts=starts, lengths=lengths)
            return [bytes(part) for part in found]

        return self._call("read", read)

    def write_bytes(self, content: bytes) -> None:
        """Write an object in one request, so that it is replaced at once or not at all.

        Raises
        ------
        VolumeError
            If the place can only be read, or there is no bucket or permission.
        StorageError
            If the server does not answer.
        """
        self.mkdir()
        self._call("write", lambda o, s: o.put(s, self.key, content, use_multipart=False))

    def mkdir(self, **_: Any) -> None:
        """Do nothing, as object storage has no folders.

        Raises
        ------
        VolumeError
            If the place can only be read.
        """
        if self.read_only:
            raise VolumeError(
                f"{self} can only be read, as all over http; copy the volume to a folder or to "
                f"s3:// or gs://, and work on that"
            )

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object; there need not be one."""
        del missing_ok
        self._remove([self.key])

    def remove_tree(self) -> None:
        """Remove all objects below; what says that there is a volume first.

        Half of one, left by a kill, must not be taken for a whole one of which much is 0.
        """
        self.mkdir()
        keys = [key for page in self._keys() for key in page]
        marks = [key for key in keys if key in {(self / name).key for name in METADATA}]
        self._remove(marks)
        self._remove([key for key in keys if key not in marks])

    def iterdir(self) -> Iterator[RemotePath]:
        """List what lies directly below.

        Raises
        ------
        VolumeError
            If it is not to be listed: over http.
        """
        if self.read_only:
            raise VolumeError(f"{self} cannot be listed, as nothing over http")
        found = self._call("list", lambda o, s: o.list_with_delimiter(s, self._prefix))
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return iter([self / posixpath.basename(key.rstrip("/")) for key in sorted(keys)])

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """List what lies directly below and matches a pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    @property
    def _prefix(self) -> str | None:
        return f"{self.key}/" if self.key else None

    def _keys(self) -> Iterator[list[str]]:
        """List all keys below, as many at once as a request gives."""
        pages = self._call("list", lambda o, s: iter(o.list(s, self._prefix, chunk_size=1000)))
        while page := self._call("list", lambda *_: next(pages, None)):
            yield [entry["path"] for entry in page]

    def _has_any(self) -> bool:
        return any(True for _ in self._keys())

    def _has(self) -> bool:
        try:
            self._call("read", lambda o, s: o.head(s, self.key))
        except FileNotFoundError:
            return False
        return True

    def _remove(self, keys: list[str]) -> None:
        self.mkdir()
        if keys:
            self._call("remove", lambda o, s: o.delete(s, keys))

    def _call(self, verb: str, ask: Callable[[Any, Any], Answer]) -> Answer:
        store = connect(self.scheme, self.root)
        import obstore
        from obstore.exceptions import BaseError

        try:
            return ask(obstore, store)
        except FileNotFoundError as error:
            if verb == "read" and "NoSuchBucket" not in str(error):
                raise FileNotFoundError(f"there is nothing at {self}") from error
            raise self._failed(verb, error) from error
        except (BaseError, ValueError, OSError, RuntimeError) as error:
            raise self._failed(verb, error) from error

    def _failed(self, verb: str, error: Exception) -> VolumeError | StorageError:
        message = f"cannot {verb} {self}: {explain(self.root, error)}"
        return VolumeError(message) if is_refused(error) else StorageError(message)
