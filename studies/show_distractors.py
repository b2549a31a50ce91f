"""Draw the distractors and reflections that training can make, on the bundled crop.

python studies/show_distractors.py docs/images/distractors.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tifffile

from volseg.geometry.grid import full_roi
from volseg.training.augmentation import Augmentation
from volseg.training.sampling import Source, draw_patch, find_foreground
from volseg.training.tissue import MASK, RAW
from volseg.voxels.intensity import Tone

CROP = Path(__file__).parent.parent / "examples" / "crop"
KINDS = ("sheath", "granule", "region", "edge", "nucleus", "crowd", "mirror")
SEEDS = (1, 4, 6)


def main() -> None:
    """Draw one row for each kind: patches with what was painted, and what is still foreground."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    picture = parser.parse_args().picture
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    raw = tifffile.imread(CROP / "raw.tif")
    labels = tifffile.imread(CROP / "labels.tif")
    roi = full_roi(raw.shape)
    foreground = find_foreground(labels, roi)[0]
    low, high = np.percentile(raw, [0.5, 99.5])
    tone = Tone((float(low), float(high)))
    source = Source(raw, labels, roi, tone, foreground, isotropic=False, planar=True)
    figure, axes = plt.subplots(len(SEEDS), len(KINDS), figsize=(12, 6.2))
    for row, seed in zip(axes, SEEDS, strict=True):
        for axis, kind in zip(row, KINDS, strict=True):
            options = Augmentation(intensity_probability=0, **{f"{kind}_probability": 1.0})
            rng = np.random.default_rng([seed, KINDS.index(kind)])
            patch = draw_patch(source, rng, (1, 256, 256), options).channels[:, 0]
            axis.imshow(patch[RAW], cmap="gray", vmin=-1.2, vmax=1.2)
            axis.contour(patch[MASK], [0.5], colors="orange", linewidths=1)
            axis.set_axis_off()
    for axis, kind in zip(axes[0], KINDS, strict=True):
        axis.set_title(f"{kind}_probability", fontsize=9)
    figure.tight_layout(pad=0.4)
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    main()
