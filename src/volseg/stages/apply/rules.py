"""Turn rules about a column of the table of objects into deletions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volseg.errors import ParameterError, command
from volseg.measures.rules import parse_rule
from volseg.sources.labels import LabelSource
from volseg.storage.tables import read_columns
from volseg.storage.volumes import table_path

OUTLINED = ("darkness", "evenness", "solidity", "largest_section_nm2", "largest_section")
"""Columns that `stats` measures on request."""


def by_rules(
    volume: Path, source: LabelSource, texts: Sequence[str]
) -> tuple[Mapping[str, Any], dict[str, int]]:
    """Delete what breaks a rule, by the current table of objects; count by the first one broken.

    Raises
    ------
    ParameterError
        If a rule is none, its column is not measured, or nothing breaks it.
    """
    name = source.path.name
    rules, path = list(map(parse_rule, texts)), table_path(volume, name)
    columns, _, notes = read_columns(path) if path.is_file() else ({}, {}, {})
    measure = command("stats", volume, "--outline", name=name)
    if notes.get("labels") != source.identity:
        raise ParameterError(
            f"rules need the table of labels/{name} as they are: run `{measure}` first"
        )
    gone, counts = np.zeros(len(columns["label"]), bool), dict[str, int]()
    for rule in rules:
        if rule.column in OUTLINED and rule.column not in columns:
            raise ParameterError(f"{rule.column} is not measured yet: run `{measure}` first")
        more = rule.broken_by(columns) & ~gone
        counts[str(rule)] = counts.get(str(rule), 0) + int(more.sum())
        gone |= more
    if not gone.any():
        kept = " and ".join(counts)
        raise ParameterError(f"all {len(gone)} objects have {kept}: there is nothing to drop")
    return {"delete": columns["label"][gone].tolist()}, counts
