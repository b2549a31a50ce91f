"""``volseg train``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from volseg.api.training import train
from volseg.cli.help import Command
from volseg.cli.options import (
    device_option,
    overwrite_option,
    parse_file,
    sizes_option,
    voxel_size_option,
)
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration
from volseg.errors import command

if TYPE_CHECKING:
    from volseg.stages.train.run import TrainReport

REGION = "Z0:Z1,Y0:Y1,X0:X1"
LOSSES = ("bce", "bce-dice", "dice", "emnet", "jaccard", "log-dice", "square-dice")


def split_pair(text: str) -> tuple[str, str]:
    """Split ``VOLUME=LABELS`` at its last equals sign.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> split_pair("vol.zarr=mitochondria")
    ('vol.zarr', 'mitochondria')
    """
    volume, _, labels = text.rpartition("=")
    if not volume or not labels:
        raise click.BadParameter(f"expected VOLUME=LABELS, found {text!r}")
    return volume, labels


def parse_slices(text: str) -> tuple[int, ...]:
    """Read slices written as 3,17,40 or 5-9, counted from 0.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> parse_slices("3,17,20-22")
    (3, 17, 20, 21, 22)
    """
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            found += range(int(first), int(last or first) + 1)
        except ValueError:
            raise click.BadParameter(
                f"expected slices, such as 3,17,20-22, found {text!r}"
            ) from None
    return tuple(found)


def _repeated(parse: Any) -> Any:
    """Read each text of a flag that may be given several times."""

    def callback(_context: click.Context, _parameter: click.Parameter, texts: Any) -> Any:
        return [parse(text) for text in texts]

    return callback


@click.command(
    "train",
    cls=Command,
    example="volseg train vol.zarr --labels labels.tif --output mine --minutes 120",
)
@click.argument("volumes", metavar="[VOLUME]...", nargs=-1)
@click.option(
    "--labels",
    multiple=True,
    help="Name of labels in VOLUME, or a path: Zarr or label TIFF; one for each VOLUME. Above 0 is "
    "foreground.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="VOLUME=LABELS",
    callback=_repeated(split_pair),
    help="Another way to name them; may be repeated.",
)
@click.option(
    "--validation-data",
    multiple=True,
    metavar="VOLUME=LABELS",
    callback=_repeated(split_pair),
    help="Validate on all of this; nothing else is held out then. May be repeated.",
)
@click.option(
    "--output",
    required=True,
    type=parse_file,
    help="Folder for checkpoint, log and weights.",
)
@click.option(
    "--config",
    type=parse_file,
    help="Recipe of a run, as TOML; flags override it. Every run leaves its recipe.toml.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Length of the run in steps.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Or its length in minutes."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Or its length in epochs; one draws as many voxels as there are to train on.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    help="End after so many validations without a better one.  [default: 0, never]",
)
@click.option(
    "--roi",
    multiple=True,
    metavar=REGION,
    help="Train on this region; once, or once for each VOLUME.  [default: all not validated on]",
)
@click.option(
    "--validation",
    multiple=True,
    metavar=REGION,
    help="Hold this region out.  [default: the last fifth of z; of --images, one in five]",
)
@click.option(
    "--slices",
    multiple=True,
    metavar="Z,Z,...",
    callback=_repeated(parse_slices),
    help="Only these slices are annotated, counted from 0; ranges are written 5-9.",
)
@click.option("--images", is_flag=True, help="Slices are unrelated images; for 2D networks.")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    help="Train on this part of the slices only, chosen by --seed.  [default: 1]",
)
@voxel_size_option
@click.option("--name", help="Of the weights.  [default: the output folder's]")
@click.option(
    "--architecture",
    metavar="NAME",
    help="The network: emnet, unet2d, unet3d, attention-unet and others.  [default: emnet]",
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    help="Channels at full resolution.  [default: 32 for emnet, else 16]",
)
@click.option(
    "--from",
    "start",
    metavar="MODEL",
    help="Start from these weights, a shipped name or a path; learns with a tenth of the rate.",
)
@click.option(
    "--loss",
    type=click.Choice(LOSSES),
    help="What is minimised.  [default: emnet for emnet, else bce-dice]",
)
@sizes_option(
    "--patch",
    "Voxels per training patch.  [default: 32,96,96; 1,256,256 for networks of slices]",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Patches per step.  [default: 1; 2 in 2D]"
)
@click.option(
    "--gamma",
    type=click.FloatRange(0, min_open=True),
    help="Preprocess with V_in ** GAMMA, of the window between two percentiles.  [default: 1]",
)
@click.option("--equalise", is_flag=True, help="Preprocess by histogram equalisation.")
@click.option(
    "--optimizer", type=click.Choice(["adam", "adamw"]), help="What steps.  [default: adamw]"
)
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine", "step"]),
    help="How the learning rate falls; in steps by 0.9 every 15 epochs.  [default: cosine]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="At its highest, after the warm-up.  [default: 0.002 for emnet, else 0.001]",
)
@click.option(
    "--validate-every",
    type=click.IntRange(min=1),
    help="Steps between validations.  [default: 250]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of chance.  [default: 0]")
@click.option("--terms", help="Terms of the data, noted in the weights' card.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that draw patches; the result is the same.  [default: one per core, at most 4]",
)
@device_option
@overwrite_option
@with_session
def train_command(session: Session, volumes: tuple[str, ...], **options: Any) -> None:
    """Train a network on each VOLUME and its labels.

    VOLUME is an OME-Zarr folder, or a stack of images as `volseg convert` takes it. Writes
    OUTPUT/NAME.safetensors, which `volseg segment --model` takes, with a card that says what it was
    trained on and how well it does. A run that was interrupted goes on from its last checkpoint
    when the same command is given again.
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
    end = ", where it was stopped because it no longer improved" if report.stopped_early else ""
    return (
        f"validation Jaccard {best['jaccard']:.3f} at step {best['step']} of {report.step}{end}, "
        f"after {duration(60 * report.minutes)}; {describe_objects(report.objects)}; next: "
        + command("segment", "VOLUME", "--model", report.weights)
    )


def describe_objects(noted: Mapping[str, Any]) -> str:
    """Put in words how the rules for objects were chosen.

    Examples
    --------
    >>> describe_objects({"F1": 0.8, "F1 of all objects": 0.1, "kept": 5})
    'keeping 5 objects of the held-out region by size and mean probability: F1 0.80, of all 0.10'
    >>> describe_objects({"not chosen": "slices are unrelated images"})
    'no rules for objects, because slices are unrelated images'
    """
    if "not chosen" in noted:
        return f"no rules for objects, because {noted['not chosen']}"
    return (
        f"keeping {noted['kept']} objects of the held-out region by size and mean probability: "
        f"F1 {noted['F1']:.2f}, of all {noted['F1 of all objects']:.2f}"
    )
