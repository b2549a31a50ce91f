"""DigitalMicrograph files of Gatan (.dm3, .dm4), such as those of 3View: a tree of tags.

The tree as G. Jefferis and C. Boothroyd found it (https://imagej.net/ij/plugins/DM3Format.gj.html).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from volseg.errors import SourceError
from volseg.sources.formats.mapped import map_voxels, stack_of_voxels
from volseg.sources.stack import Selection, Stack, choose_series
from volseg.sources.voxel_size import StatedSize, positive, unit_nanometers

FORMS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "B", 9: "b", 10: "B", 11: "q", 12: "Q"}
STRUCT, STRING, ARRAY = 15, 18, 20
GROUP, DATA = 20, 21
VOXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "u1"}
"""Types of voxels by their number; the picture of an image is of 23, colours."""
DEEPEST, MOST, LONGEST = 32, 1 << 20, 1 << 12
"""Groups within groups, tags, and values of a text or a list that is read."""
AXES = "XYZT"


@dataclass
class _Tags:
    """A file that is being read.

    Attributes
    ----------
    wide : numbers of the tree have eight bytes (dm4), not four (dm3).
    order : of bytes of values.
    found : values by the path of names; an array as its place, type and number of values.
    """

    file: BinaryIO
    wide: bool
    order: str
    found: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def number(self) -> int:
        """Read a number of the tree."""
        return int(self.unpack(">q" if self.wide else ">i"))

    def unpack(self, form: str) -> Any:
        """Read a value."""
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def read_group(self, path: tuple[str, ...]) -> None:
        """Read all tags of a group."""
        self.file.read(2)
        if len(path) > DEEPEST:
            raise ValueError(path)
        for k in range(self.number()):
            kind, length = self.unpack(">B"), self.unpack(">H")
            name = self.file.read(length).decode("latin-1") or str(k)
            if self.wide:
                self.number()
            if kind == GROUP:
                self.read_group((*path, name))
            elif kind == DATA:
                self.read_value((*path, name))
            else:
                raise ValueError(kind)

    def read_value(self, path: tuple[str, ...]) -> None:
        """Read a value, or note where a long one lies."""
        if self.file.read(4) != b"%%%%" or len(self.found) > MOST:
            raise ValueError(path)
        count = self.number()
        if not 0 < count <= LONGEST:
            raise ValueError(count)
        kinds = [self.number() for _ in range(count)]
        if kinds[0] in FORMS:
            self.found[path] = self.unpack(self.order + FORMS[kinds[0]])
            return
        times = kinds[-1] if kinds[0] in (STRING, ARRAY) else 1
        size = sum(struct.calcsize(self.order + form) for form in _forms(kinds))
        start = self.file.tell()
        if times < 0:
            raise ValueError(times)
        self.found[path] = start, kinds, times
        if path[-1] == "Units" and kinds[:2] == [ARRAY, 4] and times <= LONGEST:
            self.found[path] = self.file.read(2 * times).decode(
                f"utf-16-{'le' if self.order == '<' else 'be'}", "replace"
            )
        self.file.seek(start + size * times)


def _forms(kinds: list[int]) -> list[str]:
    """List the forms of one entry of a value of several."""
    if kinds[0] == STRING:
        return ["H"]
    inner = kinds[1:] if kinds[0] == ARRAY else kinds
    if inner[0] == STRUCT:
        return [FORMS[kind] for kind in inner[4 : 4 + 2 * inner[2] : 2]]
    return [FORMS[inner[0]]]


def open_dm(path: Path, selection: Selection) -> Stack:
    """Open an image of a DigitalMicrograph file; its picture in small is left out."""
    try:
        tags, order = _read_tags(path)
        images = [_image(tags, name) for name in _names(tags, ("ImageList",))]
        known = [image for image in images if image.get("DataType") in VOXELS]
        if not known:
            raise SourceError(f"{path} holds no image of numbers; save it again as one of greys")
        image = known[choose_series(len(known), selection.series, str(path))]
        start, *_ = image["Data"]
        dtype = np.dtype(order + VOXELS[image["DataType"]])
        shape = tuple(int(image["Dimensions", name]) for name in _names(image, ("Dimensions",)))
    except (OSError, struct.error, KeyError, ValueError, TypeError, IndexError) as error:
        raise SourceError(
            f"{path} is damaged, or no file of DigitalMicrograph; fetch or export it again"
        ) from error
    shape = tuple(n for k, n in enumerate(shape) if n > 1 or k < 2)
    if not 2 <= len(shape) <= len(AXES):
        raise SourceError(f"{path} has the shape {shape}, which no volume has")
    voxels = map_voxels(path, start, dtype, shape[::-1])
    sizes = [_size(image, k) for k in range(3)]
    return stack_of_voxels(
        path,
        voxels,
        AXES[: len(shape)][::-1],
        selection,
        StatedSize((sizes[2], sizes[1], sizes[0]), "its tags of DigitalMicrograph"),
        "DigitalMicrograph",
    )


def _read_tags(path: Path) -> tuple[dict[tuple[str, ...], Any], str]:
    """Read all tags of a file, and the order of bytes of its values."""
    with path.open("rb") as file:
        (version,) = struct.unpack(">i", file.read(4))
        if version not in (3, 4):
            raise ValueError(version)
        tags = _Tags(file, version == 4, "<")
        tags.number()
        tags.order = "<" if tags.unpack(">i") == 1 else ">"
        tags.read_group(())
        return tags.found, tags.order


def _names(tags: Mapping[Any, Any], path: tuple[str, ...]) -> list[str]:
    """List the names in a group, in their order."""
    size = len(path)
    inner = (key for key in tags if isinstance(key, tuple) and len(key) > size)
    return list(dict.fromkeys(key[size] for key in inner if key[:size] == path))


def _image(tags: Mapping[tuple[str, ...], Any], name: str) -> dict[Any, Any]:
    """Cut out the tags of an image, those without a group by their name alone."""
    path = ("ImageList", name, "ImageData")
    inner = {key[3:]: value for key, value in tags.items() if key[:3] == path}
    return {key[0] if len(key) == 1 else key: value for key, value in inner.items() if key}


def _size(image: Mapping[Any, Any], axis: int) -> float | None:
    """Read the size of voxels along an axis, counted from x."""
    where = ("Calibrations", "Dimension", str(axis))
    unit = image.get((*where, "Units"))
    known = unit_nanometers(unit if isinstance(unit, str) else None)
    scale = image.get((*where, "Scale"))
    # of four bytes, so 0.03 is not what it looks like in eight
    return positive(f"{scale:.7g}" if isinstance(scale, float) else None, known)
