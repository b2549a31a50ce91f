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
    help="Labels of each VOLUME: a name in it, or a Zarr array or label TIFF. Voxels above 0 are "
    "foreground.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="VOLUME=LABELS",
    callback=_repeated(split_pair),
    help="Train on this volume with these labels; may be repeated.",
)
@click.option(
    "--validation-data",
    multiple=True,
    metavar="VOLUME=LABELS",
    callback=_repeated(split_pair),
    help="Validate on this volume, and hold out nothing else; may be repeated.",
)
@click.option(
    "--output",
    metavar="DIR",
    required=True,
    type=parse_file,
    help="Write checkpoint, log and weights to this folder.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=parse_file,
    help="Read options from a TOML recipe, which flags override. Every run writes its recipe.toml.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Train for this many steps.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Train for this many minutes."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Train for this many epochs; an epoch draws as many voxels as there are to train on.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    help="Stop after this many validations without a better one.  [default: 0, never]",
)
@click.option(
    "--roi",
    multiple=True,
    metavar=REGION,
    help="Train on this region; give it once, or once for each VOLUME.  [default: all that is not "
    "held out]",
)
@click.option(
    "--validation",
    multiple=True,
    metavar=REGION,
    help="Validate on this region.  [default: the last fifth along z; with --images, one in five]",
)
@click.option(
    "--slices",
    multiple=True,
    metavar="Z,Z,...",
    callback=_repeated(parse_slices),
    help="Use these annotated slices only, counted from 0; 5-9 is a range.",
)
@click.option("--images", is_flag=True, help="Treat slices as unrelated images; for 2D networks.")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    help="Train on this fraction of the slices, drawn by --seed.  [default: 1]",
)
@voxel_size_option
@click.option("--name", help="Name the weights.  [default: the output folder's name]")
@click.option(
    "--architecture",
    metavar="NAME",
    help="Train this network: emnet, unet2d, unet3d, attention-unet, ...  [default: emnet]",
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
    help="Start from these weights, a shipped name or a path, at a tenth of the learning rate.",
)
@click.option(
    "--loss",
    type=click.Choice(LOSSES),
    help="Minimise this loss.  [default: emnet for emnet, else bce-dice]",
)
@sizes_option(
    "--patch",
    "Size of a training patch in voxels.  [default: 32,96,96; 1,256,256 for 2D networks]",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Patches per step.  [default: 1; 2 in 2D]"
)
@click.option(
    "--gamma",
    type=click.FloatRange(0, min_open=True),
    help="Raise intensities, scaled to 0..1 between two percentiles, to this power.  [default: 1]",
)
@click.option("--equalise", is_flag=True, help="Equalise the histogram of intensities.")
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "adamw"]),
    help="Optimise by this.  [default: adamw]",
)
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine", "step"]),
    help="Lower the learning rate this way; step is by 0.9 every 15 epochs.  [default: cosine]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate after warm-up.  [default: 0.002 for emnet, else 0.001]",
)
@click.option(
    "--validate-every",
    type=click.IntRange(min=1),
    help="Steps between validations.  [default: 250]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Random seed.  [default: 0]")
@click.option("--terms", help="Record the terms of use of the data in the weights' card.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that draw patches; any number gives the same result.  [default: one per core, at "
    "most 4]",
)
@device_option
@overwrite_option
@with_session
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
    >>> describe_row(row)
    'step 250, 6.2 min: loss 0.510, validation Jaccard 0.618 at threshold 0.40'
    """
    return (
        f"step {row['step']}, {row['minutes']} min: loss {row['loss']:.3f}, validation Jaccard "
        f"{row['jaccard']:.3f} at threshold {row['threshold']:.2f}"
    )


def describe_report(report: TrainReport) -> str:
    """Describe the outcome of a run."""
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
