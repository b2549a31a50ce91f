"""Import of BioImage.IO packages from disk, to safetensors and a card."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volseg.errors import ConflictError, ModelError, ParameterError, StorageError
from volseg.exchange.bioimageio import CONFIG_VERSION, entry
from volseg.exchange.packages import Package, open_package, read_weights
from volseg.models.registry import find_architecture
from volseg.storage.weights import Card, save_weights
from volseg.types import VoxelSize, Zyx

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
WIDEST = 1024


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
    path : zip file, folder, or the description in it
    folder : where the model is written, under its name; made if it is not there
    overwrite : replace a model that is already there
    voxel_size, tile, overlap : nm and network voxels, (z, y, x); None takes the package's

    Raises
    ------
    ModelError, ParameterError
        If the package cannot be used; nothing was written.
    ConflictError
        If another model is already there.
    StorageError
        If it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{folder} is a file; give a folder to write the model in")
    package = open_package(path)
    description = package.describe()
    _check_kind(path, description)
    own = _own_config(path, description)
    try:
        tensors, card = _restore(package, description, own)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # values of a type that no description has
        raise ModelError(f"{package.description} of {path} makes no sense") from error
    given = {"voxel_size": voxel_size, "tile": tile, "overlap": overlap}
    changes = {key: list(value) for key, value in given.items() if value is not None}
    return _write(tensors, {**card, **changes}, folder, overwrite=overwrite)


def _check_kind(path: Path, description: Mapping[str, Any]) -> None:
    kind, version = description.get("type"), str(description.get("format_version"))
    if kind != "model" or not version.startswith("0.5."):
        raise ModelError(
            f"{path} describes a {kind!r} in format {version}, expected a model in format 0.5"
        )


def _own_config(path: Path, description: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the entries that say which of volseg's networks the state dict belongs to."""
    own = entry(description, "config", "volseg")
    weights = description.get("weights")
    forms = sorted(map(str, weights)) if isinstance(weights, dict) else []
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
    # without memory: a card that claims a huge network costs nothing
    with torch.device("meta"):
        expected = architecture.build(width).state_dict()
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
        raise StorageError(f"cannot write {output}: {error.strerror or error}") from error


def _check_tiles(card: Mapping[str, Any]) -> None:
    """Refuse a tile or an overlap that does not lie on the network's lattice."""
    tile, overlap = tuple(map(int, card["tile"])), tuple(map(int, card["overlap"]))
    if len(tile) != 3 or len(overlap) != 3:
        raise ModelError(f"tile and overlap are three sizes, found {tile} and {overlap}")
    if misfit := find_architecture(card["architecture"]).find_misfit(tile, overlap):
        raise ModelError(
            f"tiles of {card['architecture']} {misfit}; found {tile} that overlap by {overlap}"
        )


OVERHEAD_BYTES = 1 << 20
"""Bytes that a state dict's file may have beside its numbers: names, alignment."""


def file_limit(expected: Mapping[str, Tensor]) -> int:
    """Count the bytes that a file of these tensors has at most; twice, should it be float64."""
    return OVERHEAD_BYTES + 2 * sum(t.numel() * t.element_size() for t in expected.values())


def read_state_dict(content: bytes, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors that a network expects from a file's content.

    Parameters
    ----------
    content : of a file that ``torch.save`` wrote
    expected : names, shapes and types; the tensors may be without memory, on the device "meta"

    Returns
    -------
    dict
        Tensors on the CPU, in the expected types.

    Raises
    ------
    ModelError
        If the file holds anything but these tensors.
    """
    _check_records(content, file_limit(expected))
    try:
        # the restricted reader: it builds tensors, and refuses whatever names other code
        found = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            "the state dict holds more than tensors, or is damaged; it was not loaded"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ModelError("the state dict is no mapping from names to tensors")
    missing, other = set(expected) - set(found), set(found) - set(expected)
    if missing or other:
        raise ModelError(
            f"the state dict is not that of the network: missing {_some(missing)}, unexpected "
            f"{_some(other)}"
        )
    return {name: _checked(name, found[name], wanted) for name, wanted in expected.items()}


def _some(names: set[str]) -> str:
    listed = sorted(map(str, names))
    return f"{', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''}" if listed else "none"


def _check_records(content: bytes, most: int) -> None:
    """Refuse compressed records, and formats older than zip."""
    if not zipfile.is_zipfile(BytesIO(content)):
        raise ModelError("the state dict is in no format that torch.save has written since 2020")
    try:
        with zipfile.ZipFile(BytesIO(content)) as records:
            sizes = [(r.file_size, r.compress_type) for r in records.infolist()]
    except zipfile.BadZipFile as error:
        raise ModelError("the state dict is damaged") from error
    total = sum(size for size, _ in sizes)
    if total > most or any(kind != zipfile.ZIP_STORED for _, kind in sizes):
        raise ModelError(
            f"the state dict would unpack to {total} bytes, expected at most {most}, uncompressed"
        )


def _checked(name: str, found: Tensor, wanted: Tensor) -> Tensor:
    """Return a tensor in the type that is wanted.

    Raises
    ------
    ModelError
        If its shape differs, it has no plain memory, or not all numbers are finite.
    """
    if found.shape != wanted.shape:
        raise ModelError(
            f"{name} has shape {tuple(found.shape)}, the network's has {tuple(wanted.shape)}"
        )
    plain = found.layout == torch.strided and found.device.type == "cpu" and not found.is_quantized
    if not plain or found.is_complex():
        raise ModelError(f"{name} is no plain tensor: {found.dtype}, {found.layout}")
    if not torch.isfinite(found).all():
        raise ModelError(f"{name} holds values that are not finite")
    return found.to(wanted.dtype).contiguous().clone()
