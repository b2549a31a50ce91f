"""``volseg train``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from volseg.api.train_options import TrainKeywords
from volseg.api.training import train
from volseg.cli.options import with_options
from volseg.cli.session import Session
from volseg.cli.wording import duration
from volseg.errors import command

if TYPE_CHECKING:
    from volseg.stages.train.run import TrainReport


@with_options(
    "volseg train vol.zarr --labels labels.tif --output mine --minutes 120",
    TrainKeywords,
    start="--from",
    overwrite="--overwrite/--resume",
)
@click.argument("volumes", metavar="[VOLUME]...", nargs=-1)
def train_command(session: Session, volumes: tuple[str, ...], **options: Any) -> None:
    """Train a network on each VOLUME and its labels.

    VOLUME is an OME-Zarr folder, or a stack of images as `volseg convert` takes it. Writes
    OUTPUT/NAME.safetensors, which `volseg segment --model` takes, with a card that says what it was
    trained on and how well it does. The same command resumes an interrupted run from its last
    checkpoint.
    """
    report = train(
        volumes,
        on_row=lambda row: session.note(describe_row(row)),
        progress=session.progress(),
        **options,
    )
    if report.steps_now == 0:
        session.note(f"this run was finished before, after {report.step} steps; nothing was done")
    session.result(report, describe_report(report))


def describe_row(row: Mapping[str, float]) -> str:
    """Describe a row of the log.

    Examples
    --------
    >>> row = {"step": 250, "minutes": 6.2, "loss": 0.51, "jaccard": 0.618, "threshold": 0.4}
    >>> describe_row({**row, "precision": 0.7, "recall": 0.84})
    'step 250, 6.2 min: loss 0.510, validation Jaccard 0.618 (precision 0.70, recall 0.84) at threshold 0.40'
    """  # noqa: E501
    held = f" (held out {row['validation_loss']:.3f})" if "validation_loss" in row else ""
    line = (
        f"step {row['step']}, {row['minutes']} min: loss {row['loss']:.3f}{held}, "
        f"{describe_overlap(row)} at threshold {row['threshold']:.2f}"
    )
    if "object_precision" not in row:
        return line
    return (
        f"{line}; objects precision {row['object_precision']:.2f}, recall "
        f"{row['object_recall']:.2f}"
    )


def describe_overlap(row: Mapping[str, float]) -> str:
    """Describe how well the held-out voxels were found."""
    return (
        f"validation Jaccard {row['jaccard']:.3f} (precision {row['precision']:.2f}, "
        f"recall {row['recall']:.2f})"
    )


def describe_report(report: TrainReport) -> str:
    """Describe the outcome of a run, a line for each thing."""
    best = report.best
    end = ", where it was stopped because it no longer improved" if report.stopped_early else ""
    lines = [
        f"{describe_overlap(best)} at step {best['step']} of {report.step}{end}",
        f"training data: Jaccard {report.training['jaccard']:.3f}",
        describe_objects(report.objects),
        describe_median(report.median),
        f"weights: {report.weights}, after {duration(60 * report.minutes)}",
        "next: " + command("segment", "VOLUME", "--model", report.weights),
    ]
    return "\n".join(filter(None, lines))


def describe_objects(noted: Mapping[str, Any]) -> str:
    """Put in words how the rules for objects were chosen.

    Examples
    --------
    >>> describe_objects({"F1": 0.8, "F1 of all objects": 0.1, "kept": 5})
    'keeping 5 objects of the held-out region by size and mean probability: F1 0.80, of all 0.10'
    >>> chosen = {"threshold": 0.6, "min_probability": 0.9, "Jaccard": 0.8}
    >>> describe_objects({**chosen, "Jaccard of all objects": 0.75})
    'keeping objects from a probability of 0.6 on, of a mean of 0.9: Jaccard 0.800, of all 0.750'
    >>> describe_objects({"not chosen": "slices are unrelated images"})
    'no rules for objects, because slices are unrelated images'
    """
    if "not chosen" in noted:
        return f"no rules for objects, because {noted['not chosen']}"
    if "Jaccard" in noted:
        least = noted["min_probability"]
        return (
            f"keeping objects from a probability of {noted['threshold']:.3g} on"
            f"{f', of a mean of {least:g}' if least else ''}: Jaccard {noted['Jaccard']:.3f}, "
            f"of all {noted['Jaccard of all objects']:.3f}"
        )
    return (
        f"keeping {noted['kept']} objects of the held-out region by size and mean probability: "
        f"F1 {noted['F1']:.2f}, of all {noted['F1 of all objects']:.2f}"
    )


def describe_median(noted: Mapping[str, Any]) -> str:
    """Put in words what the median of slices does to held-out ones, if the card asks for it.

    Examples
    --------
    >>> describe_median({"nm": 35.0, "Jaccard": 0.72, "with the median": 0.75})
    'median of slices 35 nm apart: Jaccard 0.720 without, 0.750 with it'
    >>> describe_median({"nm": 0.0, "Jaccard": 0.72, "with the median": 0.70}), describe_median({})
    ('', '')
    """
    if not noted.get("nm"):
        return ""
    return (
        f"median of slices {noted['nm']:g} nm apart: Jaccard {noted['Jaccard']:.3f} without, "
        f"{noted['with the median']:.3f} with it"
    )
