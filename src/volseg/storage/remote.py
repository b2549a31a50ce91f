"""Places on object storage, which answer the part of `pathlib.Path` that volumes need."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from volseg.errors import StorageError, VolumeError
from volseg.storage.connections import connect, explain_failure, is_refused

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
Answer = TypeVar("Answer")


def as_remote(path: Path) -> RemotePath | None:
    """Tell a place on object storage from a folder."""
    found: object = path
    return found if isinstance(found, RemotePath) else None


class RemotePath(PurePosixPath):
    """A place on object storage, kept as ``/scheme:/bucket/key``.

    It holds no connection, so it travels to any worker.
    """

    __slots__ = ()
    __fspath__ = None  # type: ignore[assignment]  # never taken for a file here

    @classmethod
    def at(cls, scheme: str, bucket: str, key: str) -> RemotePath:
        """Name a place.

        Parameters
        ----------
        scheme : one of `volseg.storage.connections.SCHEMES`
        bucket : or host and port
        key : names joined by ``/``; empty for the bucket itself
        """
        return cls(f"/{scheme}:", bucket, key)

    @property
    def scheme(self) -> str:
        """The URL's scheme."""
        return self.parts[1].removesuffix(":")

    @property
    def bucket(self) -> str:
        """The bucket, or host and port."""
        return self.parts[2]

    @property
    def key(self) -> str:
        """Names below the bucket, joined by ``/``."""
        return "/".join(self.parts[3:])

    def __str__(self) -> str:
        return "/".join([f"{self.scheme}:/", *self.parts[2:]])

    @property
    def read_only(self) -> bool:
        """Tell whether the scheme is read-only."""
        return self.scheme.startswith("http")

    def resolve(self) -> RemotePath:
        """Follow ``..``, which no object storage does."""
        return RemotePath(posixpath.normpath("/".join(["", *self.parts[1:]])))

    def absolute(self) -> RemotePath:
        """Return the place itself, which depends on no current folder."""
        return self

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

    def upload(self, file: Path) -> None:
        """Write an object from a file, in parts; it is replaced at once or not at all."""
        self.mkdir()
        self._call("write", lambda o, s: o.put(s, self.key, file))

    def mkdir(self, **_: Any) -> None:
        """Do nothing, as object storage has no folders."""
        if self.read_only:
            raise VolumeError(
                f"{self} can only be read, as all over http; copy the volume to a folder or to "
                f"s3:// or gs://, and work on that"
            )

    def rmdir(self) -> None:
        """Do nothing: a folder of which the last object is removed is no more."""

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
        """List what lies directly below."""
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
        store = connect(self.scheme, self.bucket)
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
        message = f"cannot {verb} {self}: {explain_failure(self.bucket, error)}"
        return VolumeError(message) if is_refused(error) else StorageError(message)
