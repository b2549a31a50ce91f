"""Import a TorchScript network that others trained: read what its package says, and adapt it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._fuser import optimized_execution

from volseg.errors import ModelError, ParameterError
from volseg.io.bioimageio import entry
from volseg.io.packages import Package, read_weights
from volseg.models.program import (
    PROGRAM,
    REFUSAL,
    Adapter,
    run_serialised,
    serialise,
)
from volseg.stages.import_options import Draft, ImportOptions
from volseg.stages.import_signature import (
    Signature,
    read_postprocessing,
    read_preprocessing,
    read_signature,
)
from volseg.stages.train_export import TILES
from volseg.types import VoxelSize, Zyx

PROGRAM_BYTES = 4 << 30
NAMES = {2: "torchscript2d", 3: "torchscript"}


def draft_program(
    package: Package, description: Mapping[str, Any], options: ImportOptions
) -> Draft:
    """Turn a package's TorchScript into weights and a card.

    Raises
    ------
    ModelError
        If there is no TorchScript, it is not trusted, or it is nothing that volseg can feed.
    ParameterError
        If an option is needed that was not given.
    """
    described = entry(description, "weights", "torchscript")
    if described is None:
        raise ModelError(
            f"{package.path} was not exported by volseg and has no TorchScript weights; others "
            f"need the code they came with, which volseg does not run"
        )
    if not options.trust_torchscript:
        raise ModelError(REFUSAL)
    signature, source, target = read_signature(description)
    preprocessing, before = read_preprocessing(source, signature.dimensions)
    probabilities = read_postprocessing(target)
    content = read_weights(package, described, PROGRAM_BYTES)
    program = run_serialised(content, trusted=options.trust_torchscript)
    channel = _channel(program, signature, options.channel)
    adapter = Adapter(program, before, signature.sizes, channel, probabilities=probabilities)
    _try(adapter, signature)
    card = _card(package, description, signature, options)
    card["preprocessing"] = asdict(preprocessing)
    card["parameters"] = max(sum(p.numel() for p in program.parameters()), 1)
    note = "intensities are scaled over the whole volume, not over each sample as the package says"
    return Draft({PROGRAM: serialise(adapter)}, card, (note,))


def _sample(signature: Signature) -> Tensor:
    """Draw noise of a size that the network says it takes."""
    sizes = [least + step for least, step in signature.sizes]
    return 2 * torch.rand(1, 1, *sizes, generator=torch.Generator().manual_seed(0)) - 1


def _run(network: nn.Module, signature: Signature) -> Tensor:
    x = _sample(signature)
    try:
        with torch.inference_mode(), optimized_execution(False):
            out = network(x)
    except RuntimeError as error:
        reason = str(error).strip().rsplit("\n", 1)[-1]
        raise ModelError(f"the program fails on noise of {tuple(x.shape)}: {reason}") from error
    if not isinstance(out, Tensor) or out.shape[2:] != x.shape[2:] or len(out) != 1:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(
            f"the program turns {tuple(x.shape)} into {found}; volseg uses those that keep sizes"
        )
    return out


def _channel(program: nn.Module, signature: Signature, wanted: int | None) -> int:
    channels = _run(program, signature).shape[1]
    if wanted is None and channels > 1:
        raise ParameterError(f"the network has {channels} channels; say which with --channel 0...")
    if (wanted or 0) >= channels:
        raise ParameterError(f"--channel {wanted} is none of the {channels}, counted from 0")
    return wanted or 0


def _try(adapter: Adapter, signature: Signature) -> None:
    """Run a network on noise, and refuse what comes out if it can be no probabilities.

    Raises
    ------
    ModelError
        If values are not finite, or neither probabilities nor logits.
    """
    x = _sample(signature)
    with torch.inference_mode(), optimized_execution(False):
        given = adapter.program(adapter.before(x))[:, adapter.channel]
    if not torch.isfinite(given).all():
        raise ModelError("the program gives values that are not finite on noise")
    low, high = float(given.min()), float(given.max())
    if adapter.probabilities and (low < -1e-3 or high > 1 + 1e-3):
        raise ModelError(
            f"the program gives {low:.3g} to {high:.3g} and its package names no sigmoid: these "
            f"are no probabilities"
        )


def _card(
    package: Package,
    description: Mapping[str, Any],
    signature: Signature,
    options: ImportOptions,
) -> dict[str, Any]:
    """Fill a card with what the package says, and with what the tiles should be."""
    tile, overlap = _tiles(signature)
    return {
        "name": _name(package, description),
        "architecture": NAMES[signature.dimensions],
        "width": 1,
        "voxel_size": list(_voxel_size(signature, options)),
        "tile": list(tile),
        "overlap": list(overlap),
        "stride": [1, 1, 1],
        "threshold": 0.5,
        "training": {
            "data": "see the package it was imported from",
            "package": str(description.get("name")),
            "sha256 of its weights": entry(description, "weights", "torchscript", "sha256"),
        },
        "scores": {},
    }


def _name(package: Package, description: Mapping[str, Any]) -> str:
    """Make a file's name of a package's title.

    Examples
    --------
    >>> _name(Package(PurePath("a.zip"), "rdf.yaml"), {"name": "Mito (3D) U-Net"})
    'mito-3d-u-net'
    """
    title = str(description.get("name") or PurePath(package.path).stem)
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in title.lower()).split()
    return "-".join(words)[:64] or "imported"


def _voxel_size(signature: Signature, options: ImportOptions) -> VoxelSize:
    if options.voxel_size is not None:
        return options.voxel_size
    if signature.voxel_size is None or signature.dimensions == 2:
        raise ParameterError(
            "the package does not say for which voxels the network is; give --voxel-size Z,Y,X in "
            "nm, with the distance of slices where it sees slices"
        )
    z, y, x = signature.voxel_size
    return z, y, x


def _tiles(signature: Signature) -> tuple[Zyx, Zyx]:
    """Choose the largest tile that the network takes up to volseg's own, and its overlap."""
    full, _ = TILES[signature.dimensions]
    tile, overlap = list(full), [0, 0, 0]
    first = 3 - signature.dimensions
    rows = zip(signature.sizes, signature.halo, strict=True)
    for axis, ((least, step), halo) in enumerate(rows, start=first):
        steps = max((full[axis] - least) // step, 0) if step else 0
        tile[axis] = least + steps * step
        wanted = tile[axis] // 4 if halo is None else 2 * halo
        overlap[axis] = min(wanted, tile[axis] // 2)
    return (tile[0], tile[1], tile[2]), (overlap[0], overlap[1], overlap[2])
