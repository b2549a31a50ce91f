"""PNG files in a folder, one of each slice; unrelated images get their names and sizes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import imagecodecs

from volseg.engine.progress import Progress
from volseg.errors import ParameterError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.storage.files import write_file
from volseg.storage.images import sizes_of
from volseg.storage.ome import IMAGES
from volseg.storage.targets import replacing
from volseg.storage.volumes import Image, open_image

TYPES = ("uint8", "uint16")


def write_png(plan: ExportPlan, cut: Cut, progress: Progress) -> None:
    """Write a folder of PNG files, completely or not at all.

    Raises
    ------
    ParameterError
        If voxels are of a type that PNG has not.
    StorageError
        If it cannot be written, or voxels cannot be read.
    """
    if cut.dtype.name not in TYPES:
        raise ParameterError(
            f"PNG holds {' and '.join(TYPES)}, found {cut.dtype}; write .tif, or another form"
        )
    volume = open_image(plan.volume)
    names, first = _names(volume), cut.roi[0].start
    sizes = sizes_of(volume) if plan.options.level == 0 else ()
    with replacing(plan.options.output, overwrite=plan.options.overwrite) as folder:
        folder.mkdir()
        for k, plane in enumerate(cut.planes(progress, "writing PNG", 0), first):
            shown = plane
            if sizes:
                height, width = (
                    max(n - s.start, 1) for n, s in zip(sizes[k], cut.roi[1:], strict=True)
                )
                shown = plane[:height, :width]
            write_file(folder / names[k], bytes(imagecodecs.png_encode(shown.copy())))


def _names(volume: Image) -> list[str]:
    """Name the files after the images that were converted, or by the numbers of slices."""
    depth, noted = volume.levels[0].shape[0], volume.attributes.get(IMAGES)
    known = noted.get("names") if isinstance(noted, Mapping) else None
    stems = [Path(str(name)).stem for name in known or ()]
    repeated = Counter(stems)
    digits = len(str(depth - 1))
    numbers = [f"{k:0{digits}d}" for k in range(depth)]
    if len(stems) != depth:
        return [f"{number}.png" for number in numbers]
    return [
        f"{stem}.png" if repeated[stem] == 1 else f"{number}-{stem}.png"
        for number, stem in zip(numbers, stems, strict=True)
    ]
