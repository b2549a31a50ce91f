"""Curves as PNG files; matplotlib is loaded only here, and only when something is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.storage.files import replacing

PANEL_INCHES = 4.0
DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Panel:
    """One curve in a square from 0 to 1.

    Attributes
    ----------
    title, across, up : what is shown, and on which axis
    x, y : float64, shape (points,)
        Points that are NaN are left out.
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


def draw_panels(path: Path, panels: list[Panel]) -> None:
    """Draw curves side by side; a file that is there is replaced.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL_INCHES * len(panels), PANEL_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), k + 1)
        axes.plot(panel.x, panel.y, marker=".", markersize=3)
        if panel.mark is not None:
            x, y, text = panel.mark
            axes.plot([x], [y], "o", label=text)
            axes.legend(loc="lower left")
        axes.set(title=panel.title, xlabel=panel.across, ylabel=panel.up)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.grid(visible=True, alpha=0.3)
    with replacing(path, parents=False) as file:
        figure.savefig(file, dpi=DOTS_PER_INCH, format="png")
