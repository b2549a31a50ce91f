"""Training data: images, their labels, and the slices for training and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.engine.progress import NoProgress, Progress
from volseg.errors import ParameterError, VolumeError, VoxelSizeError
from volseg.geometry.grid import describe, roi_size
from volseg.models.registry import find_architecture
from volseg.stages.train.foreground import check_foreground, refuse_image
from volseg.stages.train.regions import Pair, Part, Regions, Share, choose_parts
from volseg.stages.train.sources import Annotated, check_named, open_pair, within_images
from volseg.storage.cards import check_voxel_size
from volseg.training.annotation import check_classes, iterate_slices
from volseg.training.centerline import object_proximity
from volseg.training.config import TrainConfig
from volseg.training.network import learns_centerlines
from volseg.training.sampling import SAMPLE, Source, count_classes, find_foreground
from volseg.types import VoxelSize
from volseg.voxels.intensity import Preprocessing

ISOTROPIC = 1.2
"""Voxels whose sides differ by less than this factor are rotated in all directions."""
MOST_LINES = 1 << 29
"""Voxels of a region whose closeness to centerlines is held, in two bytes each."""
SAME_SIZE = 0.1
"""Voxel sizes closer than this (relative) are taken as equal."""
NO_SIZE: VoxelSize = (1.0, 1.0, 1.0)
"""Recorded in a card for images of unknown pixel size."""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation data of a run.

    Attributes
    ----------
    voxel_size : nm (z, y, x) that the network sees.
    description : everything about each pair that decides the result, JSON-like.
    """

    training: tuple[Source, ...]
    validation: tuple[Source, ...]
    voxel_size: VoxelSize
    preprocessing: Preprocessing
    description: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()
    images: bool = False

    @property
    def voxels(self) -> int:
        """Number of voxels that are trained on."""
        return sum(source.annotated for source in self.training)


def open_training_data(
    pairs: Sequence[Pair],
    config: TrainConfig,
    voxel_size: VoxelSize | None = None,
    progress: Progress | None = None,
) -> TrainingData:
    """Open images and labels; read the labels once, to find the foreground.

    Images without a histogram are read once too, to count their intensities.
    """
    if not pairs:
        raise ParameterError("there is nothing to train on; name a volume and its --labels")
    _check_shares(pairs)
    opened = [open_pair(pair, pair.voxel_size or voxel_size, config) for pair in pairs]
    check_named(opened)
    pairs = [annotated.pair for annotated in opened]
    images = any(pair.images for pair in pairs)
    if images:
        look = replace(config.preprocessing, each=True)
        config = replace(config, preprocessing=look)
    planar = find_architecture(config.architecture).dimensions == 2
    if images and not planar:
        raise ParameterError(
            "unrelated images (--images) have no z, and this network looks along z; choose a 2D "
            "--architecture, such as unet2d"
        )
    size, notes = _agree_on_size(opened, voxel_size, config.resample_to)
    notes += tuple(note for annotated in opened for note in annotated.notes)
    hold_out = not any(pair.held_out for pair in pairs)
    training: list[Source] = []
    validation: list[Source] = []
    description = []
    for annotated in [a.counted(progress or NoProgress()) for a in opened]:
        place = annotated.pair, annotated.region, annotated.shape
        every = choose_parts(*place, Share(), hold_out=hold_out)
        labels = hash_annotated(annotated, (*every.training, *every.validation))
        _check_fingerprints(annotated, labels)
        regions = choose_parts(*place, Share(config.fraction, config.seed), hold_out=hold_out)
        ours, held = (
            [_source(annotated, part, size, config, planar=planar) for part in parts]
            for parts in (regions.training, regions.validation)
        )
        training += _weighted([source for source, _ in ours], annotated.pair.share)
        validation += [within_images(source) for source, _ in held]
        counts = [count for _, count in ours], [count for _, count in held]
        description.append(_describe(annotated, labels, regions, counts, config))
        if len(config.classes) < 2:
            refuse_image(description[-1]["labels"], ours)
    check_foreground(description, training, validation)
    names = [m.name for m in config.maps if m.is_class]
    notes += check_classes(names, count_classes(training), count_classes(validation))
    sources = tuple(training), tuple(validation)
    return TrainingData(*sources, size, config.preprocessing, tuple(description), notes, images)


def _check_shares(pairs: Sequence[Pair]) -> None:
    """Check that all pairs to train on have a share, or none."""
    shares = [pair.share for pair in pairs if not pair.held_out]
    given = [share for share in shares if share is not None]
    if given and (len(given) < len(shares) or not all(0 < share < np.inf for share in given)):
        raise ParameterError(
            f"give every pair a share above 0, or none; found {', '.join(map(str, shares))}"
        )


def _agree_on_size(
    opened: Sequence[Annotated], stated: VoxelSize | None, wanted: VoxelSize | None
) -> tuple[VoxelSize, tuple[str, ...]]:
    """Find the voxel size that the network sees, in nm (z, y, x), and what the user should know."""
    for given in (stated, wanted, *(annotated.voxel_size for annotated in opened)):
        if given is not None:
            check_voxel_size(given)
    if wanted is None and stated is not None:
        return stated, ()
    known = [(a.pair.raw, a.voxel_size) for a in opened if a.voxel_size is not None]
    for annotated in opened:
        if annotated.voxel_size is None and not annotated.pair.images:
            raise VoxelSizeError(
                f"the voxel size of {annotated.pair.raw} is unknown, and a network is of use only "
                f"at the size it was trained at; give --voxel-size Z,Y,X in nm"
            )
    if wanted is not None:
        return wanted, ()
    if not known:
        note = (
            "the images' pixel size is unknown, so the weights' card says 1 nm; give "
            "--voxel-size Z,Y,X in nm, if you know it"
        )
        return NO_SIZE, (note,)
    first, size = known[0]
    for path, other in known[1:]:
        if any(abs(a / b - 1) > SAME_SIZE for a, b in zip(other, size, strict=True)):
            raise VoxelSizeError(
                f"{path} has voxels of {other} nm, {first} of {size} nm: say with --resample-to at "
                f"which size the network is to see them, or with --voxel-size which one all have"
            )
    return size, ()


