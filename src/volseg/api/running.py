"""Turn plain arguments into what the stages take: places, progress, and where blocks run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from volseg.api.options import Place, Running
from volseg.defaults import BLOCK_TIMEOUT
from volseg.errors import ParameterError
from volseg.fields import split_names
from volseg.storage.locations import parse_location, parse_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from volseg.engine.options import EngineOptions
    from volseg.engine.progress import Progress

Options = TypeVar("Options", bound="DataclassInstance")
EACH = "{name}"
"""Stands for each result's name in the paths that belong to several."""


def place_of(place: Place) -> Path:
    """Read a path, or a URL of object storage."""
    return parse_location(text_of(place))


def file_of(place: Place) -> Path:
    """Read the path of a local file or folder."""
    if "://" in text_of(place):
        raise ParameterError(f"{place} is a URL; expected a file or folder of this machine")
    return parse_path(text_of(place))


def text_of(place: Place) -> str:
    """Return the text of a path, or of a name; that of anything else would be taken for one."""
    # a place on object storage is a path that is no file, so it is not PathLike
    if not isinstance(place, str | PathLike | PurePath):
        raise ParameterError(f"expected a path or a URL, found {type(place).__name__}")
    return str(place)


def optional_place(place: Place | None) -> Path | None:
    """Read a path or URL, if there is one."""
    return None if place is None else place_of(place)


def optional_file(place: Place | None) -> Path | None:
    """Read the path of a local file or folder, if there is one."""
    return None if place is None else file_of(place)


def several(given: Any) -> list[Any]:
    """List what is given once or several times.

    Examples
    --------
    >>> several("vol.zarr"), several(["a.zarr", "b.zarr"])
    (['vol.zarr'], ['a.zarr', 'b.zarr'])
    """
    return [given] if isinstance(given, str | PathLike | PurePath) else list(given)


def several_texts(given: Any) -> list[str]:
    """List the texts of paths or names that are given once or several times."""
    return [text_of(place) for place in several(given)]


def distinct_places(volumes: Iterable[Place]) -> list[Path]:
    """Read the places of volumes, each of which counts once."""
    places = [place_of(volume) for volume in volumes]
    known = [place.resolve() for place in places]
    for k, place in enumerate(places):
        if known[k] in known[:k]:
            raise ParameterError(f"{place} is named twice; name each VOLUME once")
    return places


def shown(progress: Progress | None) -> Progress:
    """Take a progress display, or one that shows nothing."""
    from volseg.engine.progress import NoProgress

    return NoProgress() if progress is None else progress


def check_one_name(name: str | None, verb: str) -> None:
    """Refuse several names, before any work is done for the first."""
    if name is not None and len(split_names(name)) > 1:
        raise ParameterError(
            f"{verb} takes one result at a time, found {name}; volseg.{verb}_all takes several"
        )


def divide(options: Mapping[str, object], *groups: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide options into those of some groups and all others."""
    own = {name for group in groups for name in group.__annotations__}
    return (
        {name: value for name, value in options.items() if name in own},
        {name: value for name, value in options.items() if name not in own},
    )


def build(kind: type[Options], given: Mapping[str, object], **more: object) -> Options:
    """Make the options of a stage; those of `Running` become its engine, if it has one."""
    chosen = {**given, **more}
    if "engine" in kind.__annotations__:
        running, chosen = divide(chosen, Running)
        chosen["engine"] = engine_of(**running)
    return kind(**chosen)


def engine_of(**options: Unpack[Running]) -> EngineOptions:
    """Collect the engine's options."""
    from volseg.engine.options import EngineOptions, read_cluster
    from volseg.storage.recipes import read_recipe

    cluster, config = options.get("cluster"), options.get("cluster_config")
    if config is not None and cluster is None:
        raise ParameterError("--cluster-config describes a --cluster; give both")
    if isinstance(config, Mapping):
        table = config
    else:
        table = {} if config is None else read_recipe(file_of(config))
    return EngineOptions(
        workers=options.get("workers"),
        scheduler=options.get("scheduler"),
        cluster=None if cluster is None else read_cluster(cluster, table, str(config)),
        dashboard=options.get("dashboard", False),
        block_seconds=options.get("block_timeout", BLOCK_TIMEOUT),
    )
