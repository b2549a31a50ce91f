"""A place on object storage that answers the part of `pathlib.Path` that volumes need."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from volseg.errors import StorageError, VolumeError
from volseg.storage.kvstores import DRIVERS, explain, is_refused, open_store, remote_spec

if TYPE_CHECKING:
    import tensorstore as ts

METADATA = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


@dataclass(frozen=True, order=True)
class RemotePath:
    """A place on object storage; holds no connection, so it travels to any worker.

    Attributes
    ----------
    scheme : one of `DRIVERS`.
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
        """Whether the scheme knows reading alone."""
        return DRIVERS[self.scheme] == "http"

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
        return bool(self.key) and not folder and self._has("")

    def is_dir(self) -> bool:
        """Tell whether objects lie below; over http only volumes and what is in them are known."""
        return self.is_zarr() or (not self.read_only and bool(self._keys()))

    def is_zarr(self) -> bool:
        """Tell whether this is a Zarr group or array."""
        if self.read_only:
            return any(self._has(name) for name in METADATA)
        # one request for what volseg writes, two for all else; to list everything may take many
        return self._has(METADATA[0]) or any(k.decode() in METADATA for k in self._keys(b".z"))

    def exists(self) -> bool:
        """Tell whether there is an object, or something below.

        Raises
        ------
        VolumeError
            If there is no such bucket, or no permission.
        StorageError
            If the server does not answer.
        """
        return self.is_zarr() or self.is_file() or (not self.read_only and bool(self._keys()))

    def read_bytes(self) -> bytes:
        """Read an object.

        Raises
        ------
        FileNotFoundError
            If there is none.
        VolumeError, StorageError
            As with `exists`.
        """
        found = self._call("read", lambda: self.parent.store().read(self.name).result())
        if found.state != "value":
            raise FileNotFoundError(f"there is nothing at {self}")
        return bytes(found.value)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read an object as text; errors as `read_bytes`."""
        return self.read_bytes().decode(encoding)

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
        self._call("write", lambda: self.parent.store().write(self.name, content).result())

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
        self.mkdir()
        self._call("remove", lambda: self.parent.store().write(self.name, None).result())

    def remove_tree(self) -> None:
        """Remove all objects below."""
        import tensorstore as ts

        self.mkdir()
        everything = ts.KvStore.KeyRange()
        self._call("remove", lambda: self.store().delete_range(everything).result())

    def iterdir(self) -> Iterator[RemotePath]:
        """List what lies directly below, by listing all that lies below.

        Raises
        ------
        VolumeError
            If it is not to be listed: over http.
        """
        if self.read_only:
            raise VolumeError(f"{self} cannot be listed, as nothing over http")
        names = {key.decode().split("/", 1)[0] for key in self._keys()}
        return iter([self / name for name in sorted(names)])

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """List what lies directly below and matches a pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def spec(self) -> dict[str, Any]:
        """Describe the place to TensorStore."""
        return remote_spec(self.scheme, self.root, self.key)

    def store(self) -> ts.KvStore:
        """Open the place as a folder."""
        return open_store(self.spec())

    def _keys(self, prefix: bytes = b"") -> list[bytes]:
        import tensorstore as ts

        # text alone is a key at Google, so that the last one is not the prefix and a byte 255
        end = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b""
        below = ts.KvStore.KeyRange(prefix, end)
        return list(self._call("list", lambda: self.store().list(below).result()))

    def _has(self, name: str) -> bool:
        path = self / name if name else self

        def read() -> bool:
            store = path.parent.store()
            try:
                return bool(store.read(path.name, byte_range=slice(0, 1)).result().state == "value")
            except ValueError as error:
                if str(error).startswith("OUT_OF_RANGE"):
                    return True  # an empty object has no first byte
                raise

        return bool(path._call("read", read))

    def _call(self, verb: str, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except (ValueError, OSError, RuntimeError) as error:
            message = f"cannot {verb} {self}: {explain(self.root, error)}"
            if is_refused(error):
                raise VolumeError(message) from error
            raise StorageError(message) from error
