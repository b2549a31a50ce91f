"""Weights: safetensors beside a JSON card. Nothing is unpickled, nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from volseg.errors import ModelError, StorageError
from volseg.fields import as_json
from volseg.models.registry import fill_network
from volseg.storage.cards import Card, find_weights, read_card
from volseg.storage.files import drafting, hash_file


def load_weights(model: str | Path, card: Card) -> dict[str, Tensor]:
    """Read a model's tensors."""
    path = find_weights(model)
    found = hash_file(path)
    if found != card.sha256:
        raise ModelError(
            f"{path} is not the file its card describes: sha256 {found[:12]}..., expected "
            f"{card.sha256[:12]}...; fetch both again"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable safetensors file") from error


def load_network(model: str | Path, card: Card) -> nn.Module:
    """Build a network and load its weights, on the CPU.

    Raises
    ------
    ModelError
        As `load_weights` does.
    """
    network = card.form.build(card.width, outputs=card.outputs)
    return fill_network(network, load_weights(model, card))


def save_weights(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Card:
    """Write weights and their card; the hash is filled in.

    Parameters
    ----------
    path : of the safetensors file; the card stands beside it
    card : all fields of `Card` but ``sha256``
    """
    try:
        beside = path.with_suffix(".json")
        with drafting(path, parents=False) as draft, drafting(beside, parents=False) as text:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, draft)
            complete = read_card(as_json({**card, "sha256": hash_file(draft)}))
            text.write_text(json.dumps(asdict(complete), indent=1) + "\n", encoding="utf-8")
    except SafetensorError as error:
        raise StorageError(f"cannot write {path} as safetensors") from error
    return complete
