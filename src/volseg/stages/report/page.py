"""Fill the page of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from volseg import __version__
from volseg.errors import command
from volseg.measures.comparison import Comparison
from volseg.measures.summary import NM2_PER_UM2, NM3_PER_UM3
from volseg.measures.suspects import Suspect
from volseg.stages.report.explained import Sheet
from volseg.stages.report.methods import Methods
from volseg.stages.report.pictures import Planes
from volseg.stages.report.plan import Subject
from volseg.stages.report.surfaces import Surfaces
from volseg.storage.files import replacing

FORMS = Path(__file__).with_name("forms")


@dataclass(frozen=True)
class ShownSuspect:
    """A suspect, as a page shows it."""

    subject: Subject
    suspect: Suspect
    picture: str

    @property
    def place(self) -> str:
        """Its volume, from wherever it is looked at."""
        return str(self.subject.path.resolve())

    @property
    def size(self) -> str:
        """Its size, of unrelated images as an area."""
        subject, row = self.subject, self.suspect.row
        flat, sides = subject.summary.images is not None, subject.summary.voxel_size
        told = (
            f"{write_number(int(subject.columns['voxels'][row]))} {'pixels' if flat else 'voxels'}"
        )
        if flat and sides is not None:
            area = float(subject.columns["voxels"][row]) * sides[1] * sides[2] / NM2_PER_UM2
            return f"{told} ({write_number(area)} µm²)"
        if not flat and "volume_nm3" in subject.columns:
            volume = float(subject.columns["volume_nm3"][row]) / NM3_PER_UM3
            return f"{told} ({write_number(volume)} µm³)"
        return told

    @property
    def command(self) -> str:
        """Command that shows it in the viewer."""
        label = int(self.subject.columns["label"][self.suspect.row])
        return command("view", self.subject.path, "--at", label, name=self.subject.name)


@dataclass(frozen=True)
class ShownVolume:
    """A volume, as a page shows it; ``curves`` are SVG, of a volume with a truth.

    ``explained`` are panels of an explanation, with their pictures; None if there is none.
    """

    subject: Subject
    planes: list[Planes]
    curves: tuple[str, str] | None
    surfaces: Surfaces | None
    explained: tuple[Sheet, list[str]] | None = None


@dataclass(frozen=True)
class Content:
    """All that a page shows.

    Attributes
    ----------
    viewer : script that draws surfaces; None if there are none
    asked : suspects about which the network was asked again
    """

    volumes: list[ShownVolume]
    charts: list[str]
    comparisons: list[Comparison]
    suspects: list[ShownSuspect]
    methods: Methods
    viewer: str | None
    page: Path
    asked: int = 0

    @property
    def served(self) -> str:
        """Command that serves the page, so that its links lead into the viewer."""
        first = self.volumes[0].subject
        own = dict.fromkeys(v.subject.name for v in self.volumes if v.subject.path == first.path)
        return command("view", first.path, "--report", self.page, name=",".join(own))


def write_page(path: Path, content: Content) -> int:
    """Write a page, in place of one that is there; return its bytes."""
    loader = FileSystemLoader(FORMS)
    forms = Environment(autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True)
    forms.filters["number"] = write_number
    form, now = forms.get_template("page.html"), datetime.now(UTC)
    written = 0
    with replacing(path, parents=False) as file:
        for part in form.generate(content=content, version=__version__, now=now):
            written += file.write(part.encode())
    return written


def write_number(value: Any, digits: int = 3) -> str:
    """Write a number as people read it; one that is not known as a dash.

    Examples
    --------
    >>> write_number(1234567.8), write_number(0.04567), write_number(None), write_number(12)
    ('1,234,568', '0.0457', '–', '12')
    >>> write_number(999.4), write_number(999.6)
    ('999', '1,000')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int) or abs(value) >= 10**digits - 0.5:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
