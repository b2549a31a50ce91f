"""Measure prediction on a GPU in one call: what it reaches, and why.

For each network: the bare network on its tile, with the floors of arithmetic and memory beside it;
`predict` from Zarr to Zarr, with the GPU's utilisation; and the seconds of each stage of a second
run, whose stages wait for the device. ``--toy`` rehearses all of it on any machine. The time is not
bounded: of a network that has begun, only the watched run is left out; see ``BUDGET``.

    python benchmarks/gpu.py --shape 256,1024,1024 --workers 8
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import tifffile
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from volseg.engine.memory import keep_freed_memory
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.geometry.lattice import Lattice
from volseg.models.inference import Predictor
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.predict import tasks
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.look import Look
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.pipeline import Reading
from volseg.stages.predict.plan import PredictPlan, plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.predict.tiles import Tiles
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import scratch_path

BUDGET = 220.0
"""Seconds that a call is meant to take: no network is begun after half of them, and no watched run
that would end after them. What is left out is said to be."""
STAGES: tuple[tuple[Any, str, str], ...] = (
    (Look, "read", "read and decode"),
    (Reading, "send", "send and tone"),
    (Tiles, "cut", "cut and resample"),
    (Predictor, "evaluate", "network, views, sigmoid"),
    (tasks, "weigh", "weigh and round"),
    (tasks, "fetch", "fetch shares"),
    (HandoverStore, "save", "compress and hand over"),
    (HandoverStore, "load", "load what was handed over"),
    (StoredArray, "write", "compress and write"),
)


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(function: Callable[[], object], repeats: int) -> float:
    """Time a function on the device: the median, after a warm-up."""
    function()
    taken = []
    for _ in range(repeats):
        wait()
        begun = time.perf_counter()
        function()
        wait()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def measure_ceilings(device: torch.device, precision: torch.dtype, side: int) -> dict[str, float]:
    """Measure a large product of matrices and a large copy, of random numbers."""
    a, b = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    product = seconds_of(lambda: a @ b, 5)
    source = torch.randn(4 * side, side, device=device)
    target = torch.empty_like(source)
    copy = seconds_of(lambda: target.copy_(source), 5)
    moved = 2 * source.numel() * source.element_size()
    return {"flop_per_s": 2 * side**3 / product, "bytes_per_s": moved / copy}


def count_work(predictor: Predictor, tile: torch.Tensor) -> tuple[float, float]:
    """Count operations of a tile, and the bytes of what its convolutions read and write once."""
    moved = 0

    def add(_module: nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        nonlocal moved
        moved += sum(t.numel() * t.element_size() for t in (*given, found))

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    modules = [m for m in predictor.network.modules() if isinstance(m, kinds)]
    hooks = [m.register_forward_hook(add) for m in modules]
    with FlopCounterMode(display=False) as counted:
        predictor.evaluate(tile)
    for hook in hooks:
        hook.remove()
    return float(counted.get_total_flops()), float(moved)


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Sample the utilisation of the GPU, in percent; nothing where nvidia-smi is lacking."""
    found: list[float] = []
    if not torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        yield found
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    process = subprocess.Popen([*query, "-lms", "100"], stdout=subprocess.PIPE, text=True)

    def collect() -> None:
        found.extend(map(float, process.stdout or ()))

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        process.terminate()
        thread.join(5)


