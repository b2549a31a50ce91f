"""Predict in two ways with the instructions that the environment allows. A program of its own.

    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 python other_instructions.py FOLDER MODEL

PyTorch and oneDNN read these variables once, when they are loaded. Printed is, as JSON, which
instructions PyTorch uses, and for each precision a hash of the probabilities for each way.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from toy_predictions import exact_options, read_map
from toy_volumes import write_raw
from volseg.engine.progress import NoProgress
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict

SHAPE = (12, 40, 32)
WAYS = (((8, 32, 32), 2), ((16, 64, 64), 1))
"""Blocks, and workers."""


def hash_of(folder: Path, model: str, precision: str, block: tuple[int, ...], workers: int) -> str:
    """Predict one way."""
    raw = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    volume = write_raw(folder / f"{precision}-{workers}.zarr", raw)
    options = exact_options(model, block, workers, precision=precision)
    predict(plan_prediction(volume, options), NoProgress())
    return hashlib.sha256(read_map(volume).tobytes()).hexdigest()


if __name__ == "__main__":
    found: dict[str, object] = {"instructions": torch.backends.cpu.get_cpu_capability()}
    for precision in ("float32", "bfloat16"):
        # PyTorch asks the CPU itself, not oneDNN, whether oneDNN may multiply bfloat16
        torch.backends.mkldnn.set_flags(precision == "float32")
        found[precision] = [hash_of(Path(sys.argv[1]), sys.argv[2], precision, *w) for w in WAYS]
    print(json.dumps(found))
