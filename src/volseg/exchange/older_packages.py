"""BioImage.IO packages in format 0.4: state dicts that fit one of volseg's networks.

Such packages bring the code of their network, which is never run. Tensors are matched by their
roles and shapes, and the test tensors of the package prove that the network is the same.

Source: the model resource description of the BioImage.IO specification, version 0.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volseg.errors import ModelError, ParameterError, ShapeError
from volseg.exchange.bioimageio import describe_preprocessing, entry, preprocess
from volseg.exchange.packages import Package, read_weights
from volseg.exchange.states import checked, read_tensors
from volseg.models.maps import WIDEST
from volseg.models.registry import (
    ARCHITECTURES,
    EVERY,
    Architecture,
    count_parameters,
    find_architecture,
)
from volseg.types import Floats, VoxelSize
from volseg.voxels.intensity import Preprocessing

LARGEST_STATE, LARGEST_TEST = 1 << 31, 1 << 24
"""Bytes of a state dict, and of a test tensor."""
TOLERANCE, PART = 1e-3, 0.02
"""By how much probabilities of the test may differ, and by which part of their own range: where a
test finds nothing, all networks give nearly the same."""
COUNTED = "num_batches_tracked"
"""Entries of batch norms that decide nothing."""
Names = dict[tuple[str, tuple[int, ...]], list[str]]


def restore_older(
    path: Path, package: Package, description: Mapping[str, Any], voxel_size: VoxelSize | None
) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Read the tensors of a package, and make a card of what it says.

    Parameters
    ----------
    voxel_size : nm (z, y, x), which the format does not state
    """
    if voxel_size is None:
        raise ModelError(
            f"{path} does not say of which voxel size its images are; give --voxel-size Z,Y,X in nm"
        )
    inputs, outputs = (_only(path, description, key) for key in ("inputs", "outputs"))
    preprocessing = _read_preprocessing(path, inputs)
    content = read_weights(
        package, entry(description, "weights", "pytorch_state_dict"), LARGEST_STATE
    )
    found = _unwrapped(read_tensors(content, LARGEST_STATE))
    given, expected = (_read_test(package, description, f"test_{k}s") for k in ("input", "output"))
    prepared = torch.from_numpy(preprocess(given, preprocessing))
    tried = []
    for name, form, width, state in find_networks(found):
        if prepared.ndim != form.dimensions + 2:
            continue
        network = form.build(width).eval()
        network.load_state_dict(state)
        tried.append(f"{name} of width {width}")
        if _gives(network, prepared, expected):
            tile = (1, *given.shape[2:])[-3:]
            card = {
                "name": _file_name(str(description.get("name"))),
                "architecture": name,
                "width": width,
                "parameters": count_parameters(network),
                "voxel_size": voxel_size,
                "preprocessing": asdict(preprocessing),
                **_tiles(form, tile, outputs),
                "stride": form.stride,
                "threshold": 0.5,
                "training": {
                    "data": f"package {description.get('name')!r} of BioImage.IO",
                    "terms": str(description.get("license") or "not stated"),
                },
                "scores": {},
            }
            return network.state_dict(), card
    why = (
        f"has the structure of {', '.join(tried)}, but gives other values for the package's test"
        if tried
        else f"is none of {', '.join(ARCHITECTURES)}, or unet2d of another depth or filter"
    )
    raise ModelError(
        f"the network of {path} {why}. Code that comes with a model is never run; train one of "
        f"volseg's networks instead, see docs/training.md"
    )


def find_networks(
    found: Mapping[str, Tensor],
) -> Iterator[tuple[str, Architecture, int, dict[str, Tensor]]]:
    """Find the networks that tensors may be of: name, rules, width, and the tensors by its names.

    Those of each role and kernel must have the same shapes in the same order, whatever they are
    called; convolutions and norms may alternate differently.
    """
    first = next((t for t in found.values() if t.ndim > 3), None)
    if first is None or len(first) > WIDEST:
        return
    for name in EVERY:
        form = find_architecture(name)
        try:
            with torch.device("meta"):
                wanted = form.build(len(first)).state_dict()
        except ParameterError:  # of a width that this network cannot have
            continue
        pairs = _match(wanted, found)
        if pairs is not None:
            counts = {n: torch.zeros((), dtype=t.dtype) for n, t in wanted.items() if COUNTED in n}
            kept = {n: checked(n, found[k], wanted[n]) for n, k in pairs.items()}
            yield name, form, len(first), {**counts, **kept}


def _match(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, str] | None:
    ours, theirs = _by_role(wanted), _by_role(found)
    if {k: len(v) for k, v in ours.items()} != {k: len(v) for k, v in theirs.items()}:
        return None
    pairs = {a: b for role in ours for a, b in zip(ours[role], theirs[role], strict=True)}
    if set(pairs) == set(pairs.values()):
        pairs = {name: name for name in pairs}
    return pairs if all(wanted[a].shape == found[b].shape for a, b in pairs.items()) else None


