"""Score the lowest mean probability with and without a size up to which it is asked for.

    python studies/faint_objects.py --data annotated --scratch volumes

``annotated`` is what `annotated.py` describes. Stacks of 33 slices are cut out of lucchi_pp as
volumes of their own, the last one of slices that were not trained on, and looked at along three
axes, as ``segment`` does without ``--model``; so is the whole volume. vnc and ncmir are looked at
along z. Each is predicted once, kept in ``--scratch`` (under 2 GB), and labelled by each rule.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import tifffile
from annotated import SETS, scores_of

import volseg

STACKS = ((0, 33), (33, 66), (66, 99), (99, 132), (132, 165))
HELD_OUT = "132:165,:,:"


def cut_stacks(data: Path, scratch: Path) -> list[tuple[str, Path, str, str]]:
    """List title, volume, labels and views of what is scored; cut and convert what is missing."""
    known, places = SETS["lucchi_pp"], []
    for first, end in STACKS:
        files = [scratch / f"{kind}-{first}.tif" for kind in ("raw", "labels")]
        for source, file in zip((known.raw, known.labels), files, strict=True):
            if not file.exists():
                tifffile.imwrite(file, tifffile.imread(data / source)[first:end])
        title = f"lucchi_pp z {first}-{end - 1} alone"
        places.append((title, scratch / f"s{first}-{end}.zarr", str(files[1]), "ortho"))
        if not places[-1][1].exists():
            volseg.convert(files[0], places[-1][1], voxel_size=known.voxel_size)
    whole = data / known.labels, data / "vnc/labels.tif", data / "ncmir/validation_labels.tif"
    names = ("lucchi_pp", "whole", "ortho"), ("vnc", "vnc", "xy"), ("ncmir", "ncmirv", "xy")
    for (name, volume, views), labels in zip(names, whole, strict=True):
        places.append((name, scratch / f"{volume}.zarr", str(labels), views))
        raw = Path(str(labels).replace("labels", "raw"))
        if not places[-1][1].exists():
            volseg.convert(raw, places[-1][1], voxel_size=SETS[name].voxel_size)
    return places


def main() -> None:
    """Print a row for each volume and rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--um3", default="0.0025,0.003,0.004,0.005", help="sizes to try")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(exist_ok=True)
    rules = {"all objects": {"min_probability": 0}, "from 0.85": {"min_probability": 0.85}}
    rules["from 0.7"] = {"min_probability": 0.7}
    for size in map(float, arguments.um3.split(",")):
        rules[f"0.85 up to {size} um3"] = {"min_probability": 0.85, "um3": size}
    for title, volume, labels, views in cut_stacks(arguments.data, arguments.scratch):
        if not (volume / "labels").exists():
            volseg.segment(volume, model="unet2d", views=views, min_probability=0)
        voxel = math.prod(SETS[title.split()[0]].voxel_size) / 1e9
        for rule, found in rules.items():
            options = {k: v for k, v in found.items() if k != "um3"}
            if "um3" in found:
                options["faint_size"] = round(found["um3"] / voxel)
            volseg.label(volume, overwrite=True, **options)
            for roi in (None, HELD_OUT) if title == "lucchi_pp" else (None,):
                scores = scores_of(volseg.evaluate(volume, truth=labels, roi=roi, min_size=0), 4)
                told = f"{scores['matched']} of {scores['objects']} found, {scores['truth']} true"
                part = f" z {roi[:7]}" if roi else ""
                print(f"{title}{part} | {rule} | {scores['Jaccard']} | {told}", flush=True)


if __name__ == "__main__":
    main()
