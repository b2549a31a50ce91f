"""Codecs of other people's arrays, held to a size: a small file may claim to hold terabytes.

Each codec that decompresses is asked, before it makes memory, how much that will be; those of
Python's own library are stopped when they have given enough. zarr-python and numcodecs do the rest.
Codecs that are not named here are refused: to unpickle is to run somebody's program.
"""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numcodecs
import numcodecs.abc
import numpy as np
from zarr import AsyncArray
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import Crc32cCodec, ShardingCodec

from volseg.storage.chunks import ChunkError, check_blosc, most_bytes

SLACK = 1 << 20
"""Bytes that chunks may be larger than expected, as those of Zstandard are counted in blocks."""
KEEPING = frozenset(
    [
        "shuffle",
        "delta",
        "fixedscaleoffset",
        "quantize",
        "bitround",
        "astype",
        "packbits",
        "crc32",
        "crc32c",
        "adler32",
        "fletcher32",
        "jenkins_lookup3",
        "base64",
        "bytes",
        "transpose",
        "sharding_indexed",
        "cast_value",
        "scale_offset",
    ]
)
"""Codecs of which the output is about as large as the input."""
TYPES = frozenset(["dtype", "astype", "encode_dtype", "decode_dtype", "data_type"])
"""Settings of codecs that name a type: of text or bytes of any length, a number would grow."""


def check_codecs(described: Mapping[str, Any]) -> None:
    """Name a codec that is not known, before zarr-python fails at it.

    Parameters
    ----------
    described : what describes an array, or settings of a codec that holds others
    """
    lists = (described.get(key) for key in ("codecs", "filters"))
    listed = [codec for found in lists if isinstance(found, list) for codec in found]
    for codec in [*listed, described.get("compressor")]:
        if isinstance(codec, dict):
            name = str(codec.get("name", codec.get("id"))).removeprefix("numcodecs.")
            settings = codec.get("configuration")
            if name not in {*STREAMS, *CLAIMS}:
                _check_known(name, {})
            check_codecs(settings if isinstance(settings, dict) else {})


def hold_codecs(array: AsyncArray[Any]) -> AsyncArray[Any]:
    """Hold the codecs of an array that somebody else may have made to what its chunks can hold."""
    metadata = array.metadata
    # filters may have made numbers of eight bytes of smaller ones
    itemsize = max(metadata.dtype.to_native_dtype().itemsize, 8)
    if metadata.zarr_format == 2:
        size = math.prod(metadata.chunks) * itemsize
        filters = tuple(_held(f, size) for f in metadata.filters or ()) or None
        packed = metadata.compressor and _held(metadata.compressor, size)
        held = replace(metadata, filters=filters, compressor=packed)
    else:
        size = math.prod(array.metadata.chunk_grid.chunk_shape) * itemsize
        held = replace(metadata, codecs=tuple(_hold_all(metadata.codecs, size, itemsize)))
    return AsyncArray(held, array.store_path)


def _hold_all(codecs: Iterable[Codec], size: int, itemsize: int) -> Iterable[Codec]:
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            inner = math.prod(codec.chunk_shape) * itemsize
            yield ShardingCodec(
                chunk_shape=codec.chunk_shape,
                codecs=tuple(_hold_all(codec.codecs, inner, itemsize)),
                index_codecs=codec.index_codecs,
                index_location=codec.index_location,
            )
        elif isinstance(codec, BytesBytesCodec) and not isinstance(codec, Crc32cCodec):
            described: Any = codec.to_dict()
            name = described["name"].removeprefix("numcodecs.")
            yield HeldCodec(decoder(name, described.get("configuration") or {}, size + SLACK))
        else:
            described = codec.to_dict()
            name = described["name"].removeprefix("numcodecs.")
            _check_known(name, described.get("configuration") or {})
            yield codec


def _check_known(name: str, settings: Mapping[str, Any]) -> None:
    if name not in KEEPING:
        raise ChunkError(
            f"it is stored by the codec {name!r}, which volseg does not use; write it again with "
            f"zstd or gzip"
        )
    for key in TYPES & set(settings):
        try:
            number = settings[key] is None or np.dtype(settings[key]).kind in "biuf"
        except TypeError:
            number = False
        if not number:
            raise ChunkError(f"its codec {name!r} makes {settings[key]!r}, expected numbers")


