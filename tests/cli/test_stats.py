"""``volseg stats``: what can be asked for, and what JSON holds."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats

from volseg.geometry.grid import full_roi
from volseg.storage.arrays import ArraySpec
from volseg.storage.volumes import create_image, labels_path, register_label

SHAPE = (12, 32, 32)


@pytest.fixture
def volume(tmp_path):
    return write_volume(tmp_path / "vol.zarr", (50.0, 5.0, 5.0))


def write_volume(path, size, shape=SHAPE):
    form = (8, 16, 16), (8, 16, 16)
    create_image(path, ArraySpec(shape, "uint8", *form), size, attributes={})
    labels = np.zeros(SHAPE, np.uint32)
    labels[2:8, 4:20, 4:20], labels[9:, 24:, 24:] = 1, 2
    spec = ArraySpec(SHAPE, "uint32", *form)
    image = create_image(labels_path(path, "mitochondria"), spec, size, label=True, attributes={})
    image.levels[0].write(full_roi(SHAPE), labels)
    register_label(path, "mitochondria")
    return path


def test_json_has_the_whole_summary(volseg, volume):
    done = volseg("stats", volume, "--name", "mitochondria, mitochondria", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert (row["objects"], row["objects_unbiased"], row["touching_border"]) == (2, 1, 1)
    assert row["objects_low"] < 2 < row["objects_high"]
    low, high = (row[f"density_unbiased_{end}_per_um3"] for end in ("low", "high"))
    assert low < row["density_unbiased_per_um3"] < high
    assert row["mean_profile_nm2"] == 25 * (6 * 256 + 3 * 64) / 9
    assert row["slices"] == str(volume / "tables" / "mitochondria-slices.parquet")


def test_the_interval_of_the_count_is_printed_with_its_meaning(volseg, volume):
    done = volseg("stats", volume)
    head, line = done.stdout.splitlines()
    column = slice(head.index("95% interval"), head.index("95% interval") + len("95% interval"))
    # of two, by the quantiles of chi-squared with 4 and 6 degrees of freedom, halved
    low, high = stats.chi2.ppf(0.025, 4) / 2, stats.chi2.ppf(0.975, 6) / 2
    assert line[column].strip() == f"{low:.1f}-{high:.1f}" == "0.2-7.2"
    assert "95% interval: the expected number of objects" in done.stderr
    assert "95%" not in volseg("stats", volume, "-q").stderr


@pytest.mark.parametrize(
    ("flags", "present", "absent"),
    [
        ([], {"surface_area_nm2", "intensity_mean"}, {"centerline_length_nm"}),
        (["--measure", "shapes"], {"surface_area_nm2"}, {"intensity_mean"}),
        (["--measure", "basic"], {"volume_nm3"}, {"surface_area_nm2", "intensity_mean"}),
        (["--outline"], {"feret_diameter_nm", "solidity"}, {"centerline_length_nm"}),
        (["--surface", "marching-cubes", "--centerline"], {"centerline_length_nm"}, set()),
    ],
)
def test_sets_of_columns(volseg, volume, flags, present, absent):
    done = volseg("stats", volume, *flags)
    assert done.exit_code == 0, done.output
    head, line = done.stdout.splitlines()
    assert "mean um^3" in head
    assert line.split()[0] == str(volume)
    names = set(pyarrow.parquet.read_schema(volume / "tables" / "mitochondria.parquet").names)
    assert present <= names
    assert not absent & names


def test_what_does_not_go_together_is_refused(volseg, volume):
    refused = volseg("stats", volume, "--measure", "basic", "--centerline")
    assert refused.exit_code == 2
    assert "ask for 'full'" in refused.stderr
    assert not (volume / "tables").exists()


def test_nothing_is_measured_before_all_volumes_are_looked_at(volseg, volume, tmp_path):
    write_volume(tmp_path / "unknown.zarr", None)
    write_volume(tmp_path / "long.zarr", None, (13, 32, 32))
    output = "--output", tmp_path / "objects.csv"
    for other, message, more in (
        ("missing.zarr", "there is nothing at", ()),
        ("long.zarr", "(12, 32, 32)", ()),
        ("unknown.zarr", "with and without a voxel size; unknown in", output),
    ):
        refused = volseg("stats", volume, tmp_path / other, *more)
        assert refused.exit_code == 2, other
        assert message in refused.stderr
        assert not (volume / "tables").exists()
    done = volseg("stats", volume, tmp_path / "unknown.zarr")
    assert done.exit_code == 0, done.output
