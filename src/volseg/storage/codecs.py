"""How the arrays that volseg creates are coded: one form, of which a chunk's compression may vary.

Little-endian bytes, compressed, with a CRC-32C for each chunk, in shards of which the index stands
at the end. Source: Zarr v3, ``sharding_indexed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volseg.storage.compression import BLOSC_LEVEL, LEVEL, LZ4, ZSTD
from volseg.types import Zyx

KEYS = ({"name": "default"}, {"name": "default", "configuration": {"separator": "/"}})
NAMES = {ZSTD: "zstd", LZ4: "blosc"}
"""What Zarr calls the codecs of compressions."""


def codec_chain(compression: str, chunk: Zyx, itemsize: int) -> list[dict[str, Any]]:
    """Describe the codecs of an array that is to be created.

    Parameters
    ----------
    compression : see `volseg.storage.compression`
    chunk : shape (z, y, x)
    itemsize : bytes of a voxel
    """
    settings: dict[str, dict[str, Any]] = {
        ZSTD: {"level": LEVEL, "checksum": False},
        LZ4: {
            "cname": "lz4",
            "clevel": BLOSC_LEVEL,
            "shuffle": "noshuffle",
            "typesize": itemsize,
            "blocksize": 0,
        },
    }
    raw, checked = _codec("bytes", endian="little"), _codec("crc32c")
    return [
        _codec(
            "sharding_indexed",
            chunk_shape=chunk,
            codecs=[raw, _codec(NAMES[compression], **settings[compression]), checked],
            index_codecs=[raw, checked],
            index_location="end",
        )
    ]


def _codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration} if configuration else {"name": name}


def find_compression(metadata: Any) -> str | None:
    """Find how chunks are compressed in an array of the form that `codec_chain` describes.

    Parameters
    ----------
    metadata : of the array; None, or in another form, for what is no Zarr v3

    Returns
    -------
    str or None
        None for an array of any other form.
    """
    try:
        (sharding,) = metadata["codecs"]
        stored = sharding["configuration"]
        own = (
            sharding["name"] == "sharding_indexed"
            and _are(stored["index_codecs"], ("bytes", "crc32c"))
            and stored.get("index_location", "end") == "end"
            and not metadata["fill_value"]
            and metadata["chunk_key_encoding"] in KEYS
            and not metadata.get("storage_transformers")
        )
        for compression, name in NAMES.items():
            if own and _are(stored["codecs"], ("bytes", name, "crc32c")):
                return compression
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _are(codecs: Sequence[Any], names: Sequence[str]) -> bool:
    """Tell whether codecs are those of these names; numbers of one byte have no order."""
    orders = {c.get("configuration", {}).get("endian", "little") for c in codecs}
    return [c["name"] for c in codecs] == list(names) and orders == {"little"}
