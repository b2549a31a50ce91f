"""``volseg train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.options import device_option, overwrite_option, sizes_option, volume_argument
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration

if TYPE_CHECKING:
    from volseg.stages.train import TrainReport

REGION = "Z0:Z1,Y0:Y1,X0:X1"
RECIPE = ("architecture", "width", "patch", "batch", "steps", "minutes", "learning_rate", "seed")


@click.command("train")
@volume_argument
@click.option(
    "--labels",
    required=True,
    help="Name of labels in VOLUME, or a path: Zarr or label TIFF. Above 0 is foreground.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for checkpoint, log and weights.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Length of the run in steps.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Or its length in minutes."
)
@click.option(
    "--roi", metavar=REGION, help="Train on this region.  [default: all slices not validated on]"
)
@click.option(
    "--validation", metavar=REGION, help="Hold this region out.  [default: the last fifth of z]"
)
@click.option("--name", help="Of the weights.  [default: the output folder's]")
@click.option(
    "--architecture",
    type=click.Choice(["emnet", "emnet-paper"]),
    default="emnet",
    show_default=True,
    help="The network; emnet-paper is the published form, whose results depend on tiles.",
)
@click.option(
    "--width",
    type=click.IntRange(min=8),
    default=32,
    show_default=True,
    help="Base width, a multiple of 8; the published network has 64.",
)
@sizes_option("--patch", "Voxels per training patch.  [default: 32,96,96]")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Patches per step."
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=2e-3,
    show_default=True,
    help="At its highest, after the warm-up.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of chance.")
@click.option(
    "--terms", default="not stated", help="Terms of the data, noted in the weights' card."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that draw patches; the result is the same.  [default: one per core, at most 4]",
)
@device_option
@overwrite_option
@with_session
def train_command(session: Session, volume: Path, **values: Any) -> None:
    """Train a network on VOLUME and its labels.

    Writes OUTPUT/NAME.safetensors, which `volseg segment --model` takes, with a card that says
    what it was trained on and how well it does. A run that was interrupted goes on from its last
    checkpoint when the same command is given again.
    """
    from volseg.stages.train import TrainOptions, train
    from volseg.training.config import TrainConfig

    recipe = {name: values.pop(name) for name in RECIPE}
    given = {name: value for name, value in recipe.items() if value is not None}
    options = TrainOptions(**values, config=TrainConfig(**given))
    report = train(volume, options, session.progress(), lambda row: session.note(describe_row(row)))
    if report.steps_now == 0:
        session.note(f"this run was finished before, after {report.step} steps; nothing was done")
    session.result(report, describe_report(report))


def describe_row(row: Mapping[str, float]) -> str:
    """Put a row of the log in words.

    Examples
    --------
    >>> row = {"step": 250, "minutes": 6.2, "loss": 0.51, "jaccard": 0.618, "threshold": 0.4}
    >>> describe_row(row)
    'step 250, 6.2 min: loss 0.510, validation Jaccard 0.618 at threshold 0.40'
    """
    return (
        f"step {row['step']}, {row['minutes']} min: loss {row['loss']:.3f}, validation Jaccard "
        f"{row['jaccard']:.3f} at threshold {row['threshold']:.2f}"
    )


def describe_report(report: TrainReport) -> str:
    """Put in words what a run came to."""
    best = report.best
    return (
        f"validation Jaccard {best['jaccard']:.3f} at step {best['step']} of {report.step}, after "
        f"{duration(60 * report.minutes)}; next: volseg segment VOLUME --model {report.weights}"
    )
