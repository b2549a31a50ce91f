"""Measure how much of the bare network's speed prediction keeps.

Predicts a volume with everything included (cluster, reading, blending, hand-over, writing), and
evaluates the same tiles with the bare network: same threads, same precision. Alternates,
and prints the median ratios of the times on the clock and of processor times, which other work on
the machine changes less; 1 means that nothing is lost.

    python benchmarks/segment.py --model emnet --shape 64,256,256 --repeats 3

With ``--classes 6`` the head of the model is repeated, so that one network gives so many classes.
`segment` of the bundled crop with all of them is compared with one of them: processor time, labels
and pyramids included. The first class has to be the same to the byte.

    OMP_NUM_THREADS=1 python benchmarks/segment.py --model unet2d --classes 6 --workers 1
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tifffile
import torch

from volseg.engine.memory import keep_freed_memory

keep_freed_memory()  # as commands do: pyarrow, imported below, starts a thread

import volseg
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.models.maps import build_maps
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.cards import find_weights, load_card
from volseg.storage.volumes import scratch_path
from volseg.storage.weights import load_weights, save_weights

CROP = Path(__file__).parents[1] / "examples" / "crop" / "raw.tif"


def now() -> np.ndarray:
    """Tell the clock and the processor time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def repeat_head(model: str, count: int, folder: Path) -> str:
    """Write weights whose head gives the model's class so many times, at rising biases."""
    card = load_card(model)
    weights = dict(load_weights(model, card))
    bias = weights["head.bias"].repeat(count) + torch.linspace(0, 1, count)
    content = json.loads(find_weights(model).with_suffix(".json").read_text())
    content |= {
        "name": "several",
        "maps": [asdict(m) for m in build_maps([f"class{k}" for k in range(count)])],
        "parameters": content["parameters"] + (count - 1) * (weights["head.weight"].numel() + 1),
    }
    weights |= {"head.weight": weights["head.weight"].repeat(count, 1, 1, 1), "head.bias": bias}
    path = folder / "several.safetensors"
    save_weights(path, weights, {k: v for k, v in content.items() if k != "sha256"})
    return str(path)


def compare_classes(arguments: argparse.Namespace) -> None:
    """Print how many times the processor time of one class several take."""
    count, spent = arguments.classes, dict[int, list[float]]({1: [], arguments.classes: []})
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = repeat_head(arguments.model, count, home)
        for again in range(arguments.repeats + 1):  # the first compiles
            found = []
            for number in spent:
                volume = home / f"{again}-{number}.zarr"
                volseg.convert(CROP, volume, voxel_size=(5, 5, 5))
                names = tuple(f"class{k}" for k in range(number))
                options = {"classes": names, "views": "xy", "min_size": 500}
                begun = now()
                volseg.segment(volume, model=model, workers=arguments.workers, **options)
                spent[number].append(float((now() - begun)[1]))
                opened = volseg.open(volume)
                found.append([opened.probabilities["class0"][...], opened.labels["class0"][...]])
                shutil.rmtree(volume)
            if not all(map(np.array_equal, *found)):
                raise SystemExit("a class depends on whether others are written")
    ratios = np.array(spent[count][1:]) / spent[1][1:]
    low, middle, high = np.quantile(ratios, (0, 0.5, 1))
    one, all_of = (np.median(spent[number][1:]) for number in spent)
    print(f"one class {one:.2f} s, {count} classes {all_of:.2f} s of processor time")
    print(f"{count} classes take {middle:.2f} times one ({low:.2f}..{high:.2f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emnet")
    parser.add_argument("--shape", default="64,256,256")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--classes", type=int)
    arguments = parser.parse_args()
    if arguments.classes:
        compare_classes(arguments)
        return
    shape = tuple(int(n) for n in arguments.shape.split(","))
    options = PredictOptions(
        model=arguments.model,
        device=arguments.device,
        engine=EngineOptions(workers=arguments.workers),
    )
    with tempfile.TemporaryDirectory() as folder:
        source, volume = Path(folder) / "noise.tif", Path(folder) / "noise.zarr"
        raw = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        tifffile.imwrite(source, raw)
        with plan_conversion(source, volume, ConvertOptions(voxel_size=(5.0, 5.0, 5.0))) as plan:
            convert(plan, NoProgress())
        plan = plan_prediction(volume, options)
        predictor = predictor_for(plan.choice)
        tile = plan.handover.lattices[0].tile
        inputs = np.random.default_rng(1).uniform(-1, 1, tile).astype(np.float32)
        predictor(inputs)
        bare, whole = [], []
        for _ in range(arguments.repeats):
            begun = now()
            for _ in range(plan.tiles):
                predictor(inputs)
            bare.append(now() - begun)
            shutil.rmtree(volume / "probabilities", ignore_errors=True)
            shutil.rmtree(scratch_path(volume), ignore_errors=True)
            begun = now()
            predict(plan, NoProgress())
            whole.append(now() - begun)
    print(f"{plan.tiles} tiles of {tile}, {plan.choice.precision} on {plan.choice.device}")
    ratios, rates = np.array(bare) / whole, plan.tiles * inputs.size / np.array(whole) / 1e6
    for k, what in enumerate(("on the clock", "of processor time")):
        low, middle, high = np.quantile(ratios[:, k], (0, 0.5, 1))
        print(
            f"{what}: {middle:.3f} of the bare network ({low:.3f}..{high:.3f}), "
            f"{np.median(rates[:, k]):.3f} Mvoxel/s of tiles"
        )


if __name__ == "__main__":
    main()
