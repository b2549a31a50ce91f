"""The main job as users type it: convert, segment, label, stats; and what they read on the way."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
import tifffile
from scipy import ndimage

from volseg.stages.segment import estimate


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A stack of 5 nm, as ImageJ writes it."""
    raw = ndimage.gaussian_filter(np.random.default_rng(8).random((20, 70, 60)), 2)
    raw = ((raw - raw.min()) / np.ptp(raw) * 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("stack") / "raw.tif"
    size = {"resolution": (0.2, 0.2), "metadata": {"spacing": 5.0, "unit": "nm", "axes": "ZYX"}}
    tifffile.imwrite(path, raw, imagej=True, **size)
    return path


@pytest.fixture
def segmented(volseg, stack, toy_model, tmp_path):
    volume = tmp_path / "vol.zarr"
    assert volseg("convert", stack, volume, "-q").exit_code == 0
    done = volseg("segment", volume, "--model", toy_model, "-q")
    assert done.exit_code == 0, done.output
    return volume


def test_the_three_commands(volseg, segmented, tmp_path):
    result = volseg("stats", segmented, "--json", "--output", tmp_path / "objects.csv")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    table = pyarrow.parquet.read_table(segmented / "tables" / "mitochondria.parquet").to_pydict()
    assert row["objects"] == len(table["label"]) > 1
    assert row["total_nm3"] == sum(table["volume_nm3"]) == sum(table["voxels"]) * 125
    with (tmp_path / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["voxels"]) for r in rows] == table["voxels"]

    shown = volseg("stats", segmented)
    head, line, told = shown.stdout.splitlines()
    assert "expected precision unknown" in told
    assert head.split()[:4] == ["volume", "objects", "95%", "interval"]
    assert line.split()[:2] == [str(segmented), str(row["objects"])]
    assert "tables/mitochondria.parquet" in shown.stderr


def test_results_are_read_without_what_only_networks_need(segmented):
    """PyTorch takes longer to load than any of these takes for a small volume; pandas a third."""
    given = str(segmented)
    commands = [
        ["label", given, "--threshold", "0.6", "--overwrite"],
        ["stats", given],
        ["evaluate", given, "--truth", "mitochondria"],
        ["verify", given, "--quick"],
        ["info", given],
        ["models", "show", "unet2d"],
    ]
    program = (
        "import sys\n"
        "from volseg.cli import main\n"
        f"for command in {commands}: main(command, standalone_mode=False)\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'distributed'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")


def test_several_volumes_give_a_row_each(volseg, segmented, tmp_path):
    other = shutil.copytree(segmented, tmp_path / "other.zarr")
    shown = volseg("stats", segmented, other)
    assert len(shown.stdout.splitlines()) == 5
    refused = volseg("stats", segmented, other, "--labels", other)
    assert refused.exit_code == 2


def test_label_with_another_threshold(volseg, segmented):
    refused = volseg("label", segmented, "--threshold", "0.6")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    done = volseg("label", segmented, "--threshold", "0.6", "--overwrite", "--json")
    assert json.loads(done.stdout)["threshold"] == 0.6


