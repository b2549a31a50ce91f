"""Choose which maps of a network a run writes, and by which names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volseg.defaults import NAME
from volseg.errors import ModelError, ParameterError
from volseg.models.maps import ASKED, CENTERLINE, CLASS, MapSpec
from volseg.models.registry import check_centerline, find_architecture
from volseg.storage.weights import Card


@dataclass(frozen=True)
class Chosen:
    """A map that is written.

    Attributes
    ----------
    place : among the network's maps.
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
    gives = find_architecture(card.architecture).centerline
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

    Raises
    ------
    ParameterError
        If there is no such class, or one name is given for several.
    ModelError
        If no class has a map of a kind that is asked for.
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
