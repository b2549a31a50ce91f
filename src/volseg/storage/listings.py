"""What stands in a volume, wherever that lies."""

from __future__ import annotations

from pathlib import Path

from volseg.storage.attributes import listed_labels
from volseg.storage.remote import as_remote


def results_in(volume: Path, kind: str, pattern: str = "*") -> list[Path]:
    """List what stands in a volume's ``probabilities``, ``labels`` or ``tables``, sorted.

    What lies behind http cannot be listed: there it is what the ``labels`` group names.
    """
    remote = as_remote(volume)
    if remote is None or not remote.read_only:
        found = (volume / kind).glob(pattern)
        return sorted(path for path in found if not path.name.startswith("."))
    ending = ".parquet" if kind == "tables" else ""
    known = [volume / kind / f"{name}{ending}" for name in listed_labels(volume)]
    return [path for path in known if path.exists()]
