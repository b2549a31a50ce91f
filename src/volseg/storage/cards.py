"""Cards: the JSON beside weights that says what is needed to use them, and to trust them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import ModelError, ParameterError, VoxelSizeError
from volseg.fields import as_json, read_fields
from volseg.models.maps import OFFSETS, WIDEST, MapSpec, check_maps, count_outputs
from volseg.storage.files import replacing
from volseg.storage.locations import parse_path
from volseg.storage.stores import parse_json
from volseg.types import VoxelSize, Zyx
from volseg.voxels.intensity import Preprocessing

if TYPE_CHECKING:
    from volseg.models.registry import Architecture

UNSTATED = "not stated"
"""Stands in a card for terms that nobody told."""
CARD_BYTES = 1 << 20
"""A card is read into memory whole, so one that is larger than this is refused."""

OPTIONAL: Mapping[str, Any] = {
    "min_size": 0,
    "min_probability": 0.0,
    "faint_size": 0,
    "median_nm": 0.0,
    "tissue": {},
    "ranges": {},
    "maps": [],
    "splitting": {},
}
"""Entries that a card may leave out."""
BOUNDS: Mapping[str, tuple[float, float]] = {
    "width": (1, WIDEST),
    "parameters": (1, math.inf),
    "voxel_size": (1e-6, 1e9),
    "tile": (1, 4096),
    "overlap": (0, 4096),
    "stride": (1, 4096),
    "threshold": (sys.float_info.min, 1 - sys.float_info.epsilon),
    "min_size": (0, 1 << 48),
    "min_probability": (0, 1),
    "faint_size": (0, 1 << 48),
    "median_nm": (0, 1e6),
    "sure": (sys.float_info.min, 1),
    "contour": (sys.float_info.min, 1),
    "fewest": (0, 1 << 48),
    "votes": (sys.float_info.min, 1 << 48),
    "reach_nm": (0, 1e12),
}
"""The least and the most that numbers of a card, or each of their axes, may be."""


@dataclass(frozen=True)
class _Splitting:
    """Settings by which objects are split that a card may name of a class."""

    sure: float
    contour: float
    fewest: float
    votes: float
    voxel_size: VoxelSize


@dataclass(frozen=True)
class Card:
    """Facts needed to use weights, and to trust them.

    Attributes
    ----------
    name, architecture, width : which network.
    parameters : number of trainable parameters.
    sha256 : of the safetensors file.
    voxel_size : nm (z, y, x) of the images that the network was trained on.
    preprocessing : of intensities, see `volseg.voxels.intensity.Preprocessing`.
    tile : network voxels that are evaluated at once.
    overlap : network voxels that neighbouring tiles share, (z, y, x): the halo.
    stride : tile origins are multiples of it.
    threshold : probability from which a voxel is foreground.
    min_size : objects of fewer voxels, of ``voxel_size``, are dropped; 0 where none is known.
    min_probability : objects of a lower mean probability are dropped; 0 where none is known.
    faint_size : objects of more voxels are kept whatever their mean; 0 where none are.
    median_nm : how far apart slices are whose median is taken, see ``volseg label --median``; 0
        for none.
    training : data, terms, recipe and seeds.
    scores : what was measured, each with what it was measured on.
    tissue : how the training data look to the network, see `volseg.scores.likeness`; empty if
        that is unknown.
    ranges : least and largest input of each convolution, for evaluation in int8; empty where that
        has not been measured.
    maps : what the network gives; empty for one class, and the centerlines of architectures that
        have them. Rules for objects of the first class stand in the card itself.
    splitting : by the name of a class, how its objects that touch are told apart.
    """

    name: str
    architecture: str
    width: int
    parameters: int
    sha256: str
    voxel_size: VoxelSize
    preprocessing: Preprocessing
    tile: Zyx
    overlap: Zyx
    stride: Zyx
    threshold: float
    min_size: int
    min_probability: float
    faint_size: int
    median_nm: float
    training: Mapping[str, Any]
    scores: Mapping[str, Any]
    tissue: Mapping[str, Any]
    ranges: Mapping[str, tuple[float, float]]
    maps: tuple[MapSpec, ...]
    splitting: Mapping[str, Any]

    @property
    def outputs(self) -> int:
        """Number of maps that the network's head gives."""
        return count_outputs(self.maps)

    @property
    def form(self) -> Architecture:
        """Form of the network: how it is built, and which tiles it takes."""
        from volseg.models.registry import find_architecture  # heavy: it loads PyTorch

        return find_architecture(self.architecture)

    def rules_of(self, place: int) -> MapSpec | Card:
        """Return what holds the rules for objects of a class: the card, for the first."""
        return self.maps[place] if place else self

    def splitting_of(self, place: int) -> Mapping[str, Any]:
        """Return how objects of a class that touch are told apart; empty if that is unknown."""
        name = self.maps[place].name if self.maps else ""
        found = self.splitting.get(name)
        return found if isinstance(found, Mapping) else {}