def test_a_dry_run_says_what_it_takes_and_writes_nothing(volseg, stack, toy_model, tmp_path):
    volume = tmp_path / "vol.zarr"
    volseg("convert", stack, volume)
    shown = volseg("segment", volume, "--model", toy_model, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "nothing was computed or written" in shown.stdout
    assert not (volume / "probabilities").exists()


@pytest.mark.parametrize(
    ("size", "more", "said"),
    [
        ("20,20,20", (), "unet2d, which looks at slices along z, y and x;"),
        (
            "5,5,5",
            (),
            "unet2d, which looks at slices along z alone, because slices along other axes",
        ),
        ("20,20,20", ("--views", "xy"), "unet2d, which looks at slices as --views xy says;"),
        ("50,5,5", (), "unet2d, which looks at slices along z;"),
        ("50,5,5", ("--store-centerline",), "the model is emnet"),
        ("5,5,5", ("--split", "centerline"), "the model is emnet"),
    ],
)
def test_without_a_model_it_is_the_one_that_suits(
    volseg, stack, tmp_path, monkeypatch, size, more, said
):
    # a tile of a real network takes a minute where bfloat16 is not in hardware
    monkeypatch.setattr(estimate, "_seconds", lambda *_: 1.0)
    volume = tmp_path / "vol.zarr"
    assert volseg("convert", stack, volume, "--voxel-size", size).exit_code == 0
    planned = volseg("segment", volume, "--dry-run", "--device", "cpu", *more)
    assert planned.exit_code == 0, planned.output
    assert said in planned.output
    named = volseg("segment", volume, "--dry-run", "--device", "cpu", "--model", "unet2d")
    assert named.exit_code == 0, named.output
    assert "the model is" not in named.output


def test_the_precision_is_planned_recorded_and_kept(volseg, segmented, toy_model):
    for precision in ("float32", "bfloat16"):
        flags = ("--model", toy_model, "--name", precision, "--precision", precision, "--dry-run")
        planned = volseg("segment", segmented, *flags, "--device", "cpu", "--json")
        found = json.loads(planned.stdout)
        assert (found["device"], found["precision"]) == ("cpu", precision)
    shown = json.loads(volseg("info", segmented, "--json").stdout)
    mine = shown["probabilities"]["mitochondria"]["volseg"]["run"]["precision"]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[mine]
    again = ("segment", segmented, "--model", toy_model, "--precision")
    assert volseg(*again, mine).exit_code == 0
    refused = volseg(*again, other)
    assert refused.exit_code == 2
    assert f"you ask for {other}; give --precision {mine} to go on with it" in refused.stderr


def test_without_voxel_size_sizes_are_in_voxels_and_it_says_why(volseg, tmp_path, toy_model):
    source, volume = tmp_path / "raw.tif", tmp_path / "vol.zarr"
    raw = np.random.default_rng(0).integers(0, 255, (20, 70, 60), dtype=np.uint8)
    tifffile.imwrite(source, raw)
    volseg("convert", source, volume)
    volseg("segment", volume, "--model", toy_model)
    shown = volseg("stats", volume)
    assert "mean voxels" in shown.stdout
    assert "um^3" not in shown.stdout
    assert "voxel size" in shown.stderr
    assert "nm" not in " ".join(json.loads(volseg("stats", volume, "--json").stdout)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "nowhere.zarr"], "there is nothing at nowhere.zarr"),
        (["stats", "nowhere.zarr"], "there is nothing at nowhere.zarr"),
        (["label", "nowhere.zarr"], "no probabilities/mitochondria"),
        (["stats", "nowhere.zarr", "--output", "x.xlsx"], ".parquet, .csv or .tsv"),
    ],
)
def test_bad_input_is_named_with_exit_status_2(volseg, arguments, message):
    result = volseg(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_centerlines_are_stored_on_request_and_then_split_by(volseg, stack, toy_model, tmp_path):
    volume = tmp_path / "vol.zarr"
    volseg("convert", stack, volume, "-q")
    model = ("--model", toy_model, "-q")
    refused = volseg("segment", volume, "--model", "unet2d", "--store-centerline")
    assert refused.exit_code == 2
    assert "those of emnet, emnet-paper give both" in refused.stderr
    assert not (volume / "probabilities").exists()
    assert volseg("segment", volume, *model).exit_code == 0
    refused = volseg("label", volume, "--split", "centerline", "--overwrite")
    assert refused.exit_code == 2
    assert "--store-centerline`, or use" in refused.stderr
    done = volseg("segment", volume, *model, "--store-centerline")
    assert done.exit_code == 0, done.output
    done = volseg("label", volume, "--split", "centerline", "--overwrite", "-q")
    assert done.exit_code == 0, done.output
    assert (volume / "probabilities" / "mitochondria-centerline" / "zarr.json").exists()
    assert volseg("segment", volume, *model, "--split", "centerline").exit_code == 0
