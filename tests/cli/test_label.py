"""``volseg label``: the rules of objects, as flags."""

from __future__ import annotations

import json
import shlex

import click
import numpy as np
import pytest

from volseg.cli.options import parse_min_size
from volseg.geometry.grid import full_roi
from volseg.storage.arrays import ArraySpec
from volseg.storage.attributes import update_attributes
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path

SHAPE = (12, 32, 32)


@pytest.fixture
def volume(tmp_path):
    """Two cubes of 64 voxels that share an edge, and one voxel."""
    path = tmp_path / "vol.zarr"
    size, spec = (50.0, 5.0, 5.0), ArraySpec(SHAPE, "uint8", (8, 16, 16), (8, 16, 16))
    attributes = {"complete": True, "fingerprint": "test", "run": {"roi": None}}
    attributes["model"] = {"threshold": 0.5}
    create_image(path, spec, size, attributes={})
    found = np.zeros(SHAPE, np.uint8)
    found[2:6, 4:8, 4:8] = found[2:6, 8:12, 8:12] = found[10, 30, 30] = 200
    output = probabilities_path(path, "mitochondria")
    create_image(output, spec, size, attributes=attributes).levels[0].write(full_roi(SHAPE), found)
    return path


def objects(volseg, volume, *flags):
    done = volseg("label", volume, "--overwrite", "--json", *flags)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["objects"]


def test_connectivity_and_the_smallest_size(volseg, volume):
    assert objects(volseg, volume) == 2
    assert objects(volseg, volume, "--connectivity", "6") == 3
    assert objects(volseg, volume, "--connectivity", "18", "--min-size", "2") == 1
    assert objects(volseg, volume, "--connectivity", "6", "--min-size", "80000nm3") == 2
    assert objects(volseg, volume, "--connectivity", "6", "--min-size", "80001nm3") == 0
    run = open_image(labels_path(volume, "mitochondria")).attributes["run"]
    assert (run["connectivity"], run["min_size"]) == (6, 65)


def test_other_labels_of_the_name_are_kept_as_the_message_says(volseg, volume, toy_model):
    probabilities = open_image(probabilities_path(volume, "mitochondria"))
    made = {"model": {**probabilities.attributes["model"], "name": "toy"}}
    update_attributes(probabilities.path, made)
    assert volseg("label", volume).exit_code == 0
    rules = ("--threshold", "0.7")
    refused = volseg("label", volume, *rules)
    assert refused.exit_code == 2
    assert "choose another --name" not in refused.output
    advised = shlex.split(refused.output.partition("`volseg ")[2].partition("`")[0])
    assert advised == ["segment", str(volume), "--model", "toy", "--name", "OTHER"]
    assert volseg(*advised, *rules, "--model", toy_model).exit_code == 0
    assert volseg("label", volume).exit_code == 0
    assert "replace it" in refused.output
    assert volseg("label", volume, *rules, "--overwrite").exit_code == 0


def test_seeds_holes_and_splits(volseg, volume):
    assert objects(volseg, volume, "--seed-threshold", "0.78") == 2
    assert objects(volseg, volume, "--seed-threshold", "0.8") == 0
    assert objects(volseg, volume, "--min-probability", "0.78") == 2
    assert objects(volseg, volume, "--min-probability", "0.79") == 0
    assert objects(volseg, volume, "--fill-holes") == 2
    assert objects(volseg, volume, "--split", "kmeans") > 2
    run = open_image(labels_path(volume, "mitochondria")).attributes["run"]
    assert run["split_spacing"] == [10, 1, 1]
    assert objects(volseg, volume, "--split", "distance", "--split-depth", "0.5") == 3
    done = volseg("label", volume, "--threshold", "0.9", "--seed-threshold", "0.8", "--overwrite")
    assert done.exit_code == 2
    assert "at least the threshold of 0.9" in done.output


@pytest.mark.parametrize("text", ["", "-1", "1.5", "nm3", "-1nm3", "nannm3", "infnm3", "5um3"])
def test_bad_sizes_are_named(text):
    with pytest.raises(click.BadParameter) as caught:
        parse_min_size(text)
    assert repr(text) in str(caught.value)
