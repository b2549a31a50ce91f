"""Rules of objects, as a run has them on record."""

from __future__ import annotations

import shlex

import click
import pytest

from volseg.cli import main
from volseg.stages.label.again import recorded_rules, repeat_without
from volseg.stages.label.rules import ObjectRules, describe_rules
from volseg.storage.ome import Space


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"seed_threshold": 0.7, "fill_holes": True, "min_probability": 0.6},
        {"complement": True, "max_volume_um3": 0.5, "max_section_um2": 0.25, "connectivity": 6},
        {"median_nm": 20.0},
        {"median_nm": 0.0},
        {"split": "kmeans"},
        {"split": "kmeans", "split_centres": 3},
        {"split": "distance", "split_depth": 1.0},
        {"split": "contour", "split_sure": 0.8, "split_contour": 0.3},
    ],
)
def test_rules_are_read_from_what_is_on_record_of_them(asked, tmp_path):
    model = {"threshold": 0.5, "min_size": 9, "voxel_size": [10, 10, 10], "min_probability": 0.55}
    model["median_nm"] = 40
    space = Space((10.0, 10.0, 10.0), units=("nanometer",) * 3)
    run = describe_rules(ObjectRules(**asked), space, model)
    assert describe_rules(recorded_rules(run), space, model) == run
    output, noted = tmp_path / "vol.zarr" / "labels" / "cells", {"run": run, "model": model}
    words = shlex.split(repeat_without(output, noted, "min_size"))
    _, label, rest = main.resolve_command(click.Context(main), words[1:])
    given = label.make_context("label", rest).params
    assert {k: given[k] for k in asked} == asked
