"""Draw the contact sheet of an explanation."""

from __future__ import annotations

from pathlib import Path

from volseg.stages.report.explained import draw_panels
from volseg.storage.explanations import Explanation
from volseg.storage.plots import save_figure
from volseg.storage.volumes import open_image

COLUMNS, INCHES = 4, 3.6
"""Panels in a row, and their side."""


def draw_sheet(path: Path, volume: Path, name: str, explanation: Explanation) -> None:
    """Draw a contact sheet as a PNG file; a file that is there is replaced.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    from matplotlib.figure import Figure

    sheet = draw_panels(open_image(volume), name, explanation)
    rows = -(-len(sheet.panels) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * INCHES, rows * (INCHES + 0.4) + 0.4), layout="constrained")
    for k, (axes, panel) in enumerate(
        zip(figure.subplots(rows, COLUMNS).flat, sheet.panels, strict=False)
    ):
        down, across = sheet.extent
        axes.imshow(panel.pixels, extent=(0, across, down, 0), interpolation="nearest")
        axes.set_title(panel.name)
        if k == 0:
            others = [a for n, a in enumerate("zyx") if n != sheet.axis]
            axes.set(ylabel=f"{others[0]} ({sheet.unit})", xlabel=f"{others[1]} ({sheet.unit})")
        else:
            axes.set(xticks=[], yticks=[])
    for axes in figure.axes[len(sheet.panels) :]:
        axes.set_axis_off()
    model = explanation.notes["model"]["name"]
    figure.suptitle(f"{volume.name}, {sheet.title}: what {model} goes by")
    save_figure(figure, path, parents=False)
