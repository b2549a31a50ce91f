"""Measure what a precision and the kind of device do to results, on the bundled crop.

python benchmarks/precision.py

Everything is compared with float32 on this CPU: bfloat16, float32 with the instructions of an older
x86 CPU, and both on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tifffile
import torch

from volseg.engine.progress import NoProgress
from volseg.geometry.grid import full_roi
from volseg.models.devices import multiplies_bfloat16
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.storage.cards import load_card
from volseg.storage.volumes import open_image, probabilities_path
from volseg.types import Probabilities

CROP = Path(__file__).parents[1] / "examples" / "crop"
OLDER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


@dataclass(frozen=True)
class Way:
    """A way to run a network.

    Attributes
    ----------
    name : of the result, too.
    device, precision : flags of ``volseg segment``.
    environment : what limits the instructions.
    """

    name: str
    device: str
    precision: str
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Found:
    """What a run found, and how long it took."""

    probabilities: Probabilities
    objects: int
    seconds: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["emnet", "unet2d"])
    parser.add_argument("--source", type=Path, default=CROP / "raw.tif")
    parser.add_argument("--truth", type=Path, default=CROP / "labels.tif")
    arguments = parser.parse_args()
    print(describe_machine())
    truth = tifffile.imread(arguments.truth) > 0
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "vol.zarr"
        size = ConvertOptions(voxel_size=(5.0, 5.0, 5.0))
        with plan_conversion(arguments.source, volume, size) as plan:
            convert(plan, NoProgress())
        for model in arguments.models:
            compare(volume, model, truth)


def ways() -> list[Way]:
    """List what this machine can do; the first is what the others are compared with."""
    found = [Way("float32", "cpu", "float32"), Way("bfloat16", "cpu", "bfloat16")]
    if platform.machine() in {"x86_64", "AMD64"}:
        found.append(Way("float32-older-CPU", "cpu", "float32", tuple(OLDER.items())))
    if torch.cuda.is_available():
        found.append(Way("float32-cuda", "cuda", "float32"))
        if multiplies_bfloat16(torch.device("cuda")):
            found.append(Way("bfloat16-cuda", "cuda", "bfloat16"))
    return found


def describe_machine() -> str:
    """Say on what it was measured, and when."""
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
    fast = "in hardware" if multiplies_bfloat16(torch.device("cpu")) else "emulated"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {names[0] if names else platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, bfloat16 {fast}; "
        f"{gpu}; torch {torch.__version__}"
    )


def compare(volume: Path, model: str, truth: np.ndarray) -> None:
    """Run a model in all ways, and print how far the results are from the first one's."""
    level = round(load_card(model).threshold * 255)
    first: Found | None = None
    print(f"\n{model}: difference from float32 on this CPU, in steps of 1/255")
    print("way                  differ     mean  largest  other side  Jaccard  objects  seconds")
    for way in ways():
        found = run(volume, model, way)
        first = first or found
        off = np.abs(found.probabilities.astype(int) - first.probabilities)
        mask = found.probabilities >= level
        sides = np.mean(mask != (first.probabilities >= level))
        jaccard = np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)
        print(
            f"{way.name:18} {np.mean(off > 0):8.4%}  {off.mean():.5f}  {off.max():7}  "
            f"{sides:10.5%}  {jaccard:.5f}  {found.objects:7}  {found.seconds:7.0f}",
            flush=True,
        )


def run(volume: Path, model: str, way: Way) -> Found:
    """Segment the volume, as a user does."""
    name, begun = f"{model}-{way.name}", time.monotonic()
    flags = ["--model", model, "--name", name, "--device", way.device, "--precision", way.precision]
    done = subprocess.run(
        [sys.executable, "-m", "volseg", "segment", str(volume), *flags, "--json", "-q"],
        env={**os.environ, **dict(way.environment)},
        stdout=subprocess.PIPE,
        check=True,
    )
    array = open_image(probabilities_path(volume, name)).levels[0]
    objects = json.loads(done.stdout)["label"]["objects"]
    return Found(array[full_roi(array.shape)], objects, time.monotonic() - begun)


if __name__ == "__main__":
    main()
