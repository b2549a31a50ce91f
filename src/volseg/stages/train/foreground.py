"""Check of labels before anything is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volseg.errors import ParameterError
from volseg.geometry.grid import describe, roi_shape
from volseg.training.sampling import Source

MOST_FOREGROUND = 0.98
"""Part of the annotated voxels from which labels are taken to be an image, or inverted."""


def check_foreground(
    description: Sequence[dict[str, Any]], training: Sequence[Source], validation: Sequence[Source]
) -> None:
    """Refuse labels that teach nothing: none of their voxels is foreground, or next to all are.

    Parameters
    ----------
    description : of each pair, with the foreground that was counted in it
    training, validation : what is trained on, and what is held out

    Raises
    ------
    ParameterError
        If there is nothing to tell apart.
    """
    for name, sources, flag in (
        ("training", training, "--roi"),
        ("validation", validation, "--validation"),
    ):
        count = sum(sum(d[f"{name} foreground"]) for d in description)
        labels = ", ".join(d["labels"] for d in description if d[name])
        if not sources:
            raise ParameterError(f"there is nothing for {name}; choose a region with {flag}")
        where = " and ".join(f"{describe(s.roi)} {roi_shape(s.roi)}" for s in sources[:4])
        if count == 0:
            raise ParameterError(
                f"{labels} has no foreground (labels above 0) in {where}; choose an annotated "
                f"region with {flag}"
            )
        share = count / sum(s.annotated for s in sources)
        if share >= MOST_FOREGROUND:
            everywhere = "everywhere" if share == 1 else f"in {share:.2%} of the voxels"
            raise ParameterError(
                f"{labels} is foreground (above 0) {everywhere} in {where}: there is nothing to "
                f"tell apart; the background of labels is 0; is it an image, and not its labels?"
            )
