"""Check of labels before anything is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volseg.errors import ParameterError
from volseg.geometry.grid import describe, roi_shape
from volseg.training.sampling import Source

MOST_FOREGROUND = 0.98
"""Part of the annotated voxels of a pair from which labels are taken for an image, or inverted."""


def refuse_image(labels: str, chosen: Sequence[tuple[Source, int]]) -> None:
    """Refuse labels of one class of which next to all that is trained on is foreground."""
    total = sum(source.annotated for source, _ in chosen)
    share = sum(count for _, count in chosen) / total if total else 0.0
    if MOST_FOREGROUND <= share < 1:
        raise ParameterError(
            f"{labels} is foreground (above 0) in {share:.2%} of the voxels to train on; is it an "
            f"image, and not its labels? The background of labels is 0; choose a region that holds "
            f"some with --roi"
        )


def check_foreground(
    description: Sequence[dict[str, Any]], training: Sequence[Source], validation: Sequence[Source]
) -> None:
    """Refuse labels that teach nothing: none of their voxels is foreground, or all are."""
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
        if count == sum(s.annotated for s in sources):
            raise ParameterError(
                f"{labels} is foreground (above 0) everywhere in {where}: there is nothing to tell "
                f"apart; the background of labels is 0"
            )
