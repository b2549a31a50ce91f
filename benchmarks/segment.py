"""Measure how much of the bare network's speed prediction keeps.

Predicts a volume with everything included (cluster, reading, blending, hand-over, writing), and
evaluates the same tiles with the bare network: same threads, same precision. Alternates,
and prints the median ratios of the times on the clock and of processor times, which other work on
the machine changes less; 1 means that nothing is lost.

    python benchmarks/segment.py --model emnet --shape 64,256,256 --repeats 3
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from volseg.engine.memory import keep_freed_memory
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.volumes import scratch_path


def now() -> np.ndarray:
    """Tell the clock and the processor time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emnet")
    parser.add_argument("--shape", default="64,256,256")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    keep_freed_memory()
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
