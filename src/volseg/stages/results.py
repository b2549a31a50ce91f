"""Results that stand on disk: are they this run's, are they complete, and how they are removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volseg.errors import ConflictError, VolumeError
from volseg.io.ledger import describe_difference
from volseg.io.locations import remove_tree
from volseg.io.volumes import open_image


def is_complete(output: Path, header: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Tell whether this very result is already there.

    Parameters
    ----------
    output : Path
        An image whose attributes hold ``run``, the header it was made with, and ``complete``.
    header : mapping
        Everything that decides the result of the run at hand.
    overwrite : bool
        Whether another result may be replaced.

    Raises
    ------
    ConflictError
        If another result is there and may not be replaced.
    """
    if not output.exists():
        return False
    try:
        found = open_image(output).attributes
    except VolumeError:
        return False
    if found.get("run") == header:
        return bool(found.get("complete"))
    if overwrite:
        return False
    raise ConflictError(
        f"{output} holds another result ({describe_difference(found.get('run'), header)}); choose "
        f"another --name, or give --overwrite to replace it"
    )


def discard(*paths: Path) -> None:
    """Remove files and folders, as far as they exist."""
    for path in paths:
        if path.is_dir():
            remove_tree(path)
        elif path.exists():  # a read-only disk refuses even to remove what is not there
            path.unlink(missing_ok=True)


def fingerprint(header: Mapping[str, Any]) -> str:
    """Hash everything that decides a result."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:32]