def shipped_models() -> list[str]:
    """List the models that come with volseg."""
    folder = files("volseg") / "weights"
    return sorted(
        f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")
    )


def find_weights(model: str | Path) -> Path:
    """Find a model's safetensors file by its shipped name or its path."""
    path = parse_path(model)
    if path.suffix in {".safetensors", ".json"}:
        if path.with_suffix(".safetensors").is_file():
            return path.with_suffix(".safetensors")
        raise ModelError(f"there are no weights at {path.with_suffix('.safetensors')}")
    shipped = shipped_models()
    if str(model) in shipped:
        return Path(str(files("volseg") / "weights" / f"{model}.safetensors"))
    raise ModelError(
        f"no model is called {str(model)!r}; shipped: {', '.join(shipped) or 'none'}; your own "
        f"weights are named by the path of their .safetensors file"
    )


def load_card(model: str | Path) -> Card:
    """Read the card of a model, by its shipped name or its path."""
    path = find_weights(model).with_suffix(".json")
    try:
        if path.stat().st_size > CARD_BYTES:
            raise ModelError(f"{path} has more than {CARD_BYTES} bytes: this is no card")
        content = parse_json(path.read_text(encoding="utf-8"))
        return read_card(content)
    except OSError as error:
        raise ModelError(f"weights need a card beside them; cannot read {path}") from error
    except (ValueError, TypeError, OverflowError, ParameterError) as error:
        raise ModelError(f"{path} is not a valid card: {error}") from error


def read_card(content: Any) -> Card:
    """Read a card from what JSON holds; a ValueError says what is wrong."""
    given = {**OPTIONAL, **content} if isinstance(content, dict) else content
    named = read_fields(Card, given, "card")
    known = {f.name for f in fields(Card)} - set(named)
    # cards from before slices could be looked at by themselves do not say that they are not
    told = {"each", *given.get("preprocessing", ())}
    partial = {f.name for f in fields(Preprocessing)} - told
    if lacking := sorted(known or partial):
        raise ValueError(f"it lacks {', '.join(lacking)}")
    card = Card(**named)
    check_maps(card.maps)
    if any(m.kind in OFFSETS and not 0 < m.reach_nm < math.inf for m in card.maps):
        raise ValueError("maps of offsets need a reach_nm above 0")
    _check_bounds(vars(card))
    for each in card.maps:
        _check_bounds(vars(each))
    for name, found in card.splitting.items():
        if not isinstance(found, dict):
            raise ValueError(f"splitting.{name} is a table of settings, found {found!r}")
        seeds = {k: v for k, v in found.items() if k in _Splitting.__annotations__}
        _check_bounds(read_fields(_Splitting, seeds, f"card.splitting.{name}"))
    return card


def _check_bounds(found: Mapping[str, Any]) -> None:
    for name, (low, high) in BOUNDS.items():
        value = found.get(name, low)
        if not all(low <= v <= high for v in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{name} must lie between {low:g} and {high:g}, found {value}")


def check_voxel_size(size: VoxelSize) -> None:
    """Refuse a size of voxels that a card cannot state, before a network is trained for it."""
    try:
        _check_bounds({"voxel_size": size})
    except ValueError as error:
        raise VoxelSizeError(f"{error} nm") from error


def sizes_of_objects(card: Card) -> dict[str, Any]:
    """Describe the sizes of objects that rules of a card name, for the record of a result."""
    sizes = {"min_size": card.min_size, "faint_size": card.faint_size}
    named = {name: size for name, size in sizes.items() if size}
    return {**named, "voxel_size": list(card.voxel_size)} if named else {}


def update_card(path: Path, changed: Mapping[str, Any]) -> Card:
    """Replace some fields of the card beside weights."""
    place = path.with_suffix(".json")
    complete = read_card(as_json({**asdict(load_card(path)), **changed}))
    with replacing(place) as file:
        file.write((json.dumps(asdict(complete), indent=1) + "\n").encode())
    return complete
