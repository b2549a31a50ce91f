r"""Compare what a preview says of models and scales with what they are worth on annotated data.

    python studies/preview_score.py --data annotated --set vnc \
        --models unet2d runs/without-vnc/unet2d-general.safetensors

``annotated`` is that of leave_one_out.py. The models are tried at each scale of a preview on its
places, and on twelve with the annotation. Prints one JSON object for each model and scale, as a
preview ranks them: its terms, and the Jaccard index of voxels at a threshold of 0.5. With
``--whole`` also that of the whole stack, by `segment` with this model and scale along z, and the
rules of the model's card: what a user gets who follows the advice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from annotated import sets_in, stacked

import volseg
from volseg.stages.preview.places import choose_places, look_around
from volseg.stages.preview.run import PreviewOptions, choose_trials, open_candidate
from volseg.stages.preview.trial import FOUND, Trial, rank, resize, try_model
from volseg.storage.volumes import open_image

CHECKED = 12
"""Places that are compared with the annotation."""


def jaccard(trial: Trial, labels: np.ndarray) -> float:
    """Compare with labels at the places of a trial, in its own voxels."""
    both = either = 0
    for view in trial.views:
        truth = (labels[view.roi] > 0).astype(np.float32)
        seen = resize(truth, len(view.probabilities))[0] >= FOUND
        found = view.probabilities >= FOUND
        both += int((found & seen).sum())
        either += int((found | seen).sum())
    return both / max(either, 1)


def segment_whole(volume: Path, labels: Path, trial: Trial) -> float:
    """Segment the stack as a preview advises, and compare with labels."""
    volseg.segment(volume, model=trial.model, zoom=trial.zoom, views="xy", overwrite=True)
    return volseg.evaluate(volume, truth=labels, min_size=None).foreground.jaccard


def main() -> None:
    """Print what each model at each scale says, and is worth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--more", action="store_true", help="take the set's second stack")
    parser.add_argument("--slices", help="first and last slice that are looked at, as 132:165")
    parser.add_argument("--whole", action="store_true", help="segment the whole stack each time")
    arguments = parser.parse_args()
    chosen = sets_in(arguments.data)[arguments.set]
    options = PreviewOptions(models=tuple(arguments.models))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        part = slice(*(int(n) for n in arguments.slices.split(":"))) if arguments.slices else ...
        paths = chosen.more if arguments.more and chosen.more else (chosen.raw, chosen.labels)
        raw, labels = (
            tifffile.imread(stacked(arguments.data / path, scratch))[part] for path in paths
        )
        source, truth, volume = (scratch / n for n in ("raw.tif", "labels.tif", "vol.zarr"))
        tifffile.imwrite(source, raw, photometric="minisblack")
        tifffile.imwrite(truth, labels, photometric="minisblack")
        volseg.convert(source, volume, voxel_size=chosen.voxel_size)
        image = open_image(volume)
        windows = look_around(image)
        candidates = [open_candidate(m, image, windows, options) for m in options.models]
        trials, worth = [], {}
        for zoom, candidate in choose_trials(image, options.zooms, candidates):
            trial = try_model(candidate, image, choose_places(windows, options.places), zoom)
            checked = try_model(candidate, image, choose_places(windows, CHECKED), zoom)
            if trial is not None and checked is not None:
                trials.append(trial)
                worth[trial.model, zoom] = jaccard(checked, labels)
        for trial in rank(trials, image.voxel_size):
            row = {
                "score": round(trial.score, 3),
                "agreement": round(trial.agreement, 3),
                "found": round(trial.found, 3),
                "certainty": round(trial.certainty, 3),
                "Jaccard": round(worth[trial.model, trial.zoom], 3),
            }
            if arguments.whole:
                row["Jaccard of the whole"] = round(segment_whole(volume, truth, trial), 3)
            print(json.dumps({"model": trial.model, "zoom": trial.zoom, **row}), flush=True)


if __name__ == "__main__":
    main()
