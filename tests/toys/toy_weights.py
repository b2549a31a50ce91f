"""Weights of chance for tiny networks: quick to run, and their probabilities are not all alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from volseg.models.emnet import EMNet
from volseg.models.maps import MapSpec, count_outputs
from volseg.models.registry import count_parameters, find_architecture
from volseg.storage.cards import load_card
from volseg.storage.weights import load_weights, save_weights

PREPROCESSING = {"percentiles": [1.0, 99.0], "gain": 1, "gamma": 1, "equalise": False}


def toy_card(parameters: int, **told: Any) -> dict[str, Any]:
    """Make the content of a card, of which only what a test is about has to be told."""
    card = {
        "name": "toy",
        "architecture": "emnet",
        "width": 8,
        "parameters": parameters,
        "voxel_size": [5.0, 5.0, 5.0],
        "preprocessing": PREPROCESSING,
        "tile": [12, 32, 32],
        "overlap": [4, 8, 8],
        "stride": [4, 8, 8],
        "threshold": 0.5,
        "training": {"data": "none", "terms": "none"},
        "scores": {},
    }
    return card | told


def write_weights(
    folder: Path, name: str, tile, overlap, width: int = 4, *, seed: int = 7, **told: Any
) -> Path:
    """Write weights, scaled so that the logits of noise spread about 0, and their card."""
    form = find_architecture(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        maps = [MapSpec(**entry) for entry in told.get("maps", ())]
        network = form.build(width, outputs=count_outputs(maps)).eval()
        given = form.input_shape(tile)
        noise = torch.rand(1, 1, *given[3 - form.dimensions :]) * 2 - 1
    with torch.no_grad():
        logits = network(noise)
        gain = 1.5 / logits.std()
        network.head.weight.mul_(gain)
        network.head.bias.copy_((network.head.bias - logits.mean()) * gain)
    made = {"architecture": name, "width": width, "stride": form.stride}
    card = toy_card(count_parameters(network), **made, tile=tile, overlap=overlap, **told)
    path = folder / "toy.safetensors"
    save_weights(path, network.state_dict(), card)
    return path


def card_content(model: Path, **changed: Any) -> dict[str, Any]:
    """Read a card, so that other weights can be saved with what it says."""
    content = json.loads(model.with_suffix(".json").read_text())
    return {k: v for k, v in content.items() if k != "sha256"} | changed


def write_lines(path: Path, model: Path) -> Path:
    """Write a toy EM-Net again, its head for centerlines scaled: their output varies about half."""
    weights = dict(load_weights(model, load_card(model)))
    network = EMNet(8).eval()
    network.load_state_dict(weights)
    noise = torch.rand(1, 1, 12, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        logits = network.both(noise)[1]
    gain = 3 / logits.std()
    weights["centerline.head.weight"] = weights["centerline.head.weight"] * gain
    weights["centerline.head.bias"] = (weights["centerline.head.bias"] - logits.mean()) * gain
    save_weights(path, weights, card_content(model))
    return path
