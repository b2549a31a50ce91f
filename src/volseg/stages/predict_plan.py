"""Plan a prediction: everything that decides the result, before anything is written."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from volseg.blocks import (
    AxisLattice,
    Grid,
    Lattice,
    full_roi,
    parse_roi,
    roi_size,
    whole_multiples,
)
from volseg.errors import ModelError
from volseg.handover import Handover
from volseg.io.arrays import ArraySpec, fit_spec
from volseg.io.volumes import Image, intensity_window, open_image, probabilities_path
from volseg.io.weights import Card, load_card
from volseg.models.inference import choose_device, choose_precision
from volseg.models.registry import find_architecture
from volseg.stages.engine import EngineOptions
from volseg.types import Zyx

FORMAT = 1
"""Raised whenever the same parameters come to mean another result."""
DEFAULT_BLOCK = (64, 512, 512)
SAME_SCALE = 0.1
"""Voxel sizes closer than this (relative) to the model's are taken as equal."""
FINEST = 0.2
"""Volume voxels per network voxel, at least: what thicker sections lack, no interpolation adds."""


@dataclass(frozen=True)
class PredictOptions:
    """What to predict, and how.

    Attributes
    ----------
    model : shipped name, or path of a safetensors file with its card.
    name : of the result.
    roi : ``z0:z1,y0:y1,x0:x1``; None is the whole volume.
    block : scheduled unit, rounded up to whole shards.
    shard, chunk : of the result; None chooses.
    device, precision : see `volseg.models.inference`.
    engine : workers and scheduler.
    overwrite : replace a different result.
    """

    model: str = "emnet"
    name: str = "mitochondria"
    roi: str | None = None
    block: Zyx | None = None
    shard: Zyx | None = None
    device: str = "auto"
    precision: str = "auto"
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False


@dataclass(frozen=True)
class PredictPlan:
    """A run that has been thought through, of which nothing has been written yet."""

    image: Image
    card: Card
    level: int
    handover: Handover
    spec: ArraySpec
    output: Path
    header: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles that an uninterrupted run evaluates."""
        roi = self.handover.roi
        axes = zip(self.handover.lattice.axes, roi, strict=True)
        return math.prod(len(a.reaching(s.start, s.stop)) for a, s in axes)

    @property
    def voxels(self) -> int:
        """Number of voxels that the run writes."""
        return roi_size(self.handover.roi)


def plan_prediction(volume: Path, options: PredictOptions) -> PredictPlan:
    """Decide everything that a run depends on; read metadata only.

    Raises
    ------
    VolumeError, ModelError, ParameterError
        If the volume, the model or an option cannot be used.
    """
    image, card = open_image(volume), load_card(options.model)
    shape = image.levels[0].shape
    scales, notes = network_scales(image, card)
    spec = fit_spec(shape, "uint8")
    if options.shard is not None:
        spec = replace(spec, shard=options.shard, chunk=options.shard)
    handover = Handover(
        Grid(shape, whole_multiples(options.block or DEFAULT_BLOCK, spec.shard)),
        build_lattice(shape, card, scales),
        parse_roi(options.roi, shape) if options.roi else full_roi(shape),
    )
    device = choose_device(options.device)
    level = nearest_level(image, scales)
    header = {
        "format": FORMAT,
        "raw": image.attributes.get("fingerprint"),
        "model": card.sha256,
        "window": intensity_window(image, *card.percentiles),
        "level": level,
        "lattice": [asdict(a) for a in handover.lattice.axes],
        "roi": [[s.start, s.stop] for s in handover.roi],
        "block": handover.grid.size,
        "shard": spec.shard,
        "device": device.type,
        "precision": str(choose_precision(options.precision, device)).removeprefix("torch."),
    }
    output = probabilities_path(volume, options.name)
    return PredictPlan(
        image, card, level, handover, spec, output, json.loads(json.dumps(header)), notes
    )


def network_scales(image: Image, card: Card) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Find how many voxels of the volume make one of the network's, along each axis.

    Returns
    -------
    scales : three floats
        Exactly 1 where the sizes agree; never below `FINEST`.
    notes : tuple of str
        What the user should know.
    """
    if image.voxel_size is None:
        size = ", ".join(f"{v:g}" for v in card.voxel_size)
        return (1.0, 1.0, 1.0), (
            (
                f"the voxel size is unknown and taken as the model's, {size} nm; convert with "
                f"--voxel-size if it is another"
            ),
        )
    ratios = [m / v for m, v in zip(card.voxel_size, image.voxel_size, strict=True)]
    scales = tuple(1.0 if abs(r - 1) <= SAME_SCALE else max(r, FINEST) for r in ratios)
    notes = []
    if max(max(r, 1 / r) for r in ratios) > 2:
        notes.append(
            f"the voxels measure {image.voxel_size} nm, the model was trained at "
            f"{card.voxel_size} nm: beyond a factor of 2, check the result closely"
        )
    return scales, tuple(notes)


def nearest_level(image: Image, scales: tuple[float, ...]) -> int:
    """Choose the pyramid level whose voxels are nearest to the network's."""

    def distance(level: int) -> float:
        pairs = zip(image.factors[level], scales, strict=True)
        return sum(abs(math.log(f / s)) for f, s in pairs)

    return min(range(len(image.levels)), key=distance)


def build_lattice(shape: Zyx, card: Card, scales: tuple[float, ...]) -> Lattice:
    """Lay the model's tiles over a volume, no larger than the volume asks for.

    Raises
    ------
    ModelError
        If the card's tile does not lie on the network's lattice.
    """
    multiple = find_architecture(card.architecture).multiple
    axes = []
    for n, tile, overlap, stride, m, scale in zip(
        shape, card.tile, card.overlap, card.stride, multiple, scales, strict=True
    ):
        if tile % m or overlap % stride or (tile - overlap) % stride:
            raise ModelError(
                f"tiles must be multiples of {m} and overlaps multiples of {stride} voxels, the "
                f"card says {tile} and {overlap}"
            )
        needed = -(-math.ceil(n / scale + 2 * overlap) // m) * m
        axes.append(AxisLattice(n, min(tile, max(needed, 2 * overlap)), overlap, scale))
    return Lattice((axes[0], axes[1], axes[2]))
