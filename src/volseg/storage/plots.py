"""Pictures as PNG files: curves, and what a network sees while it is trained.

Matplotlib is loaded only here, and only when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.storage.files import replacing
from volseg.types import Floats, Mask

INCHES = 4.0
"""Side of a panel."""
DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Panel:
    """One curve in a square from 0 to 1.

    Attributes
    ----------
    title, across, up : what is shown, and on which axis
    x, y : float64, shape (points,); points that are NaN are left out.
    mark : a point to point out, and what it is; None for none
    """

    title: str
    across: str
    up: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mark: tuple[float, float, str] | None = None


def can_draw() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def check_picture(path: Path | None, what: str) -> None:
    """Refuse the name of a picture, if one is given, that does not end in .png."""
    if path is not None and path.suffix.lower() != ".png":
        raise ParameterError(f"{what} ends in .png, found {path.name!r}")


def draw_panels(path: Path, panels: list[Panel]) -> None:
    """Draw curves side by side; a file that is there is replaced."""
    figure, drawn = _panels(1, len(panels))
    for axes, panel in zip(drawn[0], panels, strict=True):
        axes.plot(panel.x, panel.y, marker=".", markersize=3)
        if panel.mark is not None:
            x, y, text = panel.mark
            axes.plot([x], [y], "o", label=text)
            axes.legend(loc="lower left")
        axes.set(title=panel.title, xlabel=panel.across, ylabel=panel.up)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.grid(visible=True, alpha=0.3)
    save_figure(figure, path, parents=False)


CURVES: tuple[tuple[str, dict[str, str], str], ...] = (
    ("loss", {"loss": "training", "validation_loss": "validation"}, "linear"),
    ("overlap", {"jaccard": "validation Jaccard", "dice": "validation Dice"}, "linear"),
    (
        "errors in validation",
        {
            "precision": "precision of voxels",
            "recall": "recall of voxels",
            "object_precision": "precision of objects",
            "object_recall": "recall of objects",
        },
        "linear",
    ),
    (
        "means over IoU",
        {"mean_average_precision": "TP/(TP+FP)", "average_precision": "TP/(TP+FP+FN)"},
        "linear",
    ),
    ("learning rate", {"learning_rate": "at the end of the row"}, "log"),
)
"""Panels: title, columns of the log with their legends, scale."""


@dataclass(frozen=True)
class Sample:
    """One held-out slice: raw and probabilities, float32, and truth, all of shape (y, x)."""

    raw: Floats
    truth: Mask
    probabilities: Floats


def save_curves(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Draw the curves of a run over its steps."""
    figure, panels = _panels(1, len(CURVES))
    for panel, (title, columns, scale) in zip(panels[0], CURVES, strict=True):
        for column, legend in columns.items():
            drawn = [(row["step"], row[column]) for row in rows if column in row]
            if drawn:
                panel.plot(*zip(*drawn, strict=True), label=legend, marker=".")
        panel.set(title=title, xlabel="step", yscale=scale)
        panel.legend()
    save_figure(figure, path)


def save_sample(path: Path, sample: Sample, threshold: float) -> None:
    """Draw a held-out slice: its labels, the probabilities, and what is foreground."""
    figure, ((labels, probabilities, found),) = _panels(1, 3)
    labels.imshow(overlay(sample.raw, sample.truth), interpolation="nearest")
    probabilities.imshow(sample.probabilities, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    found.imshow(overlay(sample.raw, sample.probabilities >= threshold), interpolation="nearest")
    titles = "labels", "probabilities", f"found, from {threshold:.2f}"
    for panel, title in zip((labels, probabilities, found), titles, strict=True):
        panel.set(title=title)
        panel.set_axis_off()
    save_figure(figure, path)


def save_patches(path: Path, patches: Sequence[tuple[Floats, Mask]]) -> None:
    """Draw slices of patches as the network sees them, and below each its labels."""
    figure, panels = _panels(2, len(patches))
    for above, below, (raw, mask) in zip(*panels, patches, strict=True):
        above.imshow(raw, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        below.imshow(overlay(raw, mask), interpolation="nearest")
        above.set_axis_off()
        below.set_axis_off()
    save_figure(figure, path)


def overlay(raw: Floats, mask: Mask) -> NDArray[np.float64]:
    """Tint what is masked, in colours that all eyes tell from grey.

    Parameters
    ----------
    raw : float32, shape (y, x); normalised to about -1..1.
    mask : bool, shape (y, x)

    Returns
    -------
    float64, shape (y, x, 3); in 0..1.

    Examples
    --------
    >>> overlay(np.zeros((1, 2), np.float32), np.array([[False, True]])).round(2).tolist()
    [[[0.5, 0.5, 0.5], [0.7, 0.55, 0.3]]]
    """
    grey = np.clip((raw.astype(np.float64) + 1) / 2, 0, 1)[..., None].repeat(3, axis=2)
    tint = np.array([0.9, 0.6, 0.1])
    return np.where(mask[..., None], (grey + tint) / 2, grey)


def _panels(rows: int, columns: int) -> tuple[Any, NDArray[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES * columns, INCHES * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: Path, *, parents: bool = True) -> None:
    """Write a figure as a PNG file; one that is there is replaced."""
    with replacing(path, durable=False, parents=parents) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def save_pixels(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture, uint8, shape (y, x, 3), as a PNG file; one that is there is replaced."""
    import imagecodecs

    with replacing(path, parents=False) as file:
        file.write(imagecodecs.png_encode(pixels))
