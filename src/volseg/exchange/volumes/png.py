"""PNG files in a folder, one of each slice; unrelated images get their names and sizes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import imagecodecs

from volseg.engine.progress import Progress
from volseg.errors import ParameterError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.storage.files import write_file
from volseg.storage.images import names_of, sizes_of
from volseg.storage.targets import drafting_folder
from volseg.storage.volumes import Image, open_image

TYPES = ("uint8", "uint16")


def write_png(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[()]:
    """Write a folder of PNG files of the images within the region, completely or not at all."""
    if cut.dtype.name not in TYPES:
        raise ParameterError(
            f"PNG holds {' and '.join(TYPES)}, found {cut.dtype}; write .tif, or another form"
        )
    volume = open_image(plan.volume)
    names, first = _names(volume), cut.roi[0].start
    sizes = _sizes(volume, (plan.image or volume).factors[plan.options.level])
    corner = tuple(s.start for s in cut.roi[1:])
    if sizes and not any(_reaches(size, corner) for size in sizes[cut.roi[0]]):
        raise ParameterError("no image reaches into the region; give another --roi")
    with drafting_folder(plan.options.output, overwrite=plan.options.overwrite) as folder:
        folder.mkdir()
        for k, plane in enumerate(cut.planes(progress, "writing PNG", 0), first):
            shown = plane
            if sizes:
                if not _reaches(sizes[k], corner):
                    continue
                shown = plane[: sizes[k][0] - corner[0], : sizes[k][1] - corner[1]]
            write_file(folder / names[k], bytes(imagecodecs.png_encode(shown.copy())))
    return ()


def _sizes(volume: Image, factor: Sequence[float]) -> list[list[int]]:
    """List what images have of their slices, so many times as coarse; none if slices are whole.

    A pixel that reaches beyond an image is dark of what the image is padded with.
    """
    sizes = sizes_of(volume) if factor[0] == 1 else ()
    return [[max(int(n // f), 1) for n, f in zip(s, factor[1:], strict=True)] for s in sizes]


def _reaches(size: Sequence[int], corner: tuple[int, ...]) -> bool:
    return all(n > first for n, first in zip(size, corner, strict=True))


def _names(volume: Image) -> list[str]:
    """Name the files after the images that were converted, or by the numbers of slices."""
    depth, stems = volume.levels[0].shape[0], [Path(name).stem for name in names_of(volume)]
    repeated = Counter(stems)
    digits = len(str(depth - 1))
    numbers = [f"{k:0{digits}d}" for k in range(depth)]
    if len(stems) != depth:
        return [f"{number}.png" for number in numbers]
    numbered = [f"{number}-{stem}" for number, stem in zip(numbers, stems, strict=True)]
    chosen = [s if repeated[s] == 1 else n for s, n in zip(stems, numbered, strict=True)]
    return [f"{name}.png" for name in (chosen if len({*chosen}) == depth else numbered)]
