r"""Train on all annotated data sets but one, and score on that one.

    python studies/leave_one_out.py --data annotated --leave vnc --output runs/without-vnc

``annotated`` holds lucchi_pp/, vnc/, ncmir/ and cardiac/, each with raw and label TIFFs; they are
not part of the project (docs/models/README.md says whose they are). ``--leave none`` trains on all
four: that is how the generalist is made. Training stops and resumes as ``volseg train`` does: the
same command goes on. Scores are printed as one JSON object per data set, for the whole of the set
that was left out, and for what the others held out: with all objects, and by the rules of the card,
which are the same for all of them (`RULES`). Cubic voxels are also looked at along three axes. Data
that `pack_data.py` packed do as well.

``--look-alikes`` trains by the second recipe: coarser pixels, patches drawn where the network is
wrong, painted things that look like mitochondria, and painted mitochondria, wide and side by side
as in muscle. It takes few steps from weights that can find mitochondria already:

    python studies/leave_one_out.py --data annotated --leave vnc --output runs/without-vnc \
        --steps 700 --start unet2d --look-alikes

``--contours`` also learns contours, and scores objects that are split by them beside whole ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from annotated import SETS, pairs_of, scores_of, sets_in, stacked

import volseg
from volseg.engine.memory import keep_freed_memory
from volseg.engine.progress import NoProgress
from volseg.stages.train.recipe import build_config
from volseg.stages.train.run import TrainOptions, TrainReport, train
from volseg.storage.cards import load_card, update_card
from volseg.training.augmentation import Augmentation
from volseg.types import VoxelSize

TERMS = (
    "trained on data for non-commercial use only: vnc is CC BY-NC-SA 3.0 (Gerhard et al., figshare "
    "10.6084/m9.figshare.856713), ncmir is for education, research and non-profit use (Haberl et "
    "al., Nature Methods 2018), cardiac is MIT (copyright 2020 Afshin Khadangi), lucchi_pp is for "
    "research use (Lucchi et al. 2012 and 2013, EPFL CVLab; labels of Casser et al., "
    "arXiv:1812.06024). These weights carry the strictest of these terms: non-commercial, share "
    "alike, with attribution"
)


SMALLEST_UM3 = 0.003
"""Of an object that counts: a ball of 180 nm. Few whole mitochondria are smaller (docs/models)."""
LARGEST_UM3 = 4.0
"""Of an object that can be one mitochondrion; of larger ones no lowest mean is asked."""
RULES = {"threshold": 0.5, "min_probability": 0.65, "median_nm": 35.0}
"""Of a card: decisions 0084 and 0088."""
PIXEL = 12.0
RECIPE: dict[str, Any] = {
    "architecture": "unet2d",
    "width": 16,
    "patch": (1, 256, 256),
    "batch": 4,
    "resample_to": (PIXEL, PIXEL, PIXEL),
    "learning_rate": 7e-4,
    "validate_every": 600,
    "foreground_share": 0.5,
    "ema": 0.998,
    "freeze_norms_after": 0.3,
    "augmentation": Augmentation(
        zoom=(0.5, 1.6),
        elastic_alpha=3.0,
        rotate_probability=0.7,
        section_probability=0.0,
        contrast=0.5,
        brightness=0.4,
        gamma=0.9,
        noise=0.3,
        blur=2.0,
        curve=0.5,
        shading=0.25,
        coarse=2.5,
        strip_probability=0.1,
    ),
}
LOOK_ALIKES: dict[str, Any] = {
    "resample_to": (14.0, 14.0, 14.0),
    "learning_rate": 1e-3,
    "freeze_norms_after": 1.0,
    "hard_share": 0.3,
    "hard_every": 200,
    "augmentation": replace(
        RECIPE["augmentation"],
        zoom=(0.5, 1.5),
        stretch=0.35,
        mirror_probability=0.2,
        sheath_probability=0.3,
        granule_probability=0.2,
        region_probability=0.05,
        edge_probability=0.05,
        nucleus_probability=0.25,
        crowd_probability=0.12,
    ),
}
"""Changes to `RECIPE` that teach what only looks like a mitochondrion."""


def train_on(
    data: Path, names: list[str], output: Path, recipe: dict[str, Any], **options: Any
) -> TrainReport:
    """Train a network on these data sets, or go on with it; print each row of the log.

    Its card gets rules that were not chosen on any of the sets.
    """
    chosen = TrainOptions(
        output=output,
        config=build_config(recipe, options.get("start")),
        terms=TERMS,
        **options,
    )
    report = train(
        pairs_of(data, names, output.parent),
        chosen,
        NoProgress(),
        lambda row: print(json.dumps(dict(row)), flush=True),
    )
    card = load_card(report.weights)
    voxel = math.prod(card.voxel_size) / 1e9
    sizes = {"min_size": round(SMALLEST_UM3 / voxel), "faint_size": round(LARGEST_UM3 / voxel)}
    # images among the sets were seen one by one; slices of a volume have one window, as it is read
    # once, and not once for each slice
    seen = asdict(replace(card.preprocessing, each=False))
    update_card(report.weights, {**RULES, **sizes, "preprocessing": seen})
    return report


def print_scores(
    model: Path,
    data: Path,
    left: str,
    scratch: Path,
    device: str = "auto",
    *,
    contours: bool = False,
) -> None:
    """Score a model on all of the set that was left out, and on what the others held out."""
    card = {"min_size": None, "min_probability": None}
    rules: list[dict[str, Any]] = [{"median_nm": 0}, card]
    if contours:
        rules = [{**card, "split": split} for split in ("none", "contour")]
    flat = load_card(model).form.dimensions == 2
    for name, chosen in sets_in(data).items():
        unseen = name == left
        stacks = [(chosen.raw, chosen.labels, None if unseen else chosen.validation)]
        if chosen.more:
            stacks = [*(stacks if unseen else []), (*chosen.more, None)]
        for raw, labels, roi in stacks:
            places = stacked(data / raw, scratch), stacked(data / labels, scratch)
            cubes = len(set(chosen.voxel_size)) == 1
            seen = ("xy", "ortho") if cubes and flat else ("xy",)
            for views, rule in itertools.product(seen, rules):
                network = {"model": str(model), "roi": roi, "views": views, "device": device}
                # without contours, fields of one microscope are a stack: one scale of intensities
                apart = chosen.images and contours
                found = score(places, chosen.voxel_size, rule, images=apart, **network)
                told = {"set": raw, "left out": unseen, "views": views, **rule, **found}
                print(json.dumps(told), flush=True)


def score(
    places: tuple[Path, Path],
    size: VoxelSize,
    rules: Mapping[str, Any] | None = None,
    *,
    images: bool = False,
    **network: Any,
) -> dict[str, float]:
    """Segment at a threshold of 0.5, and compare all objects, or those that the rules keep."""
    kept = {"min_size": 0, "min_probability": 0, **(rules or {})}
    raw, labels = places
    with tempfile.TemporaryDirectory() as scratch:
        volume = Path(scratch) / "vol.zarr"
        volseg.convert(raw, volume, voxel_size=size, images=images)
        volseg.segment(volume, **network, **kept, threshold=0.5)
        roi = network.get("roi")
        found = volseg.evaluate(volume, truth=labels, roi=roi, min_size=kept["min_size"])
    objects = found.objects
    return {
        **scores_of(found, 3),
        "precision of objects": round(objects.precision, 3),
        "recall of objects": round(objects.recall, 3),
    }


def main() -> None:
    """Train, then print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--leave", choices=(*SETS, "none"), required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", help="shipped name or path of weights to start from")
    parser.add_argument("--look-alikes", action="store_true", help="train by the second recipe")
    parser.add_argument("--contours", action="store_true", help="learn contours, and split by them")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--name", default="unet2d-general")
    arguments = parser.parse_args()
    keep_freed_memory()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    recipe = {**RECIPE, **(LOOK_ALIKES if arguments.look_alikes else {}), "steps": arguments.steps}
    recipe["seed"] = arguments.seed
    if arguments.contours:
        recipe["auxiliary"] = ("contour",)
    report = train_on(
        arguments.data,
        [name for name in SETS if name != arguments.leave],
        arguments.output,
        recipe,
        start=arguments.start,
        name=arguments.name,
        device=arguments.device,
    )
    places = arguments.data, arguments.leave, arguments.output.parent, arguments.device
    print_scores(report.weights, *places, contours=arguments.contours)


if __name__ == "__main__":
    main()
