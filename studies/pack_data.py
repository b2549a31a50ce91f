"""Pack the annotated data sets into 50 MB, for a machine that they have to travel to.

    python studies/pack_data.py --data annotated --output packed

The largest one, lucchi_pp, is averaged over two voxels along each axis, to 10 nm: the networks that
`leave_one_out.py` trains see 12 nm. The others are copied. ``sets.json`` says what has changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import tifffile

from volseg.voxels.downsample import reduce_mean

HALVED = "lucchi_pp"
COPIED = ("vnc", "ncmir", "cardiac")
LARGEST = 50e6
"""Bytes."""


def main() -> None:
    """Pack, and fail if it became too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    for name in COPIED:
        shutil.copytree(arguments.data / name, arguments.output / name, dirs_exist_ok=True)
    folder = arguments.output / HALVED
    folder.mkdir(parents=True, exist_ok=True)
    raw = tifffile.imread(arguments.data / HALVED / "train_raw.tif")
    mask = tifffile.imread(arguments.data / HALVED / "train_labels.tif") > 0
    share = reduce_mean(255 * mask.astype(np.uint8), (2, 2, 2))
    for file, pixels in (
        ("train_raw.tif", reduce_mean(raw, (2, 2, 2))),
        ("train_labels.tif", 255 * (share >= 128).astype(np.uint8)),
    ):
        tifffile.imwrite(
            folder / file, pixels, photometric="minisblack", compression="zlib", predictor=True
        )
    changed = {HALVED: {"voxel_size": [10.0, 10.0, 10.0], "validation": "66:83,:,:"}}
    (arguments.output / "sets.json").write_text(json.dumps(changed), encoding="utf-8")
    size = sum(p.stat().st_size for p in arguments.output.rglob("*") if p.is_file())
    print(f"{size / 1e6:.1f} MB in {arguments.output}")
    if size > LARGEST:
        raise SystemExit(f"that is more than {LARGEST / 1e6:g} MB")


if __name__ == "__main__":
    main()
