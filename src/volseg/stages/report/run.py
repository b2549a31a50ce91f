"""Report: gather numbers and pictures of volumes, and write them as one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.measures.comparison import compare_volumes
from volseg.measures.summary import NM2_PER_UM2, NM3_PER_UM3
from volseg.measures.suspects import Suspect, rank_suspects
from volseg.stages.components.masks import store_objects
from volseg.stages.report.again import find_necks, measure_disagreement
from volseg.stages.report.charts import draw_curve, draw_distributions
from volseg.stages.report.drawing import encode_picture
from volseg.stages.report.explained import Sheet, draw_panels
from volseg.stages.report.methods import describe_methods
from volseg.stages.report.page import Content, ShownSuspect, ShownVolume, write_page
from volseg.stages.report.pictures import draw_planes, draw_suspect
from volseg.stages.report.plan import ReportOptions, Subject
from volseg.stages.report.surfaces import can_mesh, make_surfaces, viewer_script
from volseg.storage.images import read_explanation
from volseg.storage.scratch import lend_scratch
from volseg.storage.volumes import scratch_path

MEASURES = (
    ("volume_nm3", "voxels", "volume", NM3_PER_UM3, "µm³"),
    ("surface_area_nm2", "surface_area", "surface", NM2_PER_UM2, "µm²"),
    ("sphericity", "sphericity", "sphericity", 1.0, ""),
    ("complexity_index", "complexity_index", "complexity index", 1.0, ""),
)
"""Columns with and without a voxel size, their name, what they are divided by, and the unit."""
EXPLAINED = 320
"""Most pixels of a side of a picture that explains."""
MESHED = 8
"""Volumes that are shown in 3D: browsers draw few such views at a time."""


@dataclass(frozen=True)
class ReportResult:
    """Result of a report."""

    path: Path
    nbytes: int
    suspects: int
    seconds: float


def report(subjects: Sequence[Subject], options: ReportOptions, progress: Progress) -> ReportResult:
    """Write a page about volumes, completely or not at all."""
    begun = time.monotonic()
    with ExitStack() as scratch:
        content = _draw([_with_objects(s, scratch, progress) for s in subjects], options, progress)
    nbytes = write_page(options.output, content)
    return ReportResult(options.output, nbytes, len(content.suspects), time.monotonic() - begun)


def _with_objects(subject: Subject, scratch: ExitStack, progress: Progress) -> Subject:
    """Write the objects of a mask out, so that pictures can tell them apart."""
    if subject.mask is None:
        return subject
    folder = scratch.enter_context(lend_scratch(scratch_path(subject.path), "report"))
    array = store_objects(subject.mask, folder, EngineOptions(), progress)[0].array
    if array is None:
        return subject
    return replace(subject, labels=replace(subject.labels, levels=(array,), factors=((1, 1, 1),)))


def _draw(subjects: Sequence[Subject], options: ReportOptions, progress: Progress) -> Content:
    """Draw and compare all that a page shows."""
    meshes = can_mesh()
    volumes, suspects, asked = list[ShownVolume](), [], 0
    with Job(progress, 2 * len(subjects), "steps", "drawing").shown():
        for subject in subjects:
            planes, window = draw_planes(subject, len(subjects))
            progress.advance(1)
            few = len(subjects) if len(volumes) < MESHED else 0
            surfaces = make_surfaces(subject, min(few, MESHED)) if meshes and few else None
            explained = _draw_explanation(subject)
            curves = _draw_scores(subject)
            volumes.append(ShownVolume(subject, planes, curves, surfaces, explained))
            ranked, again = _rank(subject, options.suspects, -(-options.suspects // len(subjects)))
            asked += again
            suspects += [(subject, s, window) for s in ranked]
            progress.advance(1)
    suspects.sort(key=lambda entry: -entry[1].score)
    measures = gather_measures(subjects)
    comparisons = compare_volumes({n: list(g.values()) for n, g in measures.items()})
    return Content(
        volumes,
        [draw_distributions(groups, name) for name, groups in measures.items()],
        comparisons,
        [ShownSuspect(s, w, draw_suspect(s, w, t)) for s, w, t in suspects[: options.suspects]],
        describe_methods(
            [(s.title, s.image, s.labels, s.probabilities) for s in subjects],
            [s.surface for s in subjects],
            [(c.test, c.effect) for c in comparisons if c.effect != "none"],
        ),
        viewer_script() if any(v.surfaces for v in volumes) else None,
        options.output,
        asked,
    )


def _rank(subject: Subject, most: int, again: int) -> tuple[list[Suspect], int]:
    """Rank suspects; the first of them, as many as are told, are predicted again before."""
    necks = find_necks(subject) if most else ()
    ranked = rank_suspects(subject.columns, most, necks)
    found = measure_disagreement(subject, ranked[:again])
    ranked = rank_suspects(subject.columns, most, necks, found.flips, found.views)
    return ranked, len(found.flips)


def _draw_explanation(subject: Subject) -> tuple[Sheet, list[str]] | None:
    """Draw what `volseg explain` left."""
    name = subject.name
    explanation = read_explanation(subject.path, name)
    if explanation is None:
        return None
    sheet = draw_panels(subject.image, name, explanation, EXPLAINED)
    return sheet, [encode_picture(panel.pixels) for panel in sheet.panels]


def _draw_scores(subject: Subject) -> tuple[str, str] | None:
    """Draw precision over recall, and ROC, with the threshold of the labels marked."""
    if subject.evaluation is None or subject.evaluation.curves is None:
        return None
    curves, found = subject.evaluation.curves, subject.evaluation.foreground
    recall, outside = found.recall, found.predicted_only + found.neither
    words = f"area {curves.pr_area:.3f}; the objects have precision {found.precision:.3f} and "
    words += f"recall {recall:.3f}"
    at, names = (recall, found.precision), ("recall", "precision")
    first = draw_curve(curves.recall, curves.precision, at, names, words)
    wrong = found.predicted_only / outside if outside else 0.0
    words = f"area {curves.roc_area:.3f}; the objects have recall {recall:.3f} at a false positive "
    words += f"rate of {wrong:.4f}"
    at, names = (wrong, recall), ("false positive rate", "recall")
    return first, draw_curve(curves.false_positive_rate, curves.recall, at, names, words)


def gather_measures(subjects: Sequence[Subject]) -> dict[str, dict[str, Any]]:
    """Collect the measures that all volumes have in one unit, by name and volume.

    Of several results of a volume each is compared with those of its name alone.
    """
    found: dict[str, dict[str, Any]] = {}
    names = dict.fromkeys(s.name for s in subjects)
    for result, (physical, plain, name, divisor, unit) in product(names, MEASURES):
        own = [s for s in subjects if s.name == result]
        if physical == "volume_nm3" and all(s.summary.images is not None for s in own):
            found |= _areas(own, f" of {result}" if len(names) > 1 else "")
            continue
        shown = f"{name} of {result}" if len(names) > 1 else name
        if all(physical in s.columns for s in own):
            title = f"{shown} ({unit})" if unit else shown
            found[title] = {s.title: s.columns[physical] / divisor for s in own}
        elif all(plain in s.columns for s in own):
            found[f"{shown} (voxels)"] = {s.title: s.columns[plain] for s in own}
    return found


def _areas(subjects: Sequence[Subject], of: str) -> dict[str, dict[str, Any]]:
    """Give the areas of objects in unrelated images, of which thickness means nothing."""
    sides = [s.summary.voxel_size for s in subjects]
    pixels = [s[1] * s[2] / NM2_PER_UM2 for s in sides if s is not None]
    title, unit = f"area{of}", "µm²"
    if len(pixels) < len(sides):
        pixels, unit = [1.0] * len(sides), "pixels"
    pairs = zip(subjects, pixels, strict=True)
    return {f"{title} ({unit})": {s.title: s.columns["voxels"] * pixel for s, pixel in pairs}}
