r"""Compare what a preview says of models and scales with what they are worth on annotated data.

    python studies/preview_score.py --data annotated --set vnc \
        --models unet2d runs/without-vnc/unet2d-general.safetensors

``annotated`` is that of leave_one_out.py. The models are tried at each scale of a preview on its
three places, and on twelve with the annotation. Prints one JSON object for each model and scale:
the preview's terms, and the Jaccard index of voxels at the card's threshold and the best one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from leave_one_out import sets_in, stacked

from volseg.engine.progress import NoProgress
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.preview.places import choose_places, look_around
from volseg.stages.preview.run import PreviewOptions, open_candidate
from volseg.stages.preview.trial import Trial, resize, try_model
from volseg.storage.volumes import open_image

PLACES = 12
"""Places that are compared with the annotation."""
LEVELS = np.linspace(0.05, 0.95, 19)
"""Thresholds among which the best one is."""


def jaccard(trial: Trial, labels: np.ndarray, levels: np.ndarray) -> list[float]:
    """Compare with labels at the places of a trial, in its own voxels; one index per threshold."""
    both, either = np.zeros(len(levels)), np.zeros(len(levels))
    for view in trial.views:
        truth = (labels[view.roi] > 0).astype(np.float32)
        seen = resize(truth, len(view.probabilities))[0] >= 0.5
        for k, level in enumerate(levels):
            found = view.probabilities >= level
            both[k] += (found & seen).sum()
            either[k] += (found | seen).sum()
    return [float(index) for index in both / np.maximum(either, 1)]


def main() -> None:
    """Print what each model at each scale says, and is worth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--slices", help="first and last slice that are looked at, as 132:165")
    arguments = parser.parse_args()
    chosen = sets_in(arguments.data)[arguments.set]
    options = PreviewOptions(models=tuple(arguments.models))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        part = slice(*(int(n) for n in arguments.slices.split(":"))) if arguments.slices else ...
        raw, labels = (
            tifffile.imread(stacked(arguments.data / path, scratch))[part]
            for path in (chosen.raw, chosen.labels)
        )
        source, volume = scratch / "raw.tif", scratch / "vol.zarr"
        tifffile.imwrite(source, raw, photometric="minisblack")
        conversion = ConvertOptions(voxel_size=chosen.voxel_size)
        with plan_conversion(str(source), volume, conversion) as plan:
            convert(plan, NoProgress())
        image = open_image(volume)
        windows = look_around(image)
        candidates = [open_candidate(m, image, windows, options) for m in options.models]
        for zoom in options.zooms:
            for candidate in candidates:
                trial = try_model(candidate, image, choose_places(windows, options.places), zoom)
                checked = try_model(candidate, image, choose_places(windows, PLACES), zoom)
                if trial is None or checked is None:
                    continue
                (index,) = jaccard(checked, labels, np.array([candidate.card.threshold]))
                row = {
                    "set": arguments.set,
                    "model": candidate.card.name,
                    "zoom": zoom,
                    "certainty": trial.certainty,
                    "agreement": trial.agreement,
                    "found": trial.found,
                    "score": trial.score,
                    "Jaccard": index,
                    "Jaccard at the best threshold": max(jaccard(checked, labels, LEVELS)),
                }
                rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
                print(json.dumps(rounded), flush=True)


if __name__ == "__main__":
    main()
