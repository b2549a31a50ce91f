"""Export of trained weights, with the card that is needed to use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from volseg import __version__
from volseg.models.registry import Architecture, count_parameters
from volseg.stages.train.data import TrainingData
from volseg.stages.train.state import Run
from volseg.storage.weights import save_weights
from volseg.types import Zyx

PATCH: Zyx = (32, 96, 96)
"""Networks that saw patches of this size at least are evaluated in full tiles."""
TILES: dict[int, tuple[Zyx, Zyx]] = {
    2: ((8, 512, 512), (0, 64, 64)),
    3: ((80, 160, 160), (16, 32, 32)),
}
"""Tile and overlap, by the network's dimensions; see docs/models/emnet.md for what smaller tiles
cost."""


@dataclass(frozen=True)
class Export:
    """Writes the averaged weights of a run, and their card.

    Attributes
    ----------
    path : of the safetensors file.
    data : what was learned from.
    terms : under which the data may be used.
    origin : the weights that the run started from, if any.
    """

    path: Path
    data: TrainingData
    terms: str
    origin: Mapping[str, Any] | None = None

    def __call__(self, run: Run) -> None:
        """Write them as they are now, with the run's best row as their score.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        best, config = run.best or {}, run.config
        tile, overlap = choose_tiles(run.form, config.patch)
        card = {
            "name": self.path.stem,
            "architecture": config.architecture,
            "width": config.width,
            "parameters": count_parameters(run.averaged),
            "voxel_size": list(self.data.voxel_size),
            "preprocessing": asdict(self.data.preprocessing),
            "tile": list(tile),
            "overlap": list(overlap),
            "stride": list(run.form.stride),
            "threshold": best["threshold"],
            "training": {
                "data": {str(k): entry for k, entry in enumerate(self.data.description, 1)},
                "terms": self.terms,
                "seeds": [config.seed],
                "steps": run.step,
                "minutes": best["minutes"],
                "from": dict(self.origin) if self.origin else "chance",
                "recipe": asdict(config),
                "volseg": __version__,
            },
            "scores": {
                "validation Jaccard": best["jaccard"],
                "measured on": f"{describe_held_out(self.data.description)}, held out, at the best "
                f"threshold and the best of the run's validations",
            },
        }
        save_weights(self.path, run.averaged.state_dict(), card)


def describe_held_out(description: Sequence[Mapping[str, Any]]) -> str:
    """Describe the data of the validation.

    Examples
    --------
    >>> describe_held_out([{"volume": "a.zarr", "validation": ["0:9,0:9,0:9"]}])
    'a.zarr 0:9,0:9,0:9'
    """
    named = []
    for entry in description:
        for k, box in enumerate(entry["validation"]):
            slices = entry.get("validation slices")
            count = f" ({len(slices[k])} of its slices)" if slices else ""
            named.append(f"{entry['volume']} {box}{count}")
    return ", ".join(named)


def choose_tiles(form: Architecture, patch: Zyx) -> tuple[Zyx, Zyx]:
    """Choose tile and overlap for inference; smaller ones for networks that saw small patches.

    Examples
    --------
    >>> from volseg.models.registry import find_architecture
    >>> form = find_architecture("emnet")
    >>> choose_tiles(form, (32, 96, 96)), choose_tiles(form, (16, 48, 48))
    (((80, 160, 160), (16, 32, 32)), ((40, 80, 80), (8, 16, 16)))
    """
    full, shared = TILES[form.dimensions]
    tile, overlap = [], []
    for k in range(3):
        part = min(patch[k] / PATCH[k], 1.0) if form.dimensions == 3 else 1.0
        multiple, stride = form.multiple[k], form.stride[k]
        offset = form.offset[k]
        tile.append(max((int(full[k] * part) - offset) // multiple, 1) * multiple + offset)
        wanted = min(int(shared[k] * part), tile[k] // 2)
        overlap.append(wanted // stride * stride + offset)
    return (tile[0], tile[1], tile[2]), (overlap[0], overlap[1], overlap[2])
