"""The form of stored arrays, and of those that volseg creates, of which compression may vary.

These hold little-endian bytes, compressed, with a CRC-32C for each chunk, in shards of which the
index stands at the end. Source: Zarr v3, ``sharding_indexed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation

from volseg.storage.chunks import BLOSC_LEVEL, LEVEL, LZ4, ZSTD
from volseg.types import Zyx

KEYS = ({"name": "default"}, {"name": "default", "configuration": {"separator": "/"}})


@dataclass(frozen=True)
class ArrayForm:
    """An array in storage, seen as (z, y, x).

    Attributes
    ----------
    path : folder of the array.
    shape, dtype, chunk, shard : as seen; without sharding the shard is the chunk.
    leading : number of leading axes of length one that are hidden.
    compression : of the chunks, in an array of the form that volseg writes; else None.
    """

    path: Path
    shape: Zyx
    dtype: np.dtype[Any]
    chunk: Zyx
    shard: Zyx
    leading: int = 0
    compression: str | None = None


def codecs_of(compression: str, itemsize: int) -> list[Any]:
    """List the codecs of the chunks of an array that is to be created.

    Parameters
    ----------
    compression : `volseg.storage.chunks.ZSTD` or `volseg.storage.chunks.LZ4`
    itemsize : bytes of a voxel
    """
    if compression == LZ4:
        packed: Any = BloscCodec(
            cname="lz4", clevel=BLOSC_LEVEL, shuffle="noshuffle", typesize=itemsize, blocksize=0
        )
    else:
        packed = ZstdCodec(level=LEVEL, checksum=False)
    return [packed, Crc32cCodec()]


def find_compression(metadata: Any) -> str | None:
    """Find how chunks are compressed in an array of the form that volseg creates.

    Parameters
    ----------
    metadata : of the array, by zarr-python

    Returns
    -------
    str or None
        None for an array of any other form.
    """
    if metadata.zarr_format != 3 or len(metadata.codecs) != 1:
        return None
    (sharding,) = metadata.codecs
    keys = metadata.chunk_key_encoding.to_dict()
    if (
        not isinstance(sharding, ShardingCodec)
        or sharding.index_location != ShardingCodecIndexLocation.end
        or not _are(sharding.index_codecs, BytesCodec, Crc32cCodec)
        or metadata.fill_value
        or keys not in KEYS
        or metadata.storage_transformers
    ):
        return None
    if _are(sharding.codecs, BytesCodec, ZstdCodec, Crc32cCodec):
        return ZSTD
    return LZ4 if _are(sharding.codecs, BytesCodec, BloscCodec, Crc32cCodec) else None


def _are(codecs: Sequence[Any], *kinds: type) -> bool:
    """Tell whether codecs are of these kinds; numbers of one byte have no order."""
    big = [c for c in codecs if isinstance(c, BytesCodec) and c.endian and c.endian.value == "big"]
    return [type(c) for c in codecs] == list(kinds) and not big
