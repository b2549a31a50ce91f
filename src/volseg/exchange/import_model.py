"""Import of BioImage.IO packages from disk, to safetensors and a card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volseg.errors import ConflictError, ModelError, ParameterError, StorageError, own_words
from volseg.exchange.bioimageio import CONFIG_VERSION, entry
from volseg.exchange.older_packages import restore_older
from volseg.exchange.packages import Package, open_package, read_weights
from volseg.exchange.states import file_limit, read_state_dict
from volseg.fields import read_fields
from volseg.models.maps import WIDEST, check_maps, count_outputs
from volseg.models.registry import find_architecture
from volseg.storage.cards import Card
from volseg.storage.locations import refuse_file
from volseg.storage.weights import save_weights
from volseg.types import VoxelSize, Zyx

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    Attributes
    ----------
    output : the safetensors file, with its card beside it.
    card : as it was written.
    """

    output: Path
    card: Card


def import_model(
    path: Path,
    folder: Path,
    *,
    voxel_size: VoxelSize | None = None,
    tile: Zyx | None = None,
    overlap: Zyx | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Turn a package into safetensors and a card; nothing is fetched, nothing is unpickled freely.

    Parameters
    ----------
    folder : where the model is written, under its name; made if it is not there
    voxel_size, tile, overlap : nm and network voxels, (z, y, x); None takes the package's
    """
    refuse_file(folder)
    package = open_package(path)
    description = package.describe()
    older = _check_kind(path, description)
    own = _own_config(path, description, older=older)
    card: Mapping[str, Any]
    try:
        if older:
            tensors, card = restore_older(path, package, description, voxel_size)
        else:
            tensors, card = _restore(package, description, own)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # values of a type that no description has
        raise ModelError(f"{package.description} of {path} makes no sense") from error
    given = {"voxel_size": voxel_size, "tile": tile, "overlap": overlap}
    changes = {key: list(value) for key, value in given.items() if value is not None}
    return _write(tensors, {**card, **changes}, folder, overwrite=overwrite)


def _check_kind(path: Path, description: Mapping[str, Any]) -> bool:
    """Check that a model is described; tell whether in the older format."""
    kind, version = description.get("type"), str(description.get("format_version"))
    if kind != "model" or not version.startswith(("0.4.", "0.5.")):
        raise ModelError(
            f"{path} describes a {kind!r} in format {version}, expected a model in format 0.5 or "
            f"0.4"
        )
    return version.startswith("0.4.")


def _own_config(path: Path, description: Mapping[str, Any], *, older: bool) -> Mapping[str, Any]:
    """Find the entries that say which of volseg's networks the state dict belongs to."""
    own = entry(description, "config", "volseg")
    weights = description.get("weights")
    forms = sorted(map(str, weights)) if isinstance(weights, dict) else []
    if older:
        own = {"version": CONFIG_VERSION}  # the network is found by the structure of its tensors
    if own is None:
        raise _of_another_network(path, forms, "no entries of volseg (config.volseg)")
    if not isinstance(own, dict) or own.get("version") != CONFIG_VERSION:
        found = own.get("version") if isinstance(own, dict) else own
        raise ModelError(
            f"the package was written for volseg in version {found!r} of its entries, this one "
            f"reads version {CONFIG_VERSION}; use a newer volseg"
        )
    if "pytorch_state_dict" not in forms:
        raise _of_another_network(path, forms, "no state dict")
    return own


def _of_another_network(path: Path, forms: Sequence[str], lacking: str) -> ModelError:
    return ModelError(
        f"{path} has weights as {', '.join(forms) or 'nothing'} and {lacking}, expected a package "
        f"that volseg exported: a state dict, and the card that names its architecture. "
        f"TorchScript and networks that come with their own code are programs, which volseg does "
        f"not run; train one of its networks instead, see docs/training.md"
    )


def _restore(
    package: Package, description: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """Read the tensors and the card of a model that volseg exported."""
    card = own.get("card")
    if not isinstance(card, dict):
        raise ModelError(f"{package.description} has no card of volseg")
    width = card.get("width")
    if not isinstance(width, int) or not 0 < width <= WIDEST:
        raise ModelError(f"the card's width must be 1 to {WIDEST}, found {width!r}")
    architecture = find_architecture(str(card.get("architecture")))
    # what a card of an older version lacks: one class is what it is for
    maps = read_fields(Card, {"maps": card.get("maps", [])}, "card")["maps"]
    outputs = count_outputs(check_maps(maps))
    # without memory: a card that claims a huge network costs nothing
    with torch.device("meta"):
        expected = architecture.build(width, outputs=outputs).state_dict()
    described = entry(description, "weights", "pytorch_state_dict")
    content = read_weights(package, described, file_limit(expected))
    return read_state_dict(content, expected), card


def _write(
    tensors: Mapping[str, Tensor], card: Mapping[str, Any], folder: Path, *, overwrite: bool
) -> ImportReport:
    name = str(card.get("name"))
    if not NAME.fullmatch(name):
        raise ModelError(f"the model's name becomes a file's name, found {name!r}")
    output, made = folder / f"{name}.safetensors", not folder.exists()
    files = (output, output.with_suffix(".json"))
    if not overwrite and any(f.exists() for f in files):
        raise ConflictError(f"{output} exists; choose another --output, or give --overwrite")
    content = {k: v for k, v in card.items() if k != "sha256"}
    try:
        _check_tiles(card)
        folder.mkdir(parents=True, exist_ok=True)
        return ImportReport(output, save_weights(output, tensors, content))
    except (ValueError, TypeError, KeyError, ParameterError) as error:
        if made and folder.exists():
            folder.rmdir()
        raise ModelError(f"the package's card is not valid: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot write {output}: {own_words(error)}") from error


def _check_tiles(card: Mapping[str, Any]) -> None:
    """Refuse a tile or an overlap that does not lie on the network's lattice."""
    tile, overlap = tuple(map(int, card["tile"])), tuple(map(int, card["overlap"]))
    if len(tile) != 3 or len(overlap) != 3:
        raise ModelError(f"tile and overlap are three sizes, found {tile} and {overlap}")
    if misfit := find_architecture(card["architecture"]).find_misfit(tile, overlap):
        raise ModelError(
            f"tiles of {card['architecture']} {misfit}; found {tile} that overlap by {overlap}"
        )
