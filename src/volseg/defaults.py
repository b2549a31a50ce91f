"""Defaults that Python and the command line share, in a module that costs nothing to import."""

from typing import Final

NAME: Final = "mitochondria"
"""Name of a result in a volume."""
DEVICE: Final = "auto"
PRECISION: Final = "auto"
NORMALISE: Final = "volume"
"""Of what intensities are made alike before a network sees them."""
ZOOM: Final = 1.0
BLOCK_TIMEOUT: Final = 3600.0
"""Seconds after which a block's worker is taken to hang."""

CONNECTIVITY: Final = 26
MIN_SIZE_NM3: Final = 0.0
SPLIT: Final = "none"
SPLIT_DEPTH: Final = 2.0
"""Voxels, of the finest axis, by which a neck is thinner than what it joins."""

PLACES: Final = 8
SECONDS: Final = 45.0
"""Of a preview."""
PREVIEW: Final = "-preview.png"
"""Ending of the name of its contact sheet."""

MEASURE: Final = "full"
SURFACE: Final = "crofton"

IOU: Final = 0.5
"""Intersection over union from which two objects match."""
SAMPLE: Final = 2
"""Blocks of each array of probabilities that `verify` predicts again."""
SUSPECTS: Final = 40
"""Objects that a report lists for proofreading."""

LEVEL: Final = 0
"""Of the pyramid that `export` writes: the finest."""
MINUTES: Final = 3.0
"""Of teaching."""
STRENGTH: Final = 0.6
"""Part of what a lesson changed in the weights that is kept (decision 0080)."""