@dataclass
class Stopwatch:
    """Seconds of each stage, summed over threads."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time all stages, each until the device is done."""
        with ExitStack() as stack:
            for owner, name, stage in STAGES:
                stack.enter_context(patch.object(owner, name, self._timed(owner, name, stage)))
            yield

    def _timed(self, owner: Any, name: str, stage: str) -> Callable[..., Any]:
        original = getattr(owner, name)

        def timed(*given: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return original(*given, **options)
            finally:
                wait()
                with self.lock:
                    self.seconds[stage] += time.perf_counter() - begun

        return timed


def run_once(volume: Path, plan: PredictPlan) -> float:
    """Predict a volume from the beginning; return the seconds."""
    shutil.rmtree(volume / "probabilities", ignore_errors=True)
    shutil.rmtree(scratch_path(volume), ignore_errors=True)
    begun = time.perf_counter()
    predict(plan, NoProgress())
    return time.perf_counter() - begun


def make_tile(predictor: Predictor, lattice: Lattice) -> torch.Tensor:
    """Make a tile of noise, with its margin, on the device."""
    z, y, x = (n + 2 * m for n, m in zip(lattice.tile, lattice.margin, strict=True))
    return torch.rand(z, y, x, device=predictor.device) * 2 - 1


def time_tiles(predictor: Predictor, plan: PredictPlan) -> float:
    """Time one tile of each lattice, as a plan has them; return the mean seconds of all tiles."""
    seconds, counts = 0.0, plan.handover.count_tiles()
    for lattice, count in zip(plan.handover.lattices, counts, strict=True):
        evaluate = partial(predictor.evaluate, make_tile(predictor, lattice), axis=lattice.normal)
        seconds += count * seconds_of(evaluate, 3)
    return seconds / sum(counts)


def measure(volume: Path, options: PredictOptions, side: int, left: Callable[[], float]) -> dict:
    """Measure one network on a volume."""
    plan = plan_prediction(volume, options)
    predictor, lattice = predictor_for(plan.choice), plan.handover.lattices[0]
    flops, moved = count_work(predictor, make_tile(predictor, lattice))
    bare = time_tiles(predictor, plan)
    ceilings = measure_ceilings(predictor.device, predictor.precision, side)
    found: dict[str, Any] = {
        "network": plan.card.name,
        "precision": plan.choice.precision,
        "batch": plan.choice.batch,
        "tile": list(lattice.tile),
        "tiles": plan.tiles,
        "work": plan.handover.count_work(),
        "bare_s_per_tile": bare,
        "bare_mvoxel_per_s": plan.voxels / (bare * plan.tiles) / 1e6,
        "floor_of_arithmetic_s": flops / ceilings["flop_per_s"],
        "floor_of_memory_s": moved / ceilings["bytes_per_s"],
        **ceilings,
    }
    run_once(volume, plan)  # files in the cache, and the allocator's memory
    with utilisation() as percent:
        seconds = run_once(volume, plan)
    found |= {
        "seconds": seconds,
        "mvoxel_per_s": plan.voxels / seconds / 1e6,
        "of_bare": bare * plan.tiles / seconds,
        "utilisation_percent": statistics.mean(percent) if percent else None,
    }
    if left() > 2 * seconds:
        watch = Stopwatch()
        with watch.watching():
            watched = run_once(volume, plan)
        found |= {"watched_seconds": watched, "stages": dict(watch.seconds)}
    return found


def describe(found: dict[str, Any]) -> str:
    """Put what was measured of a network in lines."""
    use = found["utilisation_percent"]
    network = (
        f"{found['network']}, {found['precision']}, {found['tiles']} tiles of {found['tile']}, "
        f"batches of {found['batch']}, work {found['work']:.2f}"
    )
    bare = (
        f"  bare network   {found['bare_mvoxel_per_s']:10.3f} Mvoxel/s of the volume, "
        f"{1e3 * found['bare_s_per_tile']:.1f} ms a tile"
    )
    floors = (
        f"  floors         {1e3 * found['floor_of_arithmetic_s']:10.1f} ms a tile of arithmetic, "
        f"{1e3 * found['floor_of_memory_s']:.1f} of memory"
    )
    whole = (
        f"  end to end     {found['mvoxel_per_s']:10.3f} Mvoxel/s, {found['of_bare']:.3f} of the "
        f"bare network, GPU used {'unknown' if use is None else f'{use:.0f}%'}"
    )
    lines = [network, bare, floors, whole]
    if "stages" not in found:
        lines.append("  stages         left out: no time is left")
    total = sum(found.get("stages", {}).values())
    for stage, seconds in found.get("stages", {}).items():
        lines.append(f"  {stage:26}{seconds:8.2f} s, {seconds / total:5.1%} of all threads")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="emnet,unet2d")
    parser.add_argument("--shape", default="256,1024,1024")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--output", type=Path, help="write a line of JSON for each network")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of the whole call")
    parser.add_argument("--toy", action="store_true", help="rehearse at toy size")
    arguments = parser.parse_args()
    keep_freed_memory()
    begun, side = time.monotonic(), 256 if arguments.toy else 8192
    end = begun + arguments.budget
    text = "6,48,48" if arguments.toy else arguments.shape
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source, volume = Path(folder) / "noise.tif", Path(folder) / "noise.zarr"
        shape = tuple(int(n) for n in text.split(","))
        raw = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        tifffile.imwrite(source, raw)
        with plan_conversion(source, volume, ConvertOptions(voxel_size=(5.0, 5.0, 5.0))) as plan:
            convert(plan, NoProgress())
        for model in arguments.models.split(","):
            if time.monotonic() - begun > arguments.budget / 2:
                print(f"{model}: no time is left")
                continue
            engine = EngineOptions(workers=1 if arguments.toy else arguments.workers)
            options = PredictOptions(model=model, engine=engine)
            found = measure(volume, options, side, lambda: end - time.monotonic())
            print(describe(found), flush=True)
            if arguments.output is not None:
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"device": device, **found}) + "\n")


if __name__ == "__main__":
    main()
