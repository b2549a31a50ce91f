"""Images that a prediction writes: classes and, on request, auxiliary maps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import command
from volseg.models.maps import CENTERLINE
from volseg.stages.predict.maps import Chosen
from volseg.storage.ledger import Ledger, read_header
from volseg.storage.predictions import CREATED, KIND, Scratch
from volseg.storage.results import is_complete, is_told_of
from volseg.storage.weights import Card
from volseg.training.losses import LOSSES

OF_CLASS = "class"
"""The parameter by which several classes differ."""
RESAMPLED = 2
"""Raised whenever resampling comes to round otherwise, which no complete result has to heed."""


@dataclass(frozen=True)
class Output:
    """One image that a run writes, and everything that decides what is in it.

    Attributes
    ----------
    path : of the image, whose folder has the name of the result.
    place : of the map among the network's.
    of : place of the class that it belongs to.
    """

    path: Path
    header: dict[str, Any]
    model: str = ""
    place: int = 0
    of: int = 0

    @property
    def is_class(self) -> bool:
        """Tell a class from an auxiliary map."""
        return self.place == self.of

    def stands(self, *, overwrite: bool = False, same_blocks: bool = False) -> bool:
        """Tell whether this very image is already there."""
        return is_complete(
            self.path,
            self.header,
            overwrite=overwrite,
            same_blocks=same_blocks,
            model=self.model,
        )


def list_outputs(mask: Output, chosen: Sequence[Chosen]) -> tuple[Output, ...]:
    """Describe the images of a run, all of which are decided by the same.

    Parameters
    ----------
    mask : what decides the network's first map
    chosen : see `volseg.stages.predict.maps.choose_maps`
    """
    outputs = []
    for one in chosen:
        named = {OF_CLASS: one.spec.of} if one.several else {}
        kind = {} if one.spec.is_class else {KIND: one.spec.kind}
        path = mask.path.with_name(one.name)
        outputs.append(
            Output(path, {**mask.header, **named, **kind}, mask.model, one.place, one.of)
        )
    return tuple(outputs)


def find_lacking(
    wanted: tuple[Output, ...], scratch: Path, *, overwrite: bool
) -> tuple[Output, ...]:
    """Choose what a run has to write: what does not stand, and the maps of a class that does not.

    A run that was begun goes on with all that it writes, because it finishes its first image last.

    Raises
    ------
    ConflictError
        If another result is there and may not be replaced.
    """
    lacking = with_maps(wanted, [o for o in wanted if not o.stands(overwrite=overwrite)])
    if not lacking or overwrite:
        return lacking
    begun = read_header(Scratch(scratch, lacking[0].path.name).ledger)
    told = begun.get("maps") if isinstance(begun, dict) else None
    whole = tuple(o for o in wanted if isinstance(told, list) and o.place in told)
    same = {o.path for o in lacking} <= {o.path for o in whole}
    return whole if same and {**begun, **ledger_header(whole)} == begun else lacking


def with_maps(wanted: tuple[Output, ...], found: Sequence[Output]) -> tuple[Output, ...]:
    """Add to some images of a run the maps of the classes among them."""
    classes = {o.of for o in found if o.is_class}
    return tuple(o for o in wanted if o in found or o.of in classes)


def is_under_way(written: tuple[Output, ...], ledger: Ledger) -> bool:
    """Tell whether the images of a run are there, and the blocks on record are written in them.

    Raises
    ------
    ConflictError
        If another ledger tells of them.
    """
    pending = [o for o in written if not o.stands()]
    told_of = [is_told_of(o.path, ledger) for o in pending]
    return CREATED in ledger.records and all(told_of)


def ledger_header(written: tuple[Output, ...], *, resampled: bool = False) -> dict[str, Any]:
    """Collect what decides a run: all its images depend on the same, and it writes all of them.

    Runs that former versions began, which resample with other last digits, do not go on.
    """
    kinds = [o.header.get(KIND) for o in written[1:]]
    more: dict[str, Any] = {"resampled": RESAMPLED} if resampled else {}
    if kinds == [CENTERLINE]:
        more["centerline"] = True
    elif kinds:
        more["maps"] = [o.place for o in written]
    return {**written[0].header, **more}


RESTRICTED = "NON-COMMERCIAL"
"""Opening of the terms of weights that must not be used for everything."""


def note_terms(card: Card) -> tuple[str, ...]:
    """Tell of weights that are for non-commercial use only."""
    if not str(card.training.get("terms", "")).startswith(RESTRICTED):
        return ()
    shown = command("models", "show", card.name)
    return (f"the weights of {card.name} are for non-commercial use only, see `{shown}`",)


def note_untaught(card: Card) -> tuple[str, ...]:
    """Warn of a network whose output for centerlines was never trained, as far as is known."""
    recipe = card.training.get("recipe")
    known = recipe if isinstance(recipe, dict) else {}
    if known.get("loss") not in LOSSES and known.get("centerline_weight") != 0:
        return ()
    return (f"{card.name} was trained without centerlines, so those it gives mean nothing",)