def _source(
    annotated: Annotated, part: Part, size: VoxelSize, config: TrainConfig, *, planar: bool
) -> tuple[Source, int]:
    layers = annotated.classes or (annotated.labels,)
    given = [config.map_weights.get(m.name, 1.0) for m in config.maps if m.is_class]
    weights = given if any(given) else [1.0] * len(layers)
    found = [  # fewer patches are centred on what weighs less; one voxel is left to draw
        find_foreground(layer, part.roi, part.slices, max(round(SAMPLE * w / max(weights)), 1))
        for layer, w in zip(layers, weights, strict=True)
    ]
    positions, counts = np.concatenate([p for p, _ in found]), tuple(n for _, n in found)
    # without another wish one size for all, within a tenth or as the user says
    own = size if config.resample_to is None else annotated.voxel_size or size
    z, y, x = (nm / have for nm, have in zip(size, own, strict=True))
    # a patch is turned out of the plane where that changes neither what is stored nor what is seen
    isotropic = all(max(sides) / min(sides) < ISOTROPIC for sides in (own, size))
    # networks of slices see those that there are
    apart = planar and (not isotropic or part.slices is not None)
    source = Source(
        annotated.raw,
        layers[0],
        part.roi,
        annotated.tone(config.preprocessing),
        positions,
        isotropic=isotropic,
        slices=part.slices,
        planar=planar,
        scale=(1.0 if apart else z, y, x),
        depth=1 / z if apart else 1.0,
        apart=annotated.apart(config.preprocessing),
        size=size,
        counts=counts,
    )
    source = replace(source, lines=find_lines(source, config))
    targets = annotated.targets(config, own, min(size[1:] if planar else size), flat=planar)
    if targets is not None:
        source = replace(source, labels=targets, targets=targets)
    return source, max(counts)


def find_lines(source: Source, config: TrainConfig) -> NDArray[np.float16] | None:
    """Score closeness to the centerlines of whole objects, where all slices are annotated.

    Objects are connected parts of the foreground, as not all forms of labels keep numbers. Of what
    is larger than `MOST_LINES`, patches are scored one by one.
    """
    whole = source.slices is None and roi_size(source.roi) <= MOST_LINES
    if not whole or not learns_centerlines(config):
        return None
    z, y, x = (nm / k for nm, k in zip(source.size, source.scale, strict=True))
    profile = config.centerline_alpha, config.centerline_reach_nm, (z, y, x)
    return object_proximity(np.asarray(source.labels[source.roi]) > 0, *profile)


def _weighted(sources: list[Source], share: float | None) -> list[Source]:
    """Divide the share of a pair, if it has one, among its sources."""
    if share is None:
        return sources
    voxels = sum(source.annotated for source in sources)
    return [replace(s, weight=share * s.annotated / voxels) for s in sources]


def _check_fingerprints(annotated: Annotated, labels: str) -> None:
    """Check that the data equal those of the run to repeat."""
    pair = annotated.pair
    for name, found, expected in (
        (str(pair.raw), annotated.fingerprint, pair.raw_fingerprint),
        (pair.labels, labels, pair.labels_fingerprint),
    ):
        if expected is not None and found != expected:
            raise VolumeError(
                f"{name} is not what the recipe was made with: its fingerprint is "
                f"{str(found)[:12]}..., expected {expected[:12]}...; name the data on the command "
                f"line to train on these"
            )


def _describe(
    annotated: Annotated,
    labels: str,
    regions: Regions,
    counts: tuple[Sequence[int], Sequence[int]],
    config: TrainConfig,
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "volume": annotated.names[0],
        "raw": annotated.fingerprint,
        "labels": annotated.names[1],
        "labels hash": labels,
        "window": list(annotated.tone(config.preprocessing).window),
    }
    if config.resample_to is not None and annotated.voxel_size is not None:
        described["voxel size"] = list(annotated.voxel_size)
    if annotated.pair.foreground is not None:
        described["foreground"] = annotated.pair.foreground
    if annotated.pair.share is not None:
        described["share"] = annotated.pair.share
    for name, chosen, found in (
        ("training", regions.training, counts[0]),
        ("validation", regions.validation, counts[1]),
    ):
        described[name] = [describe(part.roi) for part in chosen]
        described[f"{name} foreground"] = list(found)
        if any(part.slices is not None for part in chosen):
            described[f"{name} slices"] = [
                p.slices.tolist() for p in chosen if p.slices is not None
            ]
    return described


def hash_annotated(annotated: Annotated, parts: Sequence[Part]) -> str:
    """Hash what is used of a pair's labels, as hexadecimal text; of one class, the foreground."""
    digest = hashlib.sha256()
    for labels, part in product(annotated.classes or (annotated.labels,), parts):
        for z, plane in iterate_slices(labels, part.roi, part.slices):
            found = plane.astype("<i8") if annotated.classes else np.packbits(plane > 0)
            digest.update(z.to_bytes(8, "little") + found.tobytes())
    return digest.hexdigest()
