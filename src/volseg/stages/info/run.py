"""Info: what a volume is and what it holds, from its metadata alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from volseg.errors import VolumeError, command
from volseg.geometry.grid import describe
from volseg.scores.likeness import tell_tissue
from volseg.stages.survey.notes import advise, describe_findings, read_survey, tell_astray
from volseg.storage.attributes import (
    read_attributes,
    read_histogram,
    results_in,
    section,
    written_at,
)
from volseg.storage.copies import is_copied
from volseg.storage.images import read_explanation, sizes_of
from volseg.storage.remote import as_remote
from volseg.storage.results import dropped_from
from volseg.storage.stores import is_zarr
from volseg.storage.volumes import Image, open_image
from volseg.types import FULL_PROBABILITY


def info(path: Path) -> dict[str, Any]:
    """Describe a volume and the results in it.

    Returns
    -------
    dict
        JSON-like: the image, and under ``probabilities`` and ``labels`` what stands there. Under
        ``findings`` what is wrong with its slices, None where nobody has looked at them; under
        ``notes`` the same in words.
    """
    if as_remote(path) is None and path.exists() and not is_zarr(path):
        from volseg.sources.readers import find_folder, recognise

        if path.is_file():
            recognise(path)
        elif (reader := find_folder(path)) is not None:
            make = command("convert", path, path.with_suffix(".zarr"))
            raise VolumeError(f"{path} is of the kind {reader.kind}; make a volume with `{make}`")
    image = open_image(path)
    described = _describe(image)
    survey = read_survey(image)
    described["findings"] = None if survey is None else describe_findings(survey)
    described["notes"] = [*tell_astray(image), *advise(image)]
    described["saturated"] = _saturated(image)
    for kind in ("probabilities", "labels"):
        folders = [p for p in results_in(path, kind) if is_zarr(p)]
        described[kind] = {p.name: _describe(open_image(p)) for p in folders}
    described["explanations"] = {}
    for place in results_in(path, "explanations"):
        if explanation := read_explanation(path, place.name):
            described["explanations"][place.name] = {
                "roi": describe(explanation.roi),
                "model": explanation.notes["model"]["name"],
                "layers": [layer.name for layer in explanation.layers],
            }
    described["tables"] = sorted(p.stem for p in results_in(path, "tables", "*.parquet"))
    return described


def _saturated(image: Image) -> list[float] | None:
    """Compute which parts of the voxels have the lowest and the highest value of their type.

    What unrelated images were padded with does not count.
    """
    histogram, dtype = image.attributes.get("histogram"), image.levels[0].dtype
    if not histogram or dtype.kind not in "ui":
        return None
    counts, values = read_histogram(image.path, histogram)
    if sizes := sizes_of(image):
        padded = math.prod(image.levels[0].shape) - sum(map(math.prod, sizes))
        counts = np.maximum(counts - padded * (values == 0), 0)
    if not counts.sum():
        return None
    limits = np.iinfo(dtype)
    return [float(counts[values == end].sum() / counts.sum()) for end in (limits.min, limits.max)]


def _describe(image: Image) -> dict[str, Any]:
    first = image.levels[0]
    attributes, dropped = read_attributes(image.path).get("volseg", {}), dropped_from(image)
    kept = {k: v for k, v in attributes.items() if k not in {"histogram", "survey"}}
    return {
        **_origin(image.path, kept),
        **({"dropped": dropped.describe()} if dropped.by_rule else {}),
        "shape": list(first.shape),
        "dtype": first.dtype.name,
        "voxel_size": None if image.voxel_size is None else list(image.voxel_size),
        "chunk": list(first.chunk),
        "shard": list(first.shard),
        "levels": [list(level.shape) for level in image.levels],
        "copied": is_copied(image.path),
        "volseg": kept,
    }


def _origin(path: Path, noted: Mapping[str, Any]) -> dict[str, Any]:
    """Name the model, threshold, number of objects and date of a result, as far as it has them."""
    run, model = noted.get("run"), noted.get("model")
    if not isinstance(run, dict):
        return {}
    found: dict[str, Any] = {"date": written_at(path)}
    if isinstance(model, dict):
        found["model"] = model.get("name")
    if isinstance(level := run.get("threshold_of_255"), int):
        found["threshold"] = round(level / FULL_PROBABILITY, 2)
    corrections = noted.get("corrections")
    if isinstance(corrections, dict):
        found["corrected_from"] = corrections.get("parent")
        if confirming := section(corrections, "confirmed_by"):
            found["confirmed_by"] = confirming.get("labels")
    if "objects" in noted and (words := tell_tissue(noted.get("tissue"))):
        found["expected"] = words
    return found | ({"objects": noted["objects"]} if "objects" in noted else {})
