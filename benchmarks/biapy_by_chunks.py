"""Measure `volseg segment` beside BiaPy's prediction by chunks: the same network, tile and volume.

Both are whole commands on the CPU, in turn, start-up included, from Zarr to Zarr. BiaPy loads
packages of BioImage.IO by their name in the model zoo only, so volseg's network takes the place of
BiaPy's as TorchScript. BiaPy lives in an environment of its own (``pip install biapy torch
torchvision``), of which this takes the interpreter:

    python benchmarks/biapy_by_chunks.py /path/to/environment/bin/python --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RAW = Path(__file__).parents[1] / "examples" / "crop" / "raw.tif"
MODEL, NAME = "unet3d", "mitochondria"
TILE, MARGIN = (32, 104, 104), (0, 8, 8)
"""The model's tile and half its overlap; along z one tile covers the volume."""


def config(folder: Path, window: tuple[float, float]) -> dict[str, object]:
    """Describe the job to BiaPy; ``window`` holds the intensities that become -1 and 1."""
    low, high = window
    centre = {"MEAN_VAL": [(low + high) / 2], "STD_VAL": [(high - low) / 2]}
    clip = {"ENABLE": True, "LOWER_PERC": 1.0, "UPPER_PERC": 99.0}
    clip |= {"LOWER_VALUE": [low], "UPPER_VALUE": [high]}
    test = {"PATH": str(folder / "input"), "PADDING": MARGIN, "INPUT_IMG_AXES_ORDER": "ZYX"}
    normalization = {
        "TYPE": "zero_mean_unit_variance",
        "ZERO_MEAN_UNIT_VAR": centre,
        "PERC_CLIP": clip,
    }
    return {
        "PROBLEM": {"TYPE": "SEMANTIC_SEG", "NDIM": "3D"},
        "DATA": {"PATCH_SIZE": (*TILE, 1), "TEST": test, "NORMALIZATION": normalization},
        "MODEL": {"SOURCE": "bmz", "BMZ": {"SOURCE_MODEL_ID": MODEL}},
        "TRAIN": {"ENABLE": False, "BATCH_SIZE": 1},
        "TEST": {"ENABLE": True, "BY_CHUNKS": {"ENABLE": True}},
    }


def run_biapy(folder: Path) -> None:
    """Predict by chunks, in an environment that has BiaPy and no volseg."""
    import torch
    from biapy import BiaPy
    from biapy.engine import base_workflow

    class Logits(torch.nn.Module):
        """The exported network before its sigmoid, which BiaPy applies itself."""

        def __init__(self) -> None:
            super().__init__()
            self.probabilities = torch.jit.load(folder / "network.pt")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.logit(self.probabilities(x), eps=1e-7)

    base_workflow.check_bmz_args = lambda *_: ([], {}, {})
    base_workflow.load_description = lambda *_: None
    base_workflow.build_bmz_model = lambda *_: Logits()
    base_workflow.is_biapy_model = lambda *_: False
    base_workflow.get_bmz_model_kwargs = lambda *_: {}
    job = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    BiaPy(job, result_dir=str(folder / "biapy"), name="job", verbose=True).run_job()


def timed(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command; return seconds, processor time with children, and its largest process."""
    begun = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise SystemExit((folder / "log.txt").read_text(encoding="utf-8")[-4000:])
    return {
        "seconds": round(seconds, 1),
        "processor": round(used.ru_utime + used.ru_stime, 1),
        "megabytes": round(used.ru_maxrss / 1024),
    }


def prepare(folder: Path) -> None:
    """Write the volume for both, the network, and BiaPy's configuration."""
    import tifffile
    import zarr

    import volseg

    raw = tifffile.imread(RAW)[:32, :256, :256]
    tifffile.imwrite(folder / "raw.tif", raw)
    volseg.convert(folder / "raw.tif", folder / "converted.zarr", voxel_size=(5, 5, 5))
    zarr.save_array(folder / "input" / "raw.zarr", raw)
    export = ["models", "export", MODEL, "--format", "torchscript", "--output"]
    subprocess.run([sys.executable, "-m", "volseg", *export, folder / "network.pt"], check=True)
    low, high = np.percentile(raw, [1, 99])
    job = json.dumps(config(folder, (float(low), float(high))))
    (folder / "config.json").write_text(job, encoding="utf-8")


def agreement(folder: Path) -> float:
    """Find the share of voxels that both put on the same side of one half."""
    import zarr

    ours = zarr.open_array(folder / "vol.zarr" / "probabilities" / NAME / "0", mode="r")
    theirs = zarr.open_array(next((folder / "biapy").rglob("raw.zarr")), mode="r")
    same = (np.asarray(ours) > 127) == (np.squeeze(np.asarray(theirs)) > 0)
    return float(same.mean())


def main() -> None:
    """Take turns and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="interpreter of an environment with BiaPy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        run_biapy(arguments.inside)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        segment = [sys.executable, "-m", "volseg", "segment", "vol.zarr", "--model", MODEL]
        segment += ["--device", "cpu", "--precision", "float32"]
        python = os.path.abspath(arguments.python)
        inside = [python, __file__, python, "--inside", name]
        for _ in range(arguments.rounds):
            for result in "biapy", "vol.zarr":
                shutil.rmtree(folder / result, ignore_errors=True)
            shutil.copytree(folder / "converted.zarr", folder / "vol.zarr")
            print("volseg", timed(segment, folder), flush=True)
            print("biapy ", timed(inside, folder), flush=True)
        print(f"the same side of one half: {agreement(folder):.4%} of the voxels")


if __name__ == "__main__":
    main()
