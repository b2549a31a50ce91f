"""Count what marking the objects that `teach` proposes brings, while the truth gives the answers.

    volseg segment vol.zarr --model WEIGHTS --views xy --threshold 0.5 --min-size 0 \
        --min-probability 0
    volseg stats vol.zarr --measure basic
    python studies/suspects.py vol.zarr --truth labels.tif

Ten clicks fall on the largest false sections of three slices; their objects are marked no. Then ten
suspects are marked, in each of some rounds: no if less than a quarter of an object is true, or yes.
Prints, of several choices of the three slices, which part of the false voxels of the other slices
lies in what is marked no, and how much of their true voxels does. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import full_roi
from volseg.sources.labels import LabelSource, open_label_path, open_labels
from volseg.stages.teach.show import propose_next, read_objects
from volseg.stages.teach.simulate import APART, click
from volseg.storage.volumes import open_image

NAME = "mitochondria"


def count_sections(labels: LabelSource, truth: LabelSource) -> NDArray[np.int64]:
    """Count the voxels of each object, false and true, by slice: shape (2, slices, objects)."""
    image = open_image(labels.path)
    found = np.zeros((2, labels.shape[0], int(image.attributes["objects"]) + 1), np.int64)
    for z in range(labels.shape[0]):
        roi = slice(z, z + 1), *full_roi(labels.shape)[1:]
        here, true = (source[roi] for source in (labels, truth))
        for kind in (0, 1):
            numbers = here[(true > 0) == bool(kind)]
            found[kind, z] = np.bincount(numbers, minlength=found.shape[2])
    return found


def mark_rounds(
    columns: Mapping[str, NDArray[Any]],
    clicked: Sequence[int],
    true_part: NDArray[np.float64],
    rounds: int,
) -> Iterator[NDArray[np.bool_]]:
    """Mark what is proposed, round by round; tell the rows that are marked no, before and after."""
    no, yes = np.isin(columns["label"], clicked), np.zeros(len(columns["label"]), bool)
    yield no
    for _ in range(rounds):
        asked = np.isin(columns["label"], [s.object for s in propose_next(columns, no, yes)])
        no, yes = no | (asked & (true_part < APART)), yes | (asked & (true_part >= APART))
        yield no


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=8, help="choices of the three slices")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    labels, truth = open_labels(arguments.volume, NAME), open_label_path(arguments.truth)
    columns = read_objects(arguments.volume, NAME)
    counts, depth = count_sections(labels, truth), labels.shape[0]
    whole = counts.sum(axis=1)[:, columns["label"]]
    found: dict[int, list[tuple[float, float]]] = {}
    for draw in range(arguments.draws):
        chosen = np.random.default_rng(draw).choice(depth, 3, replace=False).tolist()
        points = [p for p in click(labels, truth, chosen) if not p.yes]
        places = [[slice(c, c + 1) for c in point.place] for point in points]
        clicked = [int(labels[z, y, x].item()) for z, y, x in places]
        others = np.delete(counts, chosen, axis=1).sum(axis=1)
        false, true = others[0, columns["label"]], others[1, columns["label"]]
        marked = mark_rounds(columns, clicked, whole[1] / whole.sum(axis=0), arguments.rounds)
        for number, no in enumerate(marked):
            parts = false[no].sum() / false.sum(), true[no].sum() / others[1].sum()
            found.setdefault(number, []).append(parts)
    for number, rows in found.items():
        gone, lost = np.array(rows).T
        row = {
            "suspects": 10 * number,
            "false voxels gone, least, mean and most": [gone.min(), gone.mean(), gone.max()],
            "recall lost, mean and most": [lost.mean(), lost.max()],
        }
        print(json.dumps({k: np.round(v, 3).tolist() for k, v in row.items()}))


if __name__ == "__main__":
    main()
