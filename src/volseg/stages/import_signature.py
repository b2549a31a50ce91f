"""What a package says of a network that others trained, as far as volseg can feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from volseg.errors import ModelError
from volseg.intensity import Preprocessing
from volseg.io.bioimageio import entry
from volseg.models.program import Affine, Clip, Standardise

NANOMETERS = {"nanometer": 1.0, "micrometer": 1000.0, "angstrom": 0.1, "millimeter": 1e6}


@dataclass(frozen=True)
class Signature:
    """What a package says of the one input and the one output of its network.

    Attributes
    ----------
    dimensions : 2 for slices, 3 for volumes.
    sizes : (least, step) of each axis in space.
    halo : of each axis in space; None where none is given.
    voxel_size : nm of each axis in space; None where the unit is missing.
    """

    dimensions: int
    sizes: tuple[tuple[int, int], ...]
    halo: tuple[int | None, ...]
    voxel_size: tuple[float, ...] | None


def read_signature(
    description: Mapping[str, Any],
) -> tuple[Signature, Mapping[str, Any], Mapping[str, Any]]:
    """Find the one input and the one output, and what their axes say.

    Raises
    ------
    ModelError
        If there are more, or their axes are not (batch, channel, [z,] y, x).
    """
    inputs, outputs = (_tensors(description.get(k), k) for k in ("inputs", "outputs"))
    sizes, taken = _space(inputs), _space(outputs)
    if len(sizes) != len(taken):
        raise ModelError(f"the network turns {len(sizes)} axes in space into {len(taken)}")
    halo = tuple(a["halo"] if isinstance(a.get("halo"), int) else None for a in taken)
    units = [NANOMETERS.get(str(a.get("unit"))) for a in sizes]
    scales = [a.get("scale", 1.0) for a in sizes]
    known = all(u is not None for u in units)
    voxel_size = tuple(float(s) * (u or 0) for s, u in zip(scales, units, strict=True))
    signature = Signature(
        len(sizes), tuple(_size(a) for a in sizes), halo, voxel_size if known else None
    )
    return signature, inputs, outputs


def _tensors(found: Any, kind: str) -> Mapping[str, Any]:
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        count = len(found) if isinstance(found, list) else "no"
        raise ModelError(f"volseg uses networks of one input and one output, found {count} {kind}")
    return found[0]


def _space(tensor: Mapping[str, Any]) -> list[dict[str, Any]]:
    axes = tensor.get("axes")
    if not isinstance(axes, list) or not all(isinstance(a, dict) for a in axes):
        raise ModelError(f"tensor {tensor.get('id')!r} describes no axes")
    names = [a.get("id") if a.get("type") == "space" else a.get("type") for a in axes]
    if names not in (["batch", "channel", "y", "x"], ["batch", "channel", "z", "y", "x"]):
        raise ModelError(
            f"axes must be batch, channel, z (of volumes), y, x; those of {tensor.get('id')!r} "
            f"are {', '.join(map(str, names))}"
        )
    return axes[2:]


def _size(axis: Mapping[str, Any]) -> tuple[int, int]:
    size = axis.get("size")
    least, step = (size, 0) if isinstance(size, int) else (entry(axis, "size", "min"), None)
    step = entry(axis, "size", "step") if step is None else step
    if not (isinstance(least, int) and isinstance(step, int) and 0 < least <= 4096 and step >= 0):
        raise ModelError(
            f"sizes must be a number or min and step, up to 4096; axis {axis.get('id')} has {size}"
        )
    return least, step


def read_preprocessing(
    tensor: Mapping[str, Any], dimensions: int
) -> tuple[Preprocessing, list[nn.Module]]:
    """Split what is done to intensities: for a whole volume, and then in each tile.

    Returns
    -------
    preprocessing : Preprocessing
        Of the volume, to -1..1.
    steps : list of nn.Module
        From -1..1 to what the network takes.

    Raises
    ------
    ModelError
        If a step is unknown, or needs the stored intensities.
    """
    steps = [s for s in tensor.get("preprocessing") or [] if entry(s, "id") != "ensure_dtype"]
    first = entry(steps[0], "id") if steps else None
    done = entry(steps[0], "kwargs") or {} if steps else {}
    if first not in {"scale_range", "zero_mean_unit_variance"}:
        raise ModelError(
            f"intensities must first be scaled by scale_range or zero_mean_unit_variance, found "
            f"{first}: volumes of any intensities could not be fed otherwise"
        )
    needed = set("zyx"[-dimensions:])
    if done.get("axes") is not None and not needed <= set(map(str, done["axes"])):
        raise ModelError(f"intensities must be scaled over {sorted(needed)}, found {done['axes']}")
    preprocessing, modules = Preprocessing(), list[nn.Module]()
    if first == "scale_range":
        low, high = done.get("min_percentile", 0.0), done.get("max_percentile", 100.0)
        preprocessing = Preprocessing((float(low), float(high)))
        modules.append(Affine(0.5, 0.5))
    else:
        modules.append(Standardise(float(done.get("eps", 1e-6))))
    return preprocessing, modules + [_step(s) for s in steps[1:]]


def _step(step: Mapping[str, Any]) -> nn.Module:
    """Build what a step does to intensities that are scaled already."""
    kind, kwargs = entry(step, "id"), entry(step, "kwargs") or {}
    try:
        if kind == "scale_linear" and "axis" not in kwargs:
            return Affine(kwargs.get("gain", 1.0), kwargs.get("offset", 0.0))
        if kind == "clip" and not {"min_percentile", "max_percentile"} & set(kwargs):
            low, high = kwargs.get("min"), kwargs.get("max")
            return Clip(-1e38 if low is None else low, 1e38 if high is None else high)
    except (TypeError, ValueError):
        pass
    raise ModelError(f"volseg does not do this to intensities: {kind} with {kwargs}")


def read_postprocessing(tensor: Mapping[str, Any]) -> bool:
    """Tell whether a network gives probabilities; else it gives logits.

    Raises
    ------
    ModelError
        If something else is done to what it gives.
    """
    steps = [entry(s, "id") for s in tensor.get("postprocessing") or []]
    steps = [s for s in steps if s != "ensure_dtype"]
    if steps not in ([], ["sigmoid"]):
        raise ModelError(f"what comes out may be followed by a sigmoid only, found {steps}")
    return not steps