def _by_role(state: Mapping[str, Tensor]) -> Names:
    """Group names by what they are (weight, bias, mean ...) of, a convolution of which kernel."""
    roles: Names = {}
    for name in state:
        owner, _, role = name.rpartition(".")
        weight = state.get(f"{owner}.weight")
        if role != COUNTED:
            kernel = () if weight is None else tuple(weight.shape[2:])
            roles.setdefault((role, kernel), []).append(name)
    return roles


def _unwrapped(found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Leave out of all names what wrappers add."""
    begun = {name.partition(".")[0] for name in found}
    if len(begun) == 1 and begun <= {"module", "model", "network", "net"}:
        return {name.partition(".")[2]: t for name, t in found.items()}
    return found


def _only(path: Path, description: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    listed = description.get(key)
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise ModelError(f"{path} has other than one of {key}, expected raw and probabilities")
    if "".join(map(str, listed[0].get("axes", ""))) not in ("bczyx", "bcyx"):
        raise ModelError(f"{path} has axes {listed[0].get('axes')!r}, expected bczyx or bcyx")
    return listed[0]


def _read_preprocessing(path: Path, described: Mapping[str, Any]) -> Preprocessing:
    """Read the preprocessing, if it is one of volseg's."""
    steps = described.get("preprocessing") or []
    told = [(str(s.get("name")), s.get("kwargs") or {}) for s in steps]
    named = dict(told)
    scaled, linear = named.get("scale_range", {}), named.get("scale_linear", {})
    gain, offset = (_number(linear.get(key)) for key in ("gain", "offset"))
    low, high = scaled.get("min_percentile", 0.0), scaled.get("max_percentile", 100.0)
    space = described["axes"].replace("b", "").replace("c", "")
    if gain is not None and offset == -1 and set(space) <= set(str(scaled.get("axes", space))):
        found = Preprocessing((float(low), float(high)), gain / 2)
        if [s["id"] for s in describe_preprocessing(found, space)] == [name for name, _ in told]:
            return found
    raise ModelError(
        f"{path} prepares intensities by {', '.join(n for n, _ in told) or 'nothing'}; volseg's "
        f"networks take scale_range by percentiles, then scale_linear with an offset of -1"
    )


def _number(value: Any) -> float | None:
    """Read a number, which may stand in a list for one channel."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return float(value) if isinstance(value, int | float) else None


def _read_test(package: Package, description: Mapping[str, Any], key: str) -> Floats:
    listed = description.get(key)
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], str):
        raise ModelError(f"{package.description} names no {key}, which prove what a network does")
    content = BytesIO(package.read(listed[0], LARGEST_TEST))
    try:
        version = np.lib.format.read_magic(content)
        parse = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            parse = np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = parse(content)
        found = np.frombuffer(content.read(), dtype)
    except ValueError as error:
        raise ModelError(f"{listed[0]} is damaged, or no array of numbers") from error
    sound = dtype.kind in "uif" and found.size == math.prod(shape) and not by_columns
    if not sound or len(shape) not in (4, 5) or shape[:2] != (1, 1):
        raise ModelError(
            f"{listed[0]} holds {shape} {dtype}, expected numbers of one channel, (1, 1, z, y, x) "
            f"or (1, 1, y, x)"
        )
    return found.reshape(shape).astype(np.float32)


def _gives(network: nn.Module, prepared: Tensor, expected: Floats) -> bool:
    """Tell whether a network gives what is expected, as logits or as probabilities."""
    try:
        with torch.inference_mode():
            logits = network(prepared)
    except ShapeError:
        return False
    wanted = torch.from_numpy(expected)
    if logits.shape != wanted.shape:
        return False
    probabilities = torch.sigmoid(logits)
    for other in (wanted, torch.sigmoid(wanted)):
        allowed = min(TOLERANCE, max(PART * float(other.max() - other.min()), 1e-7))
        if bool(((probabilities - other).abs() <= allowed).all()):
            return True
    return False


def _tiles(form: Architecture, tile: Sequence[int], described: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the tile of the test, and an overlap of twice the halo, or a quarter of the tile."""
    halo = [*([0] * 5), *(described.get("halo") or [0] * 5)][-3:]
    sizes = form.fit((tile[0], tile[1] - 2 * form.margin[1], tile[2] - 2 * form.margin[2]))
    overlap = []
    for size, edge, stride in zip(sizes, halo, form.stride, strict=True):
        wanted = max(min(2 * int(edge) or size // 4, size // 2), 0)
        steps = max((size - wanted) // stride, -(-(size - size // 2) // stride))
        overlap.append(max(size - steps * stride, 0) if size > 1 else 0)
    return {"tile": sizes, "overlap": tuple(overlap)}


def _file_name(title: str) -> str:
    """Make a file's name of a title.

    Examples
    --------
    >>> _file_name("Mito EM: 3D (v2)")
    'mito-em-3d-v2'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:64] or "imported"
