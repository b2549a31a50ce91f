"""Maps of a network that a prediction writes, and their images: classes, and auxiliary maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.defaults import NAME
from volseg.errors import ModelError, ParameterError
from volseg.models.maps import ASKED, CENTERLINE, CLASS, MapSpec
from volseg.models.registry import check_centerline
from volseg.storage.cards import Card
from volseg.storage.ledger import CREATED, Ledger, read_header
from volseg.storage.predictions import KIND, Scratch
from volseg.storage.results import ELSEWHERE, is_complete, is_told_of
from volseg.storage.volumes import probabilities_path

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

    @property
    def elsewhere(self) -> str:
        """Say how another result is kept: of several classes, one at a time takes another name."""
        name = self.header.get(OF_CLASS)
        return ELSEWHERE if name is None else f"give --classes {name} and another --name"

    def stands(self, *, overwrite: bool = False, same_blocks: bool = False) -> bool:
        """Tell whether this very image is already there."""
        return is_complete(
            self.path,
            self.header,
            overwrite=overwrite,
            same_blocks=same_blocks,
            model=self.model,
            elsewhere=self.elsewhere,
        )


@dataclass(frozen=True)
class Chosen:
    """A map that is written.

    Attributes
    ----------
    of : place of its class.
    several : whether the network knows more than one class.
    """

    spec: MapSpec
    place: int
    of: int
    name: str
    several: bool = False


def maps_of(card: Card) -> tuple[MapSpec, ...]:
    """List the maps of a network; a card that names none has one class, and maybe centerlines."""
    if card.maps:
        return card.maps
    lines = (MapSpec(f"{NAME}-{CENTERLINE}", CENTERLINE, NAME),)
    gives = card.form.centerline
    return (MapSpec(NAME, CLASS, NAME), *(lines if gives else ()))


def choose_maps(
    card: Card, classes: Sequence[str] | None, name: str | None, kinds: Sequence[str] = ()
) -> tuple[Chosen, ...]:
    """Choose classes, and auxiliary maps of them where there are such.

    Parameters
    ----------
    classes : names; all if None
    name : of the result of a single class; several keep their own names, as does one of several
        without it
    """
    maps = maps_of(card)
    known = [m.name for m in maps if m.is_class]
    if classes is not None and (not classes or set(classes) - set(known)):
        raise ParameterError(
            f"{card.name} knows {', '.join(known)}; --classes found {', '.join(classes)}"
        )
    wanted = [known.index(k) for k in known if classes is None or k in classes]
    if len(wanted) > 1 and name is not None:
        raise ParameterError(
            f"{len(wanted)} classes keep their own names; give --classes with one of "
            f"{', '.join(known)} beside --name {name}"
        )
    alone, several = name or (NAME if len(known) == 1 else None), len(known) > 1
    names = {k: alone or known[k] for k in wanted}
    found = [Chosen(maps[k], k, k, names[k], several) for k in wanted]
    for kind in kinds:
        places = [k for k, m in enumerate(maps) if m.kind == kind and known.index(m.of) in names]
        if kind == CENTERLINE and not places:
            check_centerline(card.architecture)
        for k in places:
            of = known.index(maps[k].of)
            found.append(Chosen(maps[k], k, of, f"{names[of]}-{kind}", several))
    return tuple(found)


def check_kind(card: Card, chosen: Sequence[Chosen], kind: str) -> None:
    """Check that a class that is chosen has a map of some kind, see `volseg.models.maps.ASKED`."""
    if not any(one.spec.kind in ASKED[kind] for one in chosen):
        raise ModelError(
            f"{card.name} gives no {kind}s; train weights with --auxiliary {kind}, or choose "
            f"another --split"
        )


def list_outputs(
    volume: Path, header: Mapping[str, Any], model: str, chosen: Sequence[Chosen]
) -> tuple[Output, ...]:
    """Describe the images of a run of a network, all of which are decided by the same."""
    outputs = []
    for one in chosen:
        named = {OF_CLASS: one.spec.of} if one.several else {}
        kind = {} if one.spec.is_class else {KIND: one.spec.kind}
        path = probabilities_path(volume, one.name)
        outputs.append(Output(path, {**header, **named, **kind}, model, one.place, one.of))
    return tuple(outputs)


def find_lacking(
    wanted: tuple[Output, ...], scratch: Path, *, overwrite: bool
) -> tuple[Output, ...]:
    """Choose what a run has to write: what does not stand, and the maps of a class that does not.

    A run that was begun goes on with all that it writes, because it finishes its first image last.
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
    """Tell whether the images of a run are there, and the blocks on record are written in them."""
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
