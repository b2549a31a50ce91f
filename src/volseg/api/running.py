"""Turn plain arguments into what the stages take: places, progress, and where blocks run."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from volseg.engine.progress import NoProgress, Progress
from volseg.errors import ParameterError
from volseg.storage.locations import parse_location, parse_path

if TYPE_CHECKING:
    from volseg.engine.options import EngineOptions

Place: TypeAlias = str | PathLike[str]
"""A path, or the URL of a place on object storage."""


def place_of(place: Place) -> Path:
    """Read a path, or a URL of object storage.

    Raises
    ------
    ParameterError
        If it is a URL of something else.
    """
    return parse_location(str(place))


def file_of(place: Place) -> Path:
    """Read the path of a local file or folder.

    Raises
    ------
    ParameterError
        If it is empty.
    """
    return parse_path(str(place))


def optional_place(place: Place | None) -> Path | None:
    """Read a path or URL, if there is one."""
    return None if place is None else place_of(place)


def shown(progress: Progress | None) -> Progress:
    """Take a progress display, or one that shows nothing."""
    return NoProgress() if progress is None else progress


def engine_of(
    workers: int | None,
    scheduler: str | None,
    cluster: str | None,
    cluster_config: Place | Mapping[str, Any] | None,
    block_timeout: float,
) -> EngineOptions:
    """Collect the engine's options.

    Raises
    ------
    ParameterError
        If they do not go together, or the cluster's configuration cannot be used.
    """
    from volseg.engine.clusters import read_cluster
    from volseg.engine.options import EngineOptions
    from volseg.storage.recipes import read_recipe

    if cluster_config is not None and cluster is None:
        raise ParameterError("--cluster-config describes a --cluster; give both")
    if isinstance(cluster_config, Mapping):
        table: Mapping[str, Any] = cluster_config
    else:
        table = {} if cluster_config is None else read_recipe(file_of(cluster_config))
    return EngineOptions(
        workers=workers,
        scheduler=scheduler,
        cluster=None if cluster is None else read_cluster(cluster, table, str(cluster_config)),
        block_seconds=block_timeout,
    )