@dataclass(frozen=True)
class HeldCodec(BytesBytesCodec):
    """A codec of Zarr v3 that decodes no more than it should; it encodes nothing."""

    decode_bytes: Callable[[bytes], Any]
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        found = await asyncio.to_thread(self.decode_bytes, chunk_bytes.to_bytes())
        return chunk_spec.prototype.buffer.from_bytes(bytes(found))

    def compute_encoded_size(self, input_byte_length: int, _: Any) -> int:
        """Refuse to say; it is not known."""
        raise NotImplementedError(f"not known for {input_byte_length} bytes")


class HeldFilter(numcodecs.abc.Codec):
    """A codec of Zarr v2 that decodes no more than it should; it encodes nothing."""

    codec_id = "volseg-held"

    def __init__(self, decode_bytes: Callable[[Any], Any]) -> None:
        self.decode_bytes = decode_bytes

    def encode(self, buf: Any) -> Any:
        """Refuse to write."""
        raise NotImplementedError(f"not for {type(buf)}: this is for reading")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode."""
        del out
        return self.decode_bytes(buf)

    def get_config(self) -> dict[str, Any]:
        """Name itself; it is never stored."""
        return {"id": self.codec_id}


def _held(codec: Any, size: int) -> HeldFilter:
    described = codec.get_config()
    return HeldFilter(decoder(described.pop("id"), described, size + SLACK))


def decoder(name: str, settings: Mapping[str, Any], most: int) -> Callable[[Any], Any]:
    """Make what decodes by a codec; it raises `ChunkError` where that gives too many bytes.

    Parameters
    ----------
    name, settings : as numcodecs has them
    most : bytes
    """
    if name in STREAMS:
        opened = STREAMS[name](settings)
        return lambda packed: _read_some(opened(bytes(packed)), most)
    if name not in CLAIMS:
        _check_known(name, settings)
    taken = {} if name in CLAIMS else settings  # how hard it was compressed decides nothing here
    codec, claim = numcodecs.get_codec({"id": name, **taken}), CLAIMS.get(name)

    def decode(packed: Any) -> Any:
        if claim is not None:
            claim(bytes(packed), most)
        return codec.decode(packed)

    return decode


def _check(size: int, most: int) -> None:
    if size > most:
        raise ChunkError(f"a chunk claims to hold {size} bytes, expected at most {most}")


def _read_some(stream: Any, most: int) -> bytes:
    content: bytes = stream.read(most + 1)
    _check(len(content), most)
    return content


def _lzma(settings: Mapping[str, Any]) -> Callable[[bytes], Any]:
    form = settings.get("format", lzma.FORMAT_XZ)
    limit = {} if form == lzma.FORMAT_RAW else {"memlimit": 1 << 28}
    filters = settings.get("filters") if form == lzma.FORMAT_RAW else None
    return lambda packed: _Inflated(lzma.LZMADecompressor(form, filters=filters, **limit), packed)


class _Inflated:
    """One stream to read some bytes of."""

    def __init__(self, decompressor: Any, packed: bytes) -> None:
        self._decompressor, self._packed = decompressor, packed

    def read(self, length: int) -> bytes:
        found: bytes = self._decompressor.decompress(self._packed, length)
        if not self._decompressor.eof and len(found) < length:
            raise ChunkError("it cannot be decompressed: it is cut off")
        return found


STREAMS: Mapping[str, Callable[[Mapping[str, Any]], Callable[[bytes], Any]]] = {
    "gzip": lambda _: lambda packed: gzip.GzipFile(fileobj=io.BytesIO(packed)),
    "bz2": lambda _: lambda packed: bz2.BZ2File(io.BytesIO(packed)),
    "zlib": lambda _: lambda packed: _Inflated(zlib.decompressobj(), packed),
    "lzma": _lzma,
}
"""Decompressors of codecs in Python's own library, made from their settings."""
CLAIMS: Mapping[str, Callable[[bytes, int], None]] = {
    "zstd": lambda packed, most: _check(most_bytes(packed), most),
    "lz4": lambda packed, most: _check(int.from_bytes(packed[:4], "little"), most),
    "blosc": check_blosc,
}
"""Checks of the output size that chunks of other codecs claim."""
