"""Networks in training: checks, construction, and mapping of patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from volseg.defaults import NAME
from volseg.errors import ModelError, ParameterError, require
from volseg.models.maps import (
    CENTERLINE,
    CLASS,
    CONTOUR,
    OFFSETS,
    MapSpec,
    build_maps,
    count_outputs,
)
from volseg.models.parts import NORM
from volseg.models.registry import Architecture, find_architecture
from volseg.training.config import TrainConfig
from volseg.training.losses import EMNET

RARE = -2.0
"""The logit of a map that is new to a network."""
ONE = build_maps([NAME])
"""Maps of a network whose card names none."""


def check_network(config: TrainConfig) -> Architecture:
    """Check that width and patch suit the network, without computing anything."""
    form, name, patch = find_architecture(config.architecture), config.architecture, config.patch
    with torch.device("meta"):
        network: nn.Module = form.build(config.width, outputs=count_outputs(config.maps))
    if any(m.kind in {CONTOUR, *OFFSETS} for m in config.maps):
        words = "learning contours or offsets ends in choosing how objects are split, which needs"
        require("skimage", "train", f"{words} scikit-image")
    if form.dimensions == 2 and patch[0] != 1:
        raise ParameterError(
            f"{name} sees one slice at a time: the patch's z must be 1, found {patch}"
        )
    z, y, x = (n - 2 * m for n, m in zip(patch, form.margin, strict=True))
    fitted = form.input_shape(form.fit((max(z, 1), max(y, 1), max(x, 1))))
    if fitted != patch:
        rule = f"multiple of {form.multiple} voxels (z, y, x)"
        if any(form.margin):
            rule = f"{rule} and {form.offset} and twice the margin of {form.margin}"
        raise ParameterError(
            f"a patch for {name} is a {rule}, found {patch}; the next larger is {fitted}"
        )
    deepest = math.prod(n // d for n, d in zip((z, y, x), form.stride, strict=True)) * config.batch
    if deepest < 2 and any(isinstance(m, tuple(NORM.values())) for m in network.modules()):
        raise ParameterError(
            f"a batch of {config.batch} x {patch} leaves {name} a single voxel at its deepest "
            f"level, and nothing to normalise by; give a larger --patch or a larger --batch"
        )
    return form


def build_network(
    config: TrainConfig, start: Mapping[str, Tensor] | None = None, learned: Sequence[MapSpec] = ()
) -> nn.Module:
    """Build a network with random weights drawn from the seed, or with those of another network.

    Parameters
    ----------
    start : weights of the other network
    learned : its maps, as in its card
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        form = find_architecture(config.architecture)
        network: nn.Module = form.build(config.width, outputs=count_outputs(config.maps))
    if start is not None:
        try:
            pairs = pair_maps(config.maps, learned)
            began = _with_head(dict(start), network.state_dict(), pairs, config.maps)
            network.load_state_dict(began)
        except RuntimeError as error:
            raise ModelError("the weights to start from are not those of the network") from error
    return network


def pair_maps(wanted: Sequence[MapSpec], learned: Sequence[MapSpec]) -> dict[int, int]:
    """Find the places of maps among those that another network learned.

    Classes are the same by name; so are the first ones, if no name is and either network has one.

    Examples
    --------
    >>> learned = build_maps(["cells", "gaps"], ["contour"])
    >>> pair_maps(build_maps(["gaps", "cells"], ["distance"]), learned)
    {0: 1, 1: 0}
    >>> pair_maps(build_maps(["nuclei"], ["contour"]), build_maps(["cells"], ["contour"]))
    {0: 0, 1: 1}
    """
    ours, theirs = ([m for m in maps or ONE if m.kind != CENTERLINE] for maps in (wanted, learned))
    own, known = ([m.of for m in maps if m.is_class] for maps in (ours, theirs))
    names = {name: name for name in own if name in known}
    if not names and 1 in (len(own), len(known)):
        names = {own[0]: known[0]}
    places = {(m.of, CLASS if m.is_class else m.kind): k for k, m in enumerate(theirs)}
    asked = ((names.get(m.of, ""), CLASS if m.is_class else m.kind) for m in ours)
    return {k: places[key] for k, key in enumerate(asked) if key in places}


def _with_head(
    start: dict[str, Tensor],
    own: Mapping[str, Tensor],
    pairs: Mapping[int, int],
    maps: Sequence[MapSpec],
) -> dict[str, Tensor]:
    """Start weights of other maps with a head that keeps the filters of those that are the same.

    A new map is found nowhere at first, and a new vector is none, whatever the features say: random
    filters of it would undo what the features have learned.
    """
    heads = [n for n in start if n.startswith("head.") and n in own]
    began = {n: torch.full_like(own[n], RARE if n.endswith("bias") else 0) for n in heads}
    vectors = [k for k, m in enumerate(maps) if m.kind in OFFSETS]
    for n, tensor in began.items():
        for k in vectors:
            tensor[k] = 0
        if start[n].shape[1:] == tensor.shape[1:]:
            for here, there in pairs.items():
                tensor[here] = start[n][there]
    return {**start, **began}


def learns_centerlines(config: TrainConfig) -> bool:
    """Tell whether a recipe uses the auxiliary target."""
    return config.loss == EMNET and find_architecture(config.architecture).centerline


def memory_format(form: Architecture) -> torch.memory_format:
    """Choose how tensors lie in memory: channels last is the fastest on CPUs and GPUs."""
    return torch.channels_last if form.dimensions == 2 else torch.channels_last_3d


def as_input(raw: Tensor, form: Architecture) -> Tensor:
    """Arrange patches as a network takes them: networks of slices take slices as a batch.

    Parameters
    ----------
    raw : float, shape (n, 1, z, y, x)

    Returns
    -------
    float, shape (n, 1, z, y, x) or (n * z, 1, y, x)
    """
    arranged = raw.flatten(0, 2)[:, None] if form.dimensions == 2 else raw
    return arranged.contiguous(memory_format=memory_format(form))


def as_patches(logits: Tensor, patches: int, form: Architecture) -> Tensor:
    """Undo `as_input`: (n * z, 1, y, x) to (n, 1, z, y, x)."""
    if form.dimensions == 3:
        return logits
    arranged: Tensor = logits.unflatten(0, (patches, -1)).transpose(1, 2)
    return arranged


def feed(network: nn.Module, raw: Tensor, form: Architecture) -> Tensor:
    """Map patches, float, shape (n, 1, z, y, x), to logits, smaller by the margin."""
    return as_patches(network(as_input(raw, form)), len(raw), form)
