"""Arrays in, arrays out: what the commands do to volumes, in a folder that is gone afterwards.

The same stages run on the same bytes, so the numbers are those of the commands. An array is written
once to the system's folder for temporary files, and read back block by block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from volseg.api.judging import CompareArraysKeywords, evaluate, stats
from volseg.api.keywords import takes
from volseg.api.making import convert, label, segment
from volseg.api.opening import open as open_volume
from volseg.api.options import LabelArrayKeywords, MeasureArrayKeywords, PredictArrayKeywords
from volseg.api.scratch import (
    as_levels,
    create_empty,
    scratch_folder,
    without,
    write_array,
    write_probabilities,
)
from volseg.defaults import NAME
from volseg.errors import ParameterError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from volseg.engine.progress import Progress
    from volseg.measures.summary import Summary
    from volseg.stages.evaluate.run import Evaluation
    from volseg.storage.cards import Card
    from volseg.types import Labels, Probabilities, VoxelSize, Zyx


@dataclass(frozen=True)
class Measures:
    """Objects of an array, measured.

    Attributes
    ----------
    summary : one row for the array
    columns : one row per object, by the names of ``docs/measurements.md``
    units : of columns
    notes : what the user should know
    """

    summary: Summary
    columns: dict[str, NDArray[Any]]
    units: dict[str, str]
    notes: tuple[str, ...]


@takes(PredictArrayKeywords)
def predict_array(
    raw: ArrayLike,
    *,
    voxel_size: VoxelSize | None,
    progress: Progress | None = None,
    **options: Unpack[PredictArrayKeywords],
) -> Probabilities:
    """Predict the probabilities of an image, with the options of `segment`.

    Parameters
    ----------
    raw : uint8, uint16, int16 or float32, shape (z, y, x)
    voxel_size : nm (z, y, x); None if unknown, which must be said

    Returns
    -------
    uint8, shape (z, y, x)
        0 to 255, standing for 0 to 1.

    Raises
    ------
    InputError
        If the array or an option cannot be used, or the network knows several classes.
    """
    from volseg.storage.cards import load_card

    model = options.get("model")
    card = None if model is None else load_card(model)
    known = [] if card is None else [m.name for m in card.maps if m.is_class]
    if card is not None and len(known) > 1:
        raise ParameterError(
            f"{card.name} knows {', '.join(known)}, and an array holds one class: use "
            f"segment(volume, classes=...), which writes each by its own name"
        )
    with scratch_folder() as folder:
        volume, workers = folder / "raw.zarr", options.get("workers")
        convert(write_array(folder / "raw", raw), volume, voxel_size=voxel_size, workers=workers)
        segment(volume, progress=progress, **options)
        found: Probabilities = open_volume(volume).probabilities[NAME][...]
    return found


@takes(LabelArrayKeywords)
def label_array(
    probabilities: ArrayLike,
    *,
    voxel_size: VoxelSize | None = None,
    model: str | None = None,
    raw: ArrayLike | None = None,
    progress: Progress | None = None,
    **options: Unpack[LabelArrayKeywords],
) -> Labels:
    """Find the objects in probabilities, by the rules of `label`.

    Parameters
    ----------
    probabilities : uint8, 0 to 255, or floats from 0 to 1, shape (z, y, x); or bool, a mask
    voxel_size : nm (z, y, x), optional
    model : str, optional
        Shipped model or path that states ``threshold``, ``min_size``, ``min_probability``,
        ``faint_size`` and ``median_nm`` where they are not given; without one the threshold must
        be given, and the others are 0.
    raw : array of the same shape, optional
        Image that the probabilities are of. Where its neighbouring slices have little in common,
        as `segment` sees it, the model's median is not taken, nor is it with ``images=True``.

    Returns
    -------
    uint32 or uint64, shape (z, y, x)
        Objects, numbered from 1 by their first voxels.

    Raises
    ------
    InputError
        If the array or a rule cannot be used.
    """
    from volseg.storage.cards import load_card, sizes_of_objects

    threshold = options.get("threshold")
    if options.get("split") in {"centerline", "contour", "offset"}:
        kind = options["split"]
        raise ParameterError(f"{kind}s need a volume; use split='distance', or label(volume)")
    if model is None and threshold is None:
        raise ParameterError("give a threshold, or the model whose threshold is to be taken")
    card = None if model is None else load_card(model)
    stated = {
        "threshold": threshold if card is None else card.threshold,
        "min_probability": 0 if card is None else card.min_probability,
        **({} if card is None else sizes_of_objects(card)),
    }
    with scratch_folder() as folder:
        volume = folder / "array.zarr"
        levels = as_levels(probabilities)
        if card is not None:
            stated |= _median_of(card, levels.shape, raw, folder / "raw")
        write_probabilities(volume, levels, voxel_size, stated)
        label(volume, progress=progress, **options)
        found: Labels = open_volume(volume).labels[NAME][...]
    return found


def _median_of(card: Card, shape: Zyx, raw: ArrayLike | None, folder: Path) -> dict[str, float]:
    """Take a card's median as `segment` would of this image; without one, as of any."""
    from volseg.stages.survey.notes import usual_median
    from volseg.storage.volumes import open_image

    volume = folder / "raw.zarr"
    if raw is None:
        create_empty(volume, shape, None)
    else:
        convert(write_array(folder / "array", raw), volume)
    image = open_image(volume)
    if image.levels[0].shape != shape:
        raise ShapeError(
            f"raw has the shape {image.levels[0].shape}, and the probabilities have {shape}"
        )
    return usual_median(card.median_nm, image)


