"""Predict slowly, so that there is time to kill it. A program of its own.

    python slow_prediction.py VOLUME MODEL [--store-centerline]

It prints a line as soon as it begins.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from toy_predictions import exact_options
from volseg.engine.progress import NoProgress
from volseg.models.inference import Predictor
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict


def slow_down() -> None:
    """Let each tile take longer."""
    evaluate = Predictor.evaluate

    def slow(self: Predictor, *tile: Any) -> Any:
        time.sleep(0.03)
        return evaluate(self, *tile)

    Predictor.evaluate = slow


if __name__ == "__main__":
    slow_down()
    volume, model, *flags = sys.argv[1:]
    options = exact_options(model, workers=2, store_centerline="--store-centerline" in flags)
    print("started", flush=True)
    predict(plan_prediction(Path(volume), options), NoProgress())
