"""Find the best precision of voxels at a recall, with weights that never saw a set.

    python studies/precision_at_recall.py --data annotated --set ncmir WEIGHTS WEIGHTS

``annotated`` is that of leave_one_out.py, which made the weights; of ``ncmir`` the validation
region is looked at. Each network segments once, with flips. Then objects are found by every
threshold and largest section that are listed below, and those that are brighter than a part of the
tissue's range are dropped (``apply --keep "brightness<0.4"``), or not. Prints one JSON object for
each network and brightness: the best precision at the recall that is asked for, and its rules.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotated import SETS, scores_of, sets_in, stacked
from numpy.typing import NDArray

import volseg
from volseg.defaults import NAME

THRESHOLDS = (0.08, 0.1, 0.11, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.4, 0.5)
SECTIONS = (1.5, 2.0, 2.5, None)
MIN_PROBABILITY = 0.2
BRIGHTEST = (None, 0.45, 0.4)


def score(
    volume: Path, truth: Path, brightness: NDArray[Any], brightest: float | None
) -> Mapping[str, float]:
    """Compare the objects that are not too bright with the truth."""
    name = NAME
    if brightest is not None and (brightness >= brightest).any():
        volseg.apply(volume, keep=[f"brightness<{brightest}"], overwrite=True)
        name = f"{NAME}-corrected"
    return scores_of(volseg.evaluate(volume, truth=truth, name=name, min_size=None), 3)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="paths of .safetensors files")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=tuple(SETS), default="ncmir")
    parser.add_argument("--recall", type=float, default=0.8)
    arguments = parser.parse_args()
    chosen = sets_in(arguments.data)[arguments.set]
    places = chosen.more or (chosen.raw, chosen.labels)
    for model in arguments.models:
        best: dict[float | None, dict[str, Any]] = {brightest: {} for brightest in BRIGHTEST}
        with tempfile.TemporaryDirectory() as scratch:
            raw, truth = (stacked(arguments.data / p, Path(scratch)) for p in places)
            volume = Path(scratch) / "vol.zarr"
            volseg.convert(raw, volume, voxel_size=chosen.voxel_size)
            volseg.segment(volume, model=model, views="xy", tta=True)
            for threshold, section in itertools.product(THRESHOLDS, SECTIONS):
                rules = {"threshold": threshold, "max_section_um2": section}
                volseg.label(volume, min_probability=MIN_PROBABILITY, overwrite=True, **rules)
                brightness = volseg.stats(volume).columns["brightness"]
                for brightest, known in best.items():
                    found = score(volume, truth, brightness, brightest)
                    enough = found["recall"] >= arguments.recall
                    if enough and found["precision"] > known.get("precision", 0):
                        best[brightest] = {**found, **rules}
        for brightest, known in best.items():
            row = {"model": model, "brightness below": brightest, **known}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
