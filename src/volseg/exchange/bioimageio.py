"""BioImage.IO model descriptions, format 0.5.

Source: the model resource description of the BioImage.IO specification, version 0.5.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from volseg import __version__
from volseg.errors import ModelError, ParameterError, require
from volseg.models.maps import count_exclusive
from volseg.models.registry import Architecture
from volseg.storage.cards import Card
from volseg.types import Floats, Zyx, zyx
from volseg.voxels.intensity import Preprocessing

FORMAT_VERSION = "0.5.14"
"""The first that was checked in which authors, citations and a license may be left out."""
CONFIG_VERSION = 1
"""Of ``config.volseg``; raised whenever its entries come to mean something else."""
EPSILON = 1e-6
"""Number that BioImage.IO adds to a range before it divides by it."""
STATE_DICT, TORCHSCRIPT = "weights.pt", "weights.torchscript.pt"
TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"
README, COVER = "README.md", "cover.png"


def describe_preprocessing(preprocessing: Preprocessing, axes: str) -> list[dict[str, Any]]:
    """Describe the preprocessing of intensities in BioImage.IO's terms.

    Examples
    --------
    >>> [step["id"] for step in describe_preprocessing(Preprocessing(), "zyx")]
    ['scale_range', 'scale_linear']
    >>> [step["id"] for step in describe_preprocessing(Preprocessing(gain=2), "zyx")]
    ['scale_range', 'clip', 'scale_linear']
    """
    if preprocessing.equalise or preprocessing.gamma != 1:
        found = "an equalisation" if preprocessing.equalise else f"a gamma of {preprocessing.gamma}"
        raise ParameterError(
            f"the model's preprocessing has {found}, which BioImage.IO cannot express: other "
            f"programs would feed it wrong intensities; export it as torchscript or onnx"
        )
    low, high = preprocessing.percentiles
    if high <= 1:
        raise ParameterError(f"BioImage.IO's upper percentile is above 1, the model's is {high:g}")
    scaled = {
        "axes": ["channel", *axes],
        "min_percentile": low,
        "max_percentile": high,
        "eps": EPSILON,
    }
    steps: list[dict[str, Any]] = [{"id": "scale_range", "kwargs": scaled}]
    if preprocessing.gain != 1:
        steps.append({"id": "clip", "kwargs": {"min": 0.0}})
    linear = {"gain": 2.0 * preprocessing.gain, "offset": -1.0}
    return [*steps, {"id": "scale_linear", "kwargs": linear}]


def preprocess(raw: Floats, preprocessing: Preprocessing) -> Floats:
    """Apply the steps of `describe_preprocessing` to one sample, as other programs do.

    Examples
    --------
    >>> preprocess(np.array([0, 75, 100], np.float32), Preprocessing((0, 100))).round(3)
    array([-1. ,  0.5,  1. ], dtype=float32)
    """
    low, high = np.percentile(raw, preprocessing.percentiles)
    scaled = (raw - low) / (high - low + EPSILON)
    if preprocessing.gain != 1:
        scaled = np.maximum(scaled, 0)
    return np.asarray(2 * preprocessing.gain * scaled - 1, np.float32)


def halo_of(card: Card) -> Zyx:
    """Find the voxels per side of an output that its neighbour knows better: half of the overlap.

    Cropped tiles then abut, in the middle of what they share.
    """
    return zyx(o // 2 for o in card.overlap)


def describe_input(card: Card, form: Architecture, least: Zyx) -> dict[str, Any]:
    """Describe the one input tensor, of ``least`` voxels (z, y, x) and any multiple more."""
    axes = "zyx"[-form.dimensions :]
    sizes = dict(zip("zyx", zip(least, form.multiple, strict=True), strict=True))
    space = [{**_space(a, card), "size": {"min": sizes[a][0], "step": sizes[a][1]}} for a in axes]
    return {
        "id": "raw",
        "description": "Electron micrograph, any intensities",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["raw"]}, *space],
        "data": {"type": "float32"},
        "preprocessing": describe_preprocessing(card.preprocessing, axes),
        "test_tensor": {"source": TEST_INPUT},
    }


def describe_output(card: Card, form: Architecture) -> dict[str, Any]:
    """Describe the one output tensor: probabilities, and how much of them is halo."""
    names = [m.name for m in card.maps][: card.outputs] or ["foreground"]
    taken = dict(zip("zyx", zip(form.margin, halo_of(card), strict=True), strict=True))
    space = []
    for axis in "zyx"[-form.dimensions :]:
        margin, halo = taken[axis]
        size = {"tensor_id": "raw", "axis_id": axis, "offset": -2 * margin}
        entry = {**_space(axis, card), "size": size}
        space.append({**entry, "halo": halo} if halo else entry)
    return {
        "id": "probabilities",
        "description": f"Probability of foreground; from {card.threshold:g} on it counts as such",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": names}, *space],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "postprocessing": [{"id": "sigmoid"}],
        "test_tensor": {"source": TEST_OUTPUT},
    }


def _space(axis: str, card: Card) -> dict[str, Any]:
    scale = card.voxel_size["zyx".index(axis)]
    return {"type": "space", "id": axis, "unit": "nanometer", "scale": scale}


def describe_model(
    card: Card, form: Architecture, least: Zyx, hashes: Mapping[str, str], builder: tuple[str, str]
) -> dict[str, Any]:
    """Write the whole description of a package.

    Parameters
    ----------
    least : smallest input, voxels (z, y, x).
    hashes : SHA-256 of `STATE_DICT` and `TORCHSCRIPT`; both give logits.
    builder : module and name of what builds the network from architecture and width.
    """
    names = {"pytorch_state_dict": STATE_DICT, "torchscript": TORCHSCRIPT}
    version = torch.__version__.split("+", maxsplit=1)[0]
    weights: dict[str, dict[str, Any]] = {
        kind: {"source": name, "sha256": hashes[name], "pytorch_version": version}
        for kind, name in names.items()
    }
    weights["pytorch_state_dict"]["architecture"] = {
        "import_from": builder[0],
        "callable": builder[1],
        "kwargs": {"architecture": card.architecture, "width": card.width}
        # builders of older versions know one output alone
        | ({"outputs": card.outputs} if card.outputs > 1 else {})
        | ({"exclusive": count} if (count := count_exclusive(card.maps)) else {}),
    }
    weights["torchscript"]["parent"] = "pytorch_state_dict"
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": _title(card.name),
        "description": f"{card.architecture} for foreground in electron micrographs; see {README}",
        "documentation": {"source": README},
        "covers": [{"source": COVER}],
        "tags": ["electron-microscopy", "semantic-segmentation", "pytorch", "volseg"],
        "inputs": [describe_input(card, form, least)],
        "outputs": [describe_output(card, form)],
        "weights": weights,
        "config": {
            "volseg": {"version": CONFIG_VERSION, "written by": __version__, "card": asdict(card)}
        },
    }


def _title(name: str) -> str:
    """Remove the characters that a title may not contain.

    Examples
    --------
    >>> _title("my.net/2")
    'volseg my-net-2'
    """
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_+- ()") else "-" for c in name)
    return f"volseg {kept}"[:64]


def entry(mapping: Mapping[str, Any], *names: str) -> Any:
    """Look up an entry of a description; None if it or a mapping on the way is missing.

    Examples
    --------
    >>> entry({"weights": {"onnx": {"source": "a"}}}, "weights", "onnx", "source")
    'a'
    >>> entry({"weights": []}, "weights", "onnx") is None
    True
    """
    value: Any = mapping
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def validate_package(path: Path) -> None:
    """Check a package's folder against the BioImage.IO specification; nothing is fetched."""
    require("bioimageio.spec", "export", "packages need bioimageio.spec")
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description

    # every file that the package names lies in it, so checking them needs no network
    context = ValidationContext(log_warnings=False, progressbar=False, disable_cache=True)
    with warnings.catch_warnings(), context:
        # the library leaves closing files to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        found = load_description(path, format_version="latest", perform_io_checks=True)
    if isinstance(found, InvalidDescr):
        summary = found.validation_summary
        reasons = [f"{e.loc}: {e.msg}" for d in summary.details for e in d.errors]
        raise ModelError(f"{path} is no valid BioImage.IO package: {'; '.join(reasons)}")
