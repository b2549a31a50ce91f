"""Maps that a network gives: classes, and auxiliary maps of a class; named in its card.

All are in 0..1. A flip or another view moves classes, contours and distances, and changes no value;
what it does to offsets, which are components of a vector, `moved` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from volseg.errors import ParameterError

CLASS, EXCLUSIVE = "class", "exclusive"
"""Kinds of classes: any number of them at a voxel, or one of them at most."""
CONTOUR, DISTANCE, CENTERLINE = "contour", "distance", "centerline"
"""Kinds of auxiliary maps: borders of objects, distance to the border, closeness to centerlines."""
OFFSET = "offset"
OFFSETS = ("offset-z", "offset-y", "offset-x")
"""Kinds of the components of the vector from a voxel to the centre of its object: 0.5 is none, 0
and 1 are `MapSpec.reach_nm` along the axis. Of what sees slices, axes are those of a stack of them,
the section counts for the object, and the first component is none."""
CONTOUR_WIDTH, DISTANCE_REACH, OFFSET_REACH = 1.5, 10.0, 32.0
"""Voxels of the network: how far a contour reaches into an object, where distances end, and for
what 0 and 1 stand of offsets."""
CLASSES = (CLASS, EXCLUSIVE)
AUXILIARY = (CONTOUR, DISTANCE, *OFFSETS, CENTERLINE)
ASKED = {CONTOUR: (CONTOUR,), DISTANCE: (DISTANCE,), OFFSET: OFFSETS, CENTERLINE: (CENTERLINE,)}
"""Kinds of maps by the word that asks for them."""
_ORDER = (EXCLUSIVE, CLASS, *AUXILIARY)
MOST, WIDEST = 64, 1024
"""Maps of one network, and its base width; memory grows with the square."""
NAME = re.compile(r"[\w][\w-]{0,63}", re.ASCII)
"""Names become folders."""


@dataclass(frozen=True)
class MapSpec:
    """One map of a network.

    Attributes
    ----------
    name : of what it is stored as: the class, or class and kind.
    kind : one of `CLASSES` and `AUXILIARY`.
    of : the class that it belongs to; its own name for a class.
    threshold : probability from which a voxel is of the class.
    min_size, min_probability : objects below are dropped, as in a card.
    reach_nm : of offsets, the length that 0 and 1 stand for; 0 of others.
    """

    name: str
    kind: str = CLASS
    of: str = ""
    threshold: float = 0.5
    min_size: int = 0
    min_probability: float = 0.0
    reach_nm: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in (*CLASSES, *AUXILIARY):
            raise ParameterError(
                f"a map is of the kind {', '.join((*CLASSES, *AUXILIARY))}, found {self.kind!r}"
            )

    @property
    def is_class(self) -> bool:
        """Tell a class from an auxiliary map."""
        return self.kind in CLASSES


def build_maps(
    classes: Sequence[str], auxiliary: Sequence[str] = (), *, exclusive: bool = False
) -> tuple[MapSpec, ...]:
    """List the maps of a network: its classes, auxiliary maps, and centerlines last.

    Parameters
    ----------
    classes : names
    auxiliary : see `ASKED`; of the first class, or ``<class>-<kind>`` for those of another
    exclusive : whether a voxel is of one class at most

    Examples
    --------
    >>> [m.name for m in build_maps(["cells", "gaps"], ["contour", "gaps-distance"])]
    ['cells', 'gaps', 'cells-contour', 'gaps-distance']
    """
    if not classes:
        raise ParameterError("a network has at least one class")
    kind = EXCLUSIVE if exclusive else CLASS
    found = [MapSpec(name, kind, name) for name in classes]
    for asked in auxiliary:
        of, _, last = asked.rpartition("-")
        of = of or classes[0]
        if last not in ASKED or of not in classes:
            raise ParameterError(
                f"an auxiliary map is {', '.join(ASKED)}, or CLASS-{last or 'contour'} of "
                f"{', '.join(classes)}; found {asked!r}"
            )
        found += [MapSpec(f"{of}-{kind}", kind, of) for kind in ASKED[last]]
    return check_maps(tuple(sorted(found, key=lambda m: _ORDER.index(m.kind))))


def asked_of(maps: Sequence[MapSpec]) -> tuple[str, ...]:
    """List the words that ask for the auxiliary maps of a network.

    Examples
    --------
    >>> asked_of(build_maps(["cells"], ["contour", "offset"]))
    ('cells-contour', 'cells-offset')
    """
    words = {kind: word for word, kinds in ASKED.items() for kind in kinds}
    return tuple(dict.fromkeys(f"{m.of}-{words[m.kind]}" for m in maps if not m.is_class))


def check_maps(maps: tuple[MapSpec, ...]) -> tuple[MapSpec, ...]:
    """Check that maps can stand together: exclusive classes first, centerlines last."""
    names, kinds = [m.name for m in maps], [m.kind for m in maps]
    if len(set(names)) < len(names) or len(names) > MOST or not all(map(NAME.fullmatch, names)):
        raise ParameterError(
            f"a network has up to {MOST} maps, each of a name of its own, of letters, digits, _ "
            f"and -; found {', '.join(names)}"
        )
    if kinds != sorted(kinds, key=_ORDER.index) or (maps and not maps[0].is_class):
        raise ParameterError(f"maps stand in the order {', '.join(_ORDER)}, found {kinds}")
    lines = [m.of for m in maps if m.kind == CENTERLINE]
    if lines not in ([], [maps[0].name if maps else ""]):
        raise ParameterError(
            f"centerlines are those of the first class, {maps[0].name}, alone; found those of "
            f"{', '.join(lines)}"
        )
    if unknown := sorted({m.of for m in maps} - {m.name for m in maps if m.is_class}):
        raise ParameterError(f"maps belong to {', '.join(unknown)}, which are no classes here")
    if other := [m.name for m in maps if not m.is_class and m.name != f"{m.of}-{m.kind}"]:
        raise ParameterError(f"auxiliary maps are called CLASS-KIND, found {', '.join(other)}")
    for of in {m.of for m in maps if m.kind in OFFSETS}:
        found = find_vector(maps, of)
        if len(found) < len(OFFSETS):
            raise ParameterError(
                f"offsets of {of} have the components {', '.join(OFFSETS)}, found "
                f"{', '.join(maps[k].kind for k in found)}"
            )
    return maps


def count_outputs(maps: Sequence[MapSpec]) -> int:
    """Count the maps that a network's head gives; centerlines have a decoder of their own.

    Examples
    --------
    >>> count_outputs(()), count_outputs(build_maps(["cells"], ["contour", "centerline"]))
    (1, 2)
    """
    return max(sum(m.kind != CENTERLINE for m in maps), 1)


def count_exclusive(maps: Sequence[MapSpec]) -> int:
    """Count the classes that exclude one another; they stand first."""
    return sum(m.kind == EXCLUSIVE for m in maps)


def find_map(maps: Sequence[MapSpec], kind: str, of: str) -> int | None:
    """Find the place of an auxiliary map of a class; None if there is none."""
    places = (k for k, m in enumerate(maps) if (m.kind, m.of) == (kind, of))
    return next(places, None)


def find_vector(maps: Sequence[MapSpec], of: str) -> list[int]:
    """Find the places of the (z, y, x) components of a class's offsets; none if it has none."""
    places = (find_map(maps, kind, of) for kind in OFFSETS)
    return [k for k in places if k is not None]


