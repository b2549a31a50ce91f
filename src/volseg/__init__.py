"""From an electron-microscopy stack of any size to counted, measured mitochondria.

How the data flows, each arrow a stage of the same name in `volseg.stages`::

    stack.tif ── convert ──> vol.zarr            raw pyramid, voxel size, whole-volume histogram
    vol.zarr  ── predict ──> probabilities/NAME  the network over a lattice of overlapping tiles
              ── label ────> labels/NAME         threshold, connected components, global ids
              ── stats ────> tables/NAME.parquet one row per object, a summary per volume
              ── apply ────> labels/NAME-...     corrections made by hand
    vol.zarr + truth ── train ──> weights        safetensors and a JSON card

``segment`` is ``predict`` and ``label`` with their pyramids. Every stage works block by block:
a task carries coordinates, reads, computes and writes by itself, and returns a few numbers. Axes
are always (z, y, x); a voxel size is always in nm.

The functions that are named here are what the command line calls; ``docs/python.md`` shows them.
They are loaded on first use, so ``import volseg`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from volseg.errors import InputError, VolsegError, WorkError

if TYPE_CHECKING:
    from volseg.api.arrays import compare_arrays, label_array, measure_array, predict_array
    from volseg.api.blocks import map_blocks
    from volseg.api.correcting import apply
    from volseg.api.explaining import explain
    from volseg.api.exploring import explore
    from volseg.api.exporting import export, export_all
    from volseg.api.judging import evaluate, evaluate_all, stats, stats_all, verify
    from volseg.api.making import convert, label, segment
    from volseg.api.opening import Volume, open  # noqa: A004 - it is called volseg.open
    from volseg.api.previewing import preview
    from volseg.api.reporting import report
    from volseg.api.teaching import forget_marks, teach
    from volseg.api.training import train
    from volseg.api.viewing import view
    from volseg.api.whole import run

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "VolsegError",
    "Volume",
    "WorkError",
    "__version__",
    "apply",
    "compare_arrays",
    "convert",
    "evaluate",
    "evaluate_all",
    "explain",
    "explore",
    "export",
    "export_all",
    "forget_marks",
    "label",
    "label_array",
    "map_blocks",
    "measure_array",
    "open",
    "predict_array",
    "preview",
    "report",
    "run",
    "segment",
    "stats",
    "stats_all",
    "teach",
    "train",
    "verify",
    "view",
]

_PLACES = {
    "Volume": "opening",
    "apply": "correcting",
    "compare_arrays": "arrays",
    "convert": "making",
    "evaluate": "judging",
    "evaluate_all": "judging",
    "export": "exporting",
    "export_all": "exporting",
    "explain": "explaining",
    "explore": "exploring",
    "forget_marks": "teaching",
    "label": "making",
    "label_array": "arrays",
    "map_blocks": "blocks",
    "measure_array": "arrays",
    "open": "opening",
    "predict_array": "arrays",
    "preview": "previewing",
    "report": "reporting",
    "run": "whole",
    "segment": "making",
    "stats": "judging",
    "stats_all": "judging",
    "teach": "teaching",
    "train": "training",
    "verify": "judging",
    "view": "viewing",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'volseg' has no attribute {name!r}")
    return getattr(import_module(f"volseg.api.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