@takes(MeasureArrayKeywords)
def measure_array(
    labels: ArrayLike,
    *,
    voxel_size: VoxelSize | None = None,
    raw: ArrayLike | None = None,
    progress: Progress | None = None,
    **options: Unpack[MeasureArrayKeywords],
) -> Measures:
    """Count and measure the objects of an array, with the options of `stats`.

    Parameters
    ----------
    labels : integers, shape (z, y, x), 0 the background
    voxel_size : nm (z, y, x), optional
        Without it sizes are in voxels.
    raw : array of the same shape, optional
        Image, for the intensities of objects.

    Raises
    ------
    InputError
        If an array or an option cannot be used.
    """
    with scratch_folder() as folder:
        volume, place, workers = folder / "raw.zarr", folder / "labels", options.get("workers")
        shape = open_volume(write_array(place, labels)).shape
        if raw is not None:
            image = write_array(folder / "raw", raw)
            convert(image, volume, voxel_size=voxel_size, workers=workers)
        else:
            create_empty(volume, shape, voxel_size)
            if options.get("measure", "full") == "full":
                options["measure"] = "shapes"
        found = stats(volume, labels=place, progress=progress, **options)
        notes = without(folder, found.notes)
    return Measures(found.summary, found.columns, found.units, notes)


@takes(CompareArraysKeywords)
def compare_arrays(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    voxel_size: VoxelSize | None = None,
    mask: ArrayLike | None = None,
    progress: Progress | None = None,
    **options: Unpack[CompareArraysKeywords],
) -> Evaluation:
    """Compare the objects of two arrays, with the options of `evaluate`.

    Parameters
    ----------
    truth, prediction : integers, shape (z, y, x), 0 the background
        An array of one value is a mask, and its connected components are its objects.
    voxel_size : nm (z, y, x), optional
    mask : array of the same shape, optional
        Count only voxels above 0 here.

    Raises
    ------
    InputError
        If an array or an option cannot be used.
    """
    with scratch_folder() as folder:
        volume = folder / "array.zarr"
        places = {"truth": truth, "prediction": prediction, "mask": mask}
        written = {k: write_array(folder / k, v) for k, v in places.items() if v is not None}
        create_empty(volume, open_volume(written["truth"]).shape, voxel_size)
        found = evaluate(
            volume,
            truth=written["truth"],
            labels=written["prediction"],
            mask=written.get("mask"),
            progress=progress,
            **options,
        )
        notes = without(folder, found.notes)
    return replace(
        found, volume=Path("array"), truth=Path("truth"), prediction=Path("prediction"), notes=notes
    )
