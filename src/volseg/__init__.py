"""From an electron-microscopy stack of any size to counted, measured mitochondria.

How the data flows, each arrow a stage of the same name in `volseg.stages`::

    stack.tif ── convert ──> vol.zarr            raw pyramid, voxel size, whole-volume histogram
    vol.zarr  ── predict ──> probabilities/NAME  the network over a lattice of overlapping tiles
              ── label ────> labels/NAME         threshold, connected components, global ids
              ── stats ────> tables/NAME.parquet one row per object, a summary per volume
    vol.zarr + truth ── train ──> weights        safetensors and a JSON card

``segment`` is ``predict`` and ``label`` with their pyramids. Every stage works block by block:
a task carries coordinates, reads, computes and writes by itself, and returns a few numbers. Axes
are always (z, y, x); a voxel size is always in nm.
"""

from volseg.errors import InputError, VolsegError, WorkError

__version__ = "0.1.0"

__all__ = ["InputError", "VolsegError", "WorkError", "__version__"]
