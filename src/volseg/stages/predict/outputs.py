"""Images that a prediction writes: the mask and, on request, its centerlines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import VolumeError, command
from volseg.storage.ledger import Ledger
from volseg.storage.results import is_complete, is_told_of
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import open_image
from volseg.storage.weights import Card
from volseg.training.losses import LOSSES

CENTERLINE = {"output": "centerline"}
"""Parameter by which centerlines differ from their mask."""
CREATED = "created"
"""The key under which the ledger keeps that the images are there, still empty."""


@dataclass(frozen=True)
class Output:
    """One image that a run writes, and everything that decides what is in it.

    Attributes
    ----------
    path : of the image, whose folder has the name of the result.
    header : parameters, JSON-like.
    model : name of the network.
    """

    path: Path
    header: dict[str, Any]
    model: str = ""

    def stands(self, *, overwrite: bool = False, same_blocks: bool = False) -> bool:
        """Tell whether this very image is already there.

        Raises
        ------
        ConflictError
            If another one is, and may not be replaced.
        """
        return is_complete(
            self.path,
            self.header,
            overwrite=overwrite,
            same_blocks=same_blocks,
            model=self.model,
        )


@dataclass(frozen=True)
class Scratch:
    """Files that a run keeps until it is complete."""

    folder: Path
    name: str

    @property
    def ledger(self) -> Path:
        """Say where the ledger lies."""
        return self.folder / f"predict-{self.name}.jsonl"

    @property
    def store(self) -> HandoverStore:
        """Say where blocks exchange what they evaluated."""
        return HandoverStore(self.folder / f"predict-{self.name}")


def centerline_of(mask: Output) -> Output:
    """Describe the centerlines that stand beside a mask and were decided by the same."""
    path = mask.path.with_name(f"{mask.path.name}-centerline")
    return Output(path, {**mask.header, **CENTERLINE}, mask.model)


def find_lacking(wanted: tuple[Output, ...], *, overwrite: bool) -> tuple[Output, ...]:
    """Choose what a run has to write: nothing, everything, or only centerlines of a mask.

    Centerlines are always made with their mask if that has to be made, because a run that writes
    both finishes the mask last.

    Raises
    ------
    ConflictError
        If another result is there and may not be replaced.
    """
    lacking = [o for o in wanted if not o.stands(overwrite=overwrite)]
    return wanted if wanted[0] in lacking else tuple(lacking)


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


def ledger_header(written: tuple[Output, ...]) -> dict[str, Any]:
    """Collect what decides a run: all its images depend on the same, and it writes all of them."""
    both = {"centerline": True} if len(written) > 1 else {}
    return {**written[0].header, **both}


def find_outdated(written: tuple[Output, ...], scratch: Path) -> tuple[Path, ...]:
    """List what goes with the results that a run replaces: centerlines never outlive their mask."""
    if CENTERLINE.items() <= written[0].header.items():
        return ()
    lines = centerline_of(written[0]).path
    if not _holds_centerlines(lines):
        return ()
    kept = Scratch(scratch, lines.name)
    replaced = any(o.path == lines for o in written)
    return (kept.ledger, kept.store.folder, *(() if replaced else (lines,)))


def _holds_centerlines(path: Path) -> bool:
    """Tell centerlines from a mask that somebody gave such a name."""
    try:
        run = open_image(path).attributes.get("run", {})
    except VolumeError:
        return False
    return isinstance(run, dict) and CENTERLINE.items() <= run.items()


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
