"""Score weights on slices that training did not see, and on two other microscopes' data.

    python studies/score_weights.py --data annotated emnet weights/unet2d/unet2d.safetensors

``annotated`` holds lucchi_pp/, vnc/ and ncmir/, each with raw and label TIFFs; they are not part of
the project (docs/models/emnet.md says whose they are). Of vnc and ncmir a quarter is looked at. The
voxel size of ncmir is not known and taken as 48 x 16 x 16 nm: at 16 to 18 nm its mitochondria are
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

from volseg.engine.memory import keep_freed_memory
from volseg.engine.progress import NoProgress
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.evaluate.plan import EvaluateOptions, plan_evaluation
from volseg.stages.evaluate.run import evaluate
from volseg.stages.predict.network import PredictOptions
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.storage.weights import find_weights, load_card
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
)


def score(
    model: str, place: Annotated, data: Path, scratch: Path, least: float | None = None
) -> dict[str, float]:
    """Segment and evaluate one volume with one model; again by another rule it is labelled only."""
    volume = scratch / f"{Path(place.raw).parent.name}.zarr"
    if not volume.exists():
        given = ConvertOptions(voxel_size=place.voxel_size)
        with plan_conversion(str(data / place.raw), volume, given) as plan:
            convert(plan, NoProgress())
    name = load_card(model).name
    begun = time.monotonic()
    prediction = PredictOptions(model=model, name=name, roi=place.roi, overwrite=True)
    segment(
        plan_segmentation(volume, SegmentOptions(prediction, min_probability=least)), NoProgress()
    )
    seconds = time.monotonic() - begun
    compared = EvaluateOptions(str(data / place.labels), name=name, roi=place.roi, min_size=0)
    found = evaluate(plan_evaluation(volume, compared), NoProgress())
    best = found.curves.best_jaccard if found.curves else float("nan")
    return {
        "Jaccard": round(found.foreground.jaccard, 4),
        "precision": round(found.foreground.precision, 4),
        "recall": round(found.foreground.recall, 4),
        "Jaccard at the best threshold": round(best, 4),
        "objects": found.objects.predicted,
        "matched": found.objects.matched,
        "truth": found.objects.truth,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Print a line for each model and volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="shipped names or paths of .safetensors files")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--min-probability", help="P,P,... in place of the card's")
    parser.add_argument("--write", action="store_true", help="put the scores into the cards")
    arguments = parser.parse_args()
    rules = arguments.min_probability
    if rules and arguments.write:
        parser.error("cards hold scores by their own rules: leave out --min-probability or --write")
    tried = [float(p) for p in rules.split(",")] if rules else [None]
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models:
            scores = {}
            for place, least in itertools.product(PLACES, tried):
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