def share_views(spec: MapSpec, normal: int, views: int) -> int:
    """Count the views along several axes that give a map; 0 if slices along one do not.

    A slice tells nothing of where a centre lies along its normal.
    """
    if views == 1 or spec.kind not in OFFSETS:
        return views
    return 0 if OFFSETS.index(spec.kind) == normal else views - 1


def moved(
    maps: Sequence[MapSpec], place: int, axes: Sequence[int], flips: Sequence[int] = ()
) -> tuple[int, bool]:
    """Find which output gives a map of what is seen turned and flipped.

    A component of a vector is that along the axis where it is seen, and points back if that is
    flipped: its logit changes sign, which makes 1 - p of p. Other maps keep their values.

    Parameters
    ----------
    maps : of the network
    place : of the map among them
    axes : of the tile, as they are seen
    flips : which of the seen axes are flipped

    Returns
    -------
    place : of the output
    reversed : whether its logit changes sign

    Examples
    --------
    >>> maps = build_maps(["cells"], ["offset"])
    >>> moved(maps, 2, (0, 2, 1), (2,)), moved(maps, 0, (0, 2, 1), (2,))
    ((3, True), (0, False))
    """
    if place >= len(maps) or maps[place].kind not in OFFSETS:
        return place, False
    seen = list(axes).index(OFFSETS.index(maps[place].kind))
    found = find_map(maps, OFFSETS[seen], maps[place].of)
    return (place if found is None else found), seen in flips
