"""Export what was trained: weights and a card that says all that is needed to use them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from volseg import __version__
from volseg.io.weights import save_weights
from volseg.models.registry import count_parameters, find_architecture
from volseg.stages.train_data import PERCENTILES, TrainingData
from volseg.stages.train_loop import Run
from volseg.types import Zyx

TILE: Zyx = (80, 160, 160)
OVERLAP: Zyx = (16, 32, 32)
"""How exported weights are tiled; see docs/models/emnet.md for what smaller tiles cost."""


@dataclass(frozen=True)
class Export:
    """Writes the averaged weights of a run, and their card."""

    path: Path
    data: TrainingData
    terms: str

    def __call__(self, run: Run) -> None:
        """Write them as they are now, with the run's best row as their score.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        best = run.best or {}
        config, architecture = run.config, find_architecture(run.config.architecture)
        card = {
            "name": self.path.stem,
            "architecture": config.architecture,
            "width": config.width,
            "parameters": count_parameters(run.averaged),
            "voxel_size": list(self.data.voxel_size),
            "percentiles": list(PERCENTILES),
            "tile": list(TILE),
            "overlap": list(OVERLAP),
            "stride": list(architecture.stride),
            "threshold": best["threshold"],
            "training": {
                "data": self.data.description,
                "terms": self.terms,
                "seeds": [config.seed],
                "steps": run.step,
                "minutes": best["minutes"],
                "recipe": asdict(config),
                "volseg": __version__,
            },
            "scores": {
                "validation Jaccard": best["jaccard"],
                "measured on": f"{self.data.description['validation']}, held out, at the best "
                f"threshold and the best of the run's validations",
            },
        }
        save_weights(self.path, run.averaged.state_dict(), card)
