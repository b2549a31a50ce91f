"""Score weights on slices that training did not see, and on two other microscopes' data.

    python studies/score_weights.py --data annotated emnet weights/unet2d/unet2d.safetensors

``annotated`` holds lucchi_pp/, vnc/ and ncmir/, each with raw and label TIFFs; they are not part of
the project (docs/models/emnet.md says whose they are). Of vnc and ncmir a quarter is looked at. The
files of ncmir state no voxel size. It is taken as 24 x 20 x 20 nm, by a catalogue, as everywhere
else, and as 48 x 16 x 16 nm, which cards have been scored at: at 16 to 18 nm its mitochondria are
as wide as those of the hippocampus (14 pixels, 250 nm; both are mouse brain), and neighbouring
slices resemble each other as pixels 3 apart do. The Jaccard index is that of the objects that are
kept; the one at the best threshold is of all voxels. With --write the scores go into the weights'
cards. To choose from which mean probability on objects count, compare several:

    python studies/score_weights.py --data annotated emnet --min-probability 0,0.8,0.85,0.9
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from annotated import scores_of

import volseg
from volseg.storage.cards import find_weights, load_card
from volseg.types import VoxelSize


@dataclass(frozen=True)
class Annotated:
    """A volume to score on."""

    title: str
    raw: str
    labels: str
    voxel_size: VoxelSize
    roi: str


PLACES = (
    Annotated(
        "lucchi_pp z 132-164, held out",
        "lucchi_pp/train_raw.tif",
        "lucchi_pp/train_labels.tif",
        (5.0, 5.0, 5.0),
        "132:165,:,:",
    ),
    Annotated(
        "vnc, a quarter, not trained on",
        "vnc/raw.tif",
        "vnc/labels.tif",
        (50.0, 4.6, 4.6),
        ":,0:512,0:512",
    ),
    Annotated(
        "ncmir validation, a quarter, not trained on, 48 x 16 x 16 nm estimated",
        "ncmir/validation_raw.tif",
        "ncmir/validation_labels.tif",
        (48.0, 16.0, 16.0),
        ":,0:256,0:256",
    ),
    Annotated(
        "ncmir validation, a quarter, not trained on, 24 x 20 x 20 nm",
        "ncmir/validation_raw.tif",
        "ncmir/validation_labels.tif",
        (24.0, 20.0, 20.0),
        ":,0:256,0:256",
    ),
)


def score(
    model: str, place: Annotated, data: Path, scratch: Path, least: float | None = None
) -> dict[str, float]:
    """Segment and evaluate one volume with one model; again by another rule it is labelled only."""
    size = "-".join(f"{side:g}" for side in place.voxel_size)
    volume = scratch / f"{Path(place.raw).parent.name}-{size}.zarr"
    if not volume.exists():
        volseg.convert(data / place.raw, volume, voxel_size=place.voxel_size)
    result = {"name": load_card(model).name, "roi": place.roi}
    begun = time.monotonic()
    volseg.segment(volume, model=model, min_probability=least, overwrite=True, **result)
    seconds = round(time.monotonic() - begun, 1)
    found = volseg.evaluate(volume, truth=data / place.labels, min_size=0, **result)
    return {**scores_of(found, 4), "seconds": seconds}


def main() -> None:
    """Print a line for each model and volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="shipped names or paths of .safetensors files")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--min-probability", help="P,P,... in place of the card's")
    parser.add_argument("--write", action="store_true", help="put the scores into the cards")
    parser.add_argument("--only", default="", help="volumes whose title holds this")
    arguments = parser.parse_args()
    rules = arguments.min_probability
    if arguments.write and (rules or arguments.only):
        parser.error("cards hold all scores by their own rules: give --write alone")
    tried = [float(p) for p in rules.split(",")] if rules else [None]
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models:
            scores = {}
            places = [place for place in PLACES if arguments.only in place.title]
            for place, least in itertools.product(places, tried):
                found = score(model, place, arguments.data, Path(scratch), least)
                rule = "" if least is None else f"from {least:g}: "
                print(f"{model}: {place.title}: {rule}{json.dumps(found)}", flush=True)
                scores[place.title] = {k: v for k, v in found.items() if k != "seconds"}
            if arguments.write:
                path = find_weights(model).with_suffix(".json")
                card = json.loads(path.read_text(encoding="utf-8"))
                card["scores"] = scores
                path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
