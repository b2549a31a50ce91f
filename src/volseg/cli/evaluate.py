"""``volseg evaluate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.api.judging import EvaluateKeywords, check_output, evaluate_all, save_evaluations
from volseg.cli.options import scratch_option, volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import duration, scaled
from volseg.errors import StorageError, list_some
from volseg.fields import plain
from volseg.types import FULL_PROBABILITY, extent, probability_of

if TYPE_CHECKING:
    from volseg.scores.mistakes import WrongObjects
    from volseg.stages.evaluate.run import Evaluation

LISTED = 5
"""Most objects of each kind that are printed, and most that one holds; JSON has all."""


@with_options("volseg evaluate vol.zarr --truth labels.tif --output scores", EvaluateKeywords)
@volume_argument
@scratch_option
def evaluate_command(session: Session, volume: Path, output: str | None, **options: Any) -> None:
    """Compare the objects of VOLUME with the truth.

    Scores the foreground, the objects and, where VOLUME has them, the probabilities, and names the
    objects that are missed, false, split or merged. Writes nothing without --output. With several
    --name each is scored by itself, and --json prints a list.
    """
    if output is not None:
        check_output(output)
    results = evaluate_all(volume, progress=session.progress(), **options)
    for result in results:
        session.notes(result.notes)
    report = plain(results if len(results) > 1 else results[0])
    text = describe_evaluation(results[0])
    if len(results) > 1:
        text = "\n\n".join(f"{r.prediction.name}\n{describe_evaluation(r)}" for r in results)
    try:
        written = [] if output is None else save_evaluations(results, output)
    except StorageError:
        if not session.as_json:  # of which there is one object only: the error's
            session.result(report, text)
        raise
    session.result(report, text)
    if written:
        session.note(f"written: {', '.join(map(str, written))}")
        if not any(path.suffix == ".png" for path in written):
            session.note("note: no curves are drawn without matplotlib; install it to get them")


def describe_evaluation(result: Evaluation) -> str:
    """Describe an evaluation."""
    errors = ("missed", "false", "split", "merged")
    where = extent([side.stop - side.start for side in result.region])
    lines = [
        f"compared {scaled(result.voxels)} voxels of {where}, after {duration(result.seconds)}",
        _foreground(result),
        *_objects(result),
        *_images(result),
        *_boundary(result),
        *_segments(result),
        *_probabilities(result),
        *_sizes(result),
        *(line for kind in errors for line in _listed(kind, getattr(result.errors, kind))),
    ]
    return "\n".join(lines)


def _foreground(result: Evaluation) -> str:
    f = result.foreground
    parts = f"precision {score(f.precision)}, recall {score(f.recall)}"
    return (
        f"foreground: Dice {score(f.dice)}, Jaccard {score(f.jaccard)}, {parts}, accuracy "
        f"{score(f.accuracy)}"
    )


def _objects(result: Evaluation) -> list[str]:
    s, m = result.objects, result.mean
    recall, precision = score(s.recall, 2), score(s.precision, 2)
    counts = f"matched {s.matched} of {s.truth} objects"
    means = f"TP/(TP+FP+FN) {score(m.average_precision)}, TP/(TP+FP) {score(m.precision)}"
    others = f"{s.missed} missed, {s.false} false"
    return [
        f"{counts} (recall {recall}, precision {precision}) at IoU {s.threshold:g}; {others}",
        *_specks(result),
        f"  F1 {score(s.f1)}, panoptic quality {score(s.panoptic_quality)}",
        f"  average precision TP/(TP+FP+FN) {score(s.average_precision)}",
        f"  means over IoU 0.50, 0.55 ... 1.00: {means}",
    ]


def _images(result: Evaluation) -> list[str]:
    """Average the scores of unrelated images, each of which counts as much as any other."""
    found = result.images
    if not found:
        return []
    names = ("dice", "jaccard", "average_precision", "precision")
    known = ([v for i in found if not math.isnan(v := getattr(i, name))] for name in names)
    dice, jaccard, mean, precision = (
        score(sum(values) / len(values) if values else math.nan) for values in known
    )
    objects = f"TP/(TP+FP+FN) {mean}, TP/(TP+FP) {precision}"
    line = f"means over {len(found)} images, each by itself: Dice {dice}, Jaccard {jaccard}"
    return [f"{line}; over IoU 0.50 ... 1.00 {objects}"]


def _specks(result: Evaluation) -> list[str]:
    """Name objects that no annotator meant to draw, which count as missed."""
    if not result.specks:
        return []
    are = "is a speck" if result.specks == 1 else "are specks"
    line = (
        f"  {result.specks} of the {result.objects.truth} {are} of one or two voxels in the truth"
    )
    return [f"{line}; --min-size 3 leaves them out"]


def _boundary(result: Evaluation) -> list[str]:
    """Say how far surfaces lie apart, and how many lie too far to tell."""
    b = result.boundary
    if b is None:
        return []
    far = f"95% within {b.hausdorff95:.3g} {b.unit}"
    if math.isinf(b.hausdorff95):
        far = f"more than 5% beyond {b.reach:g} {b.unit}"
    lost = f"; {b.beyond:.1%} beyond {b.reach:g} {b.unit}, not in the mean" if b.beyond else ""
    parts = f"precision {score(b.precision)}, recall {score(b.recall)}"
    agree = f"surfaces: F1 {score(b.f1)} at {b.tolerance:g} {b.unit} ({parts})"
    return [f"{agree}, mean distance {score(b.mean, 2)} {b.unit}, {far}{lost}"]


def _segments(result: Evaluation) -> list[str]:
    rand, variation = result.rand, result.variation
    parts = f"precision {score(rand.precision)}, recall {score(rand.recall)}"
    bits = f"split {score(variation.split)}, merge {score(variation.merge)}"
    return [
        f"adapted Rand error {score(rand.error)} ({parts})",
        f"variation of information, in bits: {bits}",
    ]


def _probabilities(result: Evaluation) -> list[str]:
    if result.curves is None:
        return []
    c = result.curves
    areas = f"precision and recall {score(c.pr_area)}, ROC {score(c.roc_area)}"
    best = f"best Jaccard {score(c.best_jaccard)}, at threshold {_threshold(c.best_threshold)}"
    return [
        "by the probabilities alone, without rules for objects:",
        f"  areas under the curves: {areas}",
        f"  {best}",
    ]


def _threshold(value: float) -> str:
    """Write a threshold so that ``--threshold`` takes the same.

    Examples
    --------
    >>> _threshold(128 / 255), _threshold(float("nan"))
    ('0.5', 'n/a')
    """
    if math.isnan(value):
        return score(value)
    return f"{probability_of(round(value * FULL_PROBABILITY)):g}"


def _sizes(result: Evaluation) -> list[str]:
    found = [
        f"  {b.start} to {b.stop - 1} voxels: {b.matched} of {b.objects} ({score(b.recall, 2)})"
        for b in result.by_size
    ]
    return ["recall by size in the truth:", *found] if found else []


def score(value: float, digits: int = 3) -> str:
    """Write a score; one that is not defined as n/a.

    Examples
    --------
    >>> score(0.87654), score(0.5, 2), score(float("nan"))
    ('0.877', '0.50', 'n/a')
    """
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _listed(kind: str, wrong: WrongObjects) -> list[str]:
    """List the largest objects of one kind."""
    if not wrong:
        return []
    largest = sorted(wrong.largest(LISTED), key=lambda o: -o.voxels)
    some = f", the largest {LISTED}" if len(wrong) > LISTED else ""
    lines = [f"{kind}: {len(wrong)}{some}"]
    for item in largest:
        where = ",".join(f"{c:.0f}" for c in item.centroid)
        lines.append(f"  {item.label} at {where}: {item.voxels} voxels{_held(item.others)}")
    return lines


def _held(labels: Sequence[int]) -> str:
    """Name the objects that lie in another, the first few of many.

    Examples
    --------
    >>> _held([4, 5]), _held(range(1, 9)), _held([])
    (', holds 4, 5', ', holds 1, 2, 3, 4, 5 and 3 more', '')
    """
    return f", holds {list_some(labels, LISTED)}" if labels else ""
