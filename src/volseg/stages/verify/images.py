"""Find the images of a volume, and check their attributes and ledgers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from volseg.differences import describe_difference
from volseg.errors import VolumeError
from volseg.geometry.grid import Grid, full_roi, intersect
from volseg.stages.verify.findings import Finding
from volseg.stages.verify.tasks import describe_indices
from volseg.storage.attributes import results_in, section
from volseg.storage.ledger import block_key
from volseg.storage.results import fingerprint
from volseg.storage.stores import parse_json
from volseg.storage.volumes import Image, open_image, scratch_path
from volseg.types import Roi

Kind = Literal["raw", "probabilities", "labels"]
VERBS = {"probabilities": "predict", "labels": "label"}
SOURCES = {"probabilities": "raw", "labels": "probabilities"}
"""Kinds that others are made from, which are also the keys of their fingerprints on record."""


@dataclass(frozen=True)
class Subject:
    """One image that is verified.

    Attributes
    ----------
    array : its name, see `Finding`.
    """

    kind: Kind
    array: str
    image: Image

    @property
    def name(self) -> str:
        """The result's name."""
        return self.image.path.name

    @property
    def run(self) -> Mapping[str, Any]:
        """Everything that decided the result; empty for raw and for what others wrote."""
        run = self.image.attributes.get("run")
        return run if isinstance(run, dict) else {}

    @property
    def ours(self) -> bool:
        """Tell whether volseg wrote it: what others wrote may have another kind of pyramid.

        Of what others wrote it notes intensities, but not whether it is complete.
        """
        return "complete" in self.image.attributes

    @property
    def complete(self) -> bool:
        """Tell whether the run that made it came to its end."""
        return bool(self.image.attributes.get("complete", not self.run))

    @property
    def objects(self) -> int | None:
        """Number of objects that the attributes promise; None if there is no such number."""
        objects = self.image.attributes.get("objects")
        return objects if type(objects) is int and objects >= 0 else None

    @property
    def highest(self) -> int | None:
        """Highest label that the attributes allow: corrections leave gaps between labels."""
        highest = self.image.attributes.get("highest")
        return highest if type(highest) is int else self.objects

    @property
    def source(self) -> str:
        """Name of the array that it was made from, which its run has the fingerprint of."""
        parent = (self.image.attributes.get("corrections") or {}).get("parent")
        if parent is not None:
            return f"labels/{parent}"
        kind = SOURCES[self.kind]
        return kind if kind == "raw" else f"{kind}/{self.name}"

    @property
    def confirmed_by(self) -> tuple[str, object]:
        """Name and fingerprint of the array that confirmed its objects; no array where none did."""
        noted = section(self.image.attributes.get("corrections"), "confirmed_by")
        return f"labels/{noted.get('labels', '')}", noted.get("fingerprint")


def find_subjects(volume: Path) -> tuple[list[Subject], list[Finding]]:
    """Open the volume and all results, raw first; those that cannot be opened are findings."""
    subjects, findings = [Subject("raw", "raw", open_image(volume))], []
    shape = subjects[0].image.levels[0].shape
    kinds: tuple[Kind, ...] = ("probabilities", "labels")
    for kind in kinds:
        for path in [p for p in results_in(volume, kind, "[!.]*") if p.is_dir()]:
            array = f"{kind}/{path.name}"
            try:
                image = open_image(path)
            except VolumeError as error:
                findings.append(Finding("metadata", array, str(error)))
                continue
            found = image.levels[0].shape
            if found != shape:
                message = f"its shape is {found}, that of the volume {shape}"
                findings.append(Finding("metadata", array, message))
                continue
            subjects.append(Subject(kind, array, image))
    return subjects, findings


def check_attributes(subjects: list[Subject]) -> Iterator[Finding]:
    """Check that results are complete, and were made from what stands beside them."""
    # of labels that others wrote, the place stands for the fingerprint, as in `LabelSource`
    origins = {s.array: s.image.attributes.get("fingerprint") or s.array for s in subjects}
    for subject in subjects:
        if not subject.complete:
            message = "it is incomplete; run the command that made it again"
            yield Finding("incomplete", subject.array, message)
            continue
        if not subject.run:
            continue
        noted = subject.image.attributes.get("fingerprint")
        if noted is not None and noted != fingerprint(subject.run):
            message = "its parameters have changed since they were written: their hash differs"
            yield Finding("metadata", subject.array, message)
        if subject.kind == "labels" and subject.objects is None:
            message = "its attributes do not say how many objects there are"
            yield Finding("metadata", subject.array, message)
        if "imported" in subject.run:
            continue
        source = subject.source
        if source in origins and subject.run.get(source.partition("/")[0]) != origins[source]:
            message = f"it was made from another {source}; make it again with --overwrite"
            yield Finding("origin", subject.array, message)
        other, then = subject.confirmed_by
        if origins.get(other, then) != then:
            message = f"it was confirmed by another {other}; make it again with --overwrite"
            yield Finding("origin", subject.array, message)


def check_ledger(volume: Path, subject: Subject) -> Iterator[Finding]:
    """Check that each block of a complete result is on record, if there is a ledger."""
    path = scratch_path(volume) / f"{VERBS.get(subject.kind)}-{subject.name}.jsonl"
    if not subject.complete or not path.is_file():
        return
    try:
        lines = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        header, keys = lines[0], {line["key"] for line in lines[1:]}
        theirs = {k: header.get(k) for k in subject.run}
        if theirs != dict(subject.run):
            difference = describe_difference(theirs, subject.run)
            message = f"{path.name} belongs to another run ({difference})"
            yield Finding("ledger", subject.array, message)
            return
        z, y, x = header["block"]
        roi = recorded_roi(subject) if subject.kind == "probabilities" else None
        blocks = Grid(subject.image.levels[0].shape, (z, y, x)).blocks(roi)
        missing = [b.index for b in blocks if block_key("written", b.index) not in keys]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        yield Finding("ledger", subject.array, f"{path.name} cannot be used")
        return
    if missing:
        message = f"blocks that are not on record in {path.name}: {describe_indices(missing)}"
        yield Finding("ledger", subject.array, message, 0, missing[0])


def recorded_roi(subject: Subject) -> Roi:
    """Read the region that probabilities were made for.

    Raises
    ------
    ValueError
        If it lies outside the volume.
    """
    z, y, x = (slice(int(a), int(b)) for a, b in subject.run["roi"])
    roi = intersect((z, y, x), full_roi(subject.image.levels[0].shape))
    if roi is None:
        raise ValueError(f"the region {subject.run['roi']} lies outside the volume")
    return roi
