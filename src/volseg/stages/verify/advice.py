"""Advise which commands make again what a verification found damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from volseg.defaults import NAME
from volseg.errors import command
from volseg.stages.verify.findings import Finding
from volseg.stages.verify.images import Subject
from volseg.storage.predictions import KIND

REPAIRED = {"unreadable", "pyramid"}
"""Kinds of findings that ``volseg segment --repair`` sees as well."""


def advise(volume: Path, findings: Collection[Finding], subjects: Iterable[Subject]) -> list[str]:
    """Say which commands make again what is damaged."""
    damaged = {f.array for f in findings if f.kind in REPAIRED}
    copied = sorted({f.array for f in findings if f.kind == "copy"})
    advice = []
    for what, _, name in (array.partition("/") for array in copied):
        again = command("export", volume, what, "--in-place", "--overwrite", name=name or NAME)
        advice.append(f"the copy of {what} as Zarr v2: `{again}`")
    if "raw" in damaged:
        advice.append(
            f"the raw image, convert its source again; --overwrite replaces the results in "
            f"{volume} as well"
        )
    models: dict[str, list[str]] = {}
    looks: dict[str, list[str]] = {}
    for subject in subjects:
        if subject.run and subject.run.get("averaged"):
            zoom = subject.run.get("zoom")
            looks[subject.name] = averaging_flags(subject.run["averaged"])
            looks[subject.name] += [] if zoom is None else ["--zoom", str(zoom)]
        model = subject.image.attributes.get("model")
        if subject.array in damaged and "imported" in subject.run:
            again = command("label", volume, "--probabilities", "FILE", "--overwrite")
            advice.append(f"{subject.name}: `{again}`")
            continue
        if subject.array in damaged and subject.run and isinstance(model, dict):
            known = ["--model", str(model["name"])] if model.get("name") else []
            models.setdefault(subject.name.removesuffix(f"-{subject.run.get(KIND)}"), known)
    advice += [
        f"{name}: "
        + command("segment", volume, *model, *looks.get(name, ()), "--repair", name=name)
        + ", with the other options that it was made with"
        for name, model in models.items()
    ]
    return advice


def averaging_flags(averaged: Any) -> list[str]:
    """List the flags of the averages that a run took; none if they are not on record.

    Examples
    --------
    >>> averaging_flags([True, False, "ortho"])
    ['--tta', '--views', 'ortho']
    """
    if not isinstance(averaged, list) or len(averaged) != 3:
        return []
    tta, rotations, views = averaged
    flags = {"--tta": tta, "--rotations": rotations, f"--views {views}": views != "xy"}
    return [word for flag, given in flags.items() if given for word in flag.split()]
