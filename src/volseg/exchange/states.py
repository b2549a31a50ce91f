"""State dicts that others wrote: tensors are read, and nothing else is built or run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO

import torch
from torch import Tensor

from volseg.errors import ModelError

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
    tensors on the CPU, in the expected types.
    """
    found = read_tensors(content, file_limit(expected))
    missing, other = set(expected) - set(found), set(found) - set(expected)
    if missing or other:
        raise ModelError(
            f"the state dict is not that of the network: missing {_some(missing)}, unexpected "
            f"{_some(other)}"
        )
    return {name: checked(name, found[name], wanted) for name, wanted in expected.items()}


def read_tensors(content: bytes, most: int) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Parameters
    ----------
    most : bytes that it may unpack to
    """
    _check_records(content, most)
    try:
        # the restricted reader: it builds tensors, and refuses whatever names other code
        found = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            "the state dict holds more than tensors, or is damaged; it was not loaded"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ModelError("the state dict is no mapping from names to tensors")
    return found


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


def checked(name: str, found: Tensor, wanted: Tensor) -> Tensor:
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
    if found.untyped_storage().nbytes() < found.numel() * found.element_size():
        raise ModelError(f"{name} shows the same numbers again and again, which no training makes")
    if not torch.isfinite(found).all():
        raise ModelError(f"{name} holds values that are not finite")
    return found.to(wanted.dtype).contiguous().clone()
