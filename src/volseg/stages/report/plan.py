"""Plan a report: open volumes, results and tables, and check that they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from volseg.defaults import SUSPECTS
from volseg.errors import ParameterError
from volseg.measures.summary import Summary, summarise
from volseg.scores.likeness import tell_tissue
from volseg.sources.labels import COMPONENTS, LabelSource, open_labels
from volseg.stages.evaluate.run import Evaluation
from volseg.storage.attributes import read_attributes, uncorrected
from volseg.storage.cards import load_card
from volseg.storage.images import images_in
from volseg.storage.locations import check_writable, folder_of, place_beside, refuse_folder
from volseg.storage.tables import read_measured
from volseg.storage.volumes import Image, labels_path, open_image, probabilities_path
from volseg.types import Roi

REPORT = "report.html"
"""Name of a report of several volumes."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report; see `volseg.api.reporting.PageKeywords`."""

    output: Path
    suspects: int = SUSPECTS

    def __post_init__(self) -> None:
        if self.output.suffix.lower() not in {".html", ".htm"}:
            raise ParameterError(f"a report ends in .html, found {self.output.name!r}")
        if self.suspects < 0:
            raise ParameterError(f"suspects must not be negative, found {self.suspects}")
        check_writable(folder_of(self.output))
        refuse_folder(self.output)


@dataclass(frozen=True)
class Subject:
    """A volume of a report.

    Attributes
    ----------
    title : short and different from those of the others.
    labels, probabilities : of the result; None if there are no probabilities.
    mask : labels whose components are the objects; None if their values are.
    expected : what precision to expect, in words; empty where nothing is known.
    model : weights that were named, if they made the probabilities.
    """

    title: str
    path: Path
    image: Image
    labels: Image
    probabilities: Image | None
    region: Roi
    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str]
    summary: Summary
    surface: str
    evaluation: Evaluation | None
    mask: LabelSource | None
    expected: str = ""
    model: str | None = None

    @property
    def name(self) -> str:
        """Name of the result."""
        return self.labels.path.name


def plan_report(
    volumes: Sequence[Path],
    names: Sequence[str],
    evaluations: Sequence[Evaluation | None],
    model: str | None = None,
) -> list[Subject]:
    """Open what a report is about; read metadata and tables only.

    Parameters
    ----------
    evaluations : of each result of each volume in turn, None where there is no truth
    model : of some or all volumes, where it does not come with volseg
    """
    titles = choose_titles(volumes)
    results = [
        (path, f"{title} {name}" if len(names) > 1 else title, name)
        for path, title in zip(volumes, titles, strict=True)
        for name in names
    ]
    subjects = [
        _open(*result, evaluation) for result, evaluation in zip(results, evaluations, strict=True)
    ]
    if model is None:
        return subjects
    sha256 = load_card(model).sha256
    named = [replace(s, model=model if _made_by(s) == sha256 else None) for s in subjects]
    if not any(s.model for s in named):
        raise ParameterError(f"{model} made no probabilities of {', '.join(titles)}")
    return named


def _made_by(subject: Subject) -> object:
    made = {} if subject.probabilities is None else subject.probabilities.attributes.get("model")
    return made.get("sha256") if isinstance(made, Mapping) else None


def _open(path: Path, title: str, name: str, evaluation: Evaluation | None) -> Subject:
    source = open_labels(path, name)
    columns, units, notes = read_measured(path, name, source.identity)
    image, labels = open_image(path), open_image(labels_path(path, name))
    size = image.voxel_size or source.voxel_size
    return Subject(
        title,
        path,
        image,
        labels,
        _open_probabilities(path, name, source),
        source.region,
        columns,
        units,
        summarise(columns, source.region, size, images_in(image)),
        notes.get("surface", "none"),
        evaluation,
        source if notes.get("objects") == COMPONENTS else None,
        tell_tissue(labels.attributes.get("tissue")),
    )


def _open_probabilities(path: Path, name: str, labels: LabelSource) -> Image | None:
    """Open those that fit; incomplete or other ones are none, damaged ones an error."""
    place = probabilities_path(path, uncorrected(path, name))
    if not place.exists() or read_attributes(place).get("volseg", {}).get("complete") is False:
        return None
    found = open_image(place)
    fits = found.levels[0].shape == labels.shape and found.levels[0].dtype == "uint8"
    return found if fits else None


def choose_titles(volumes: Sequence[Path]) -> list[str]:
    """Name volumes by as few of their last folders as tell them apart.

    Examples
    --------
    >>> choose_titles([Path("a/x.zarr"), Path("b/x.zarr")]), choose_titles([Path("a/x.zarr")])
    (['a/x', 'b/x'], ['x'])
    """
    depth = max(len(v.parts) for v in volumes)
    titles: list[str] = []
    for count in range(1, depth + 1):
        titles = ["/".join((*v.parts[-count:-1], v.stem)) for v in volumes]
        if len(set(titles)) == len(volumes):
            return titles
    return [f"{title} ({k + 1})" for k, title in enumerate(titles)]


def default_output(volumes: Sequence[Path]) -> Path:
    """Choose a file beside the first volume, or here if that is on object storage."""
    own = place_beside(volumes[0], "-report.html")
    return own if len(volumes) == 1 else own.with_name(REPORT)
