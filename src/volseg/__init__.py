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
    from volseg.api.exporting import export, export_all
    from volseg.api.judging import evaluate, evaluate_all, stats, stats_all, verify
    from volseg.api.looking import explain, explore, preview, view
    from volseg.api.making import apply, convert, label, segment
    from volseg.api.opening import Volume, open  # noqa: A004 - it is called volseg.open
    from volseg.api.reporting import report
    from volseg.api.teaching import forget_marks, teach
    from volseg.api.training import train
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
    name: place
    for place, names in {
        "arrays": ("compare_arrays", "label_array", "measure_array", "predict_array"),
        "blocks": ("map_blocks",),
        "exporting": ("export", "export_all"),
        "judging": ("evaluate", "evaluate_all", "stats", "stats_all", "verify"),
        "looking": ("explain", "explore", "preview", "view"),
        "making": ("apply", "convert", "label", "segment"),
        "opening": ("Volume", "open"),
        "reporting": ("report",),
        "teaching": ("forget_marks", "teach"),
        "training": ("train",),
        "whole": ("run",),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'volseg' has no attribute {name!r}")
    return getattr(import_module(f"volseg.api.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
