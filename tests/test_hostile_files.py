"""Each way in which a damaged file once led to worse than a message, as `test_fuzzing.py` found."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import tifffile
import torch

from volseg.errors import ModelError, ParameterError, SourceError, VolumeError
from volseg.sources.open import open_stack
from volseg.stages.label.source import open_probabilities
from volseg.stages.train.recipe import load_recipe
from volseg.storage.arrays import ArraySpec, create_array, open_array
from volseg.storage.attributes import write_group
from volseg.storage.cards import load_card
from volseg.storage.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from volseg.storage.ledger import Ledger
from volseg.storage.recipes import read_recipe
from volseg.storage.stores import parse_json
from volseg.storage.volumes import create_image, open_image, volume_tone
from volseg.training.config import TrainConfig
from volseg.voxels.intensity import Preprocessing

DEEP = "[" * 50_000 + "]" * 50_000
ARRAY = ArraySpec((32, 64, 64), "uint8", (32, 64, 64), (32, 64, 64))


def test_pages_in_a_circle(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first, last = tif.pages[0].offset, tif.pages[2].offset
    (tags,) = struct.unpack_from("<H", content, last)
    struct.pack_into("<I", content, last + 2 + 12 * tags, first)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="page 4 repeats what came before"):
        open_stack(path)


def test_pages_without_pixels(tmp_path):
    path = tmp_path / "a.tif"
    options = {"imagej": True, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), **options)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["ImageLength"]
        at = tag.offset + 8
    changed = content[:at] + struct.pack(">I", 0) + content[at + 4 :]
    # a count of images without size fits into any file, and would be listed one by one
    path.write_bytes(changed.replace(b"images=3", b"images=9999999999")[: len(content)])
    with pytest.raises(SourceError):
        open_stack(path)


@pytest.mark.parametrize("text", [DEEP, '"\\ud800"', "{"])
def test_text_that_is_no_json(text, tmp_path, toy_model):
    with pytest.raises(ValueError, match=r"nested|character|column 2 is not understood"):
        parse_json(text)
    (tmp_path / "zarr.json").write_text(text)
    with pytest.raises(VolumeError):
        open_image(tmp_path)
    (tmp_path / "toy.safetensors").write_bytes(toy_model.read_bytes())
    (tmp_path / "toy.json").write_text(text)
    with pytest.raises(ModelError, match="not a valid card"):
        load_card(tmp_path / "toy.safetensors")


@pytest.mark.parametrize(
    "changed", [{"tile": [float("inf"), 32, 32]}, {"voxel_size": [float("nan"), 5, 5]}]
)
def test_a_card_of_no_size(tmp_path, toy_model, changed):
    card = json.loads(toy_model.with_suffix(".json").read_text())
    (tmp_path / "toy.safetensors").write_bytes(toy_model.read_bytes())
    (tmp_path / "toy.json").write_text(json.dumps({**card, **changed}))
    with pytest.raises(ModelError, match="not a valid card"):
        load_card(tmp_path / "toy.safetensors")


@pytest.mark.parametrize(
    ("shape", "chunk"), [([2**31, 64, 64], [32, 64, 64]), ([32, 64, 64], [2**20, 64, 64])]
)
def test_an_array_that_claims_what_none_has(tmp_path, shape, chunk):
    create_array(tmp_path / "a", ARRAY)
    metadata = json.loads((tmp_path / "a" / "zarr.json").read_text())
    metadata["shape"] = shape
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = chunk
    metadata["codecs"] = [{"name": "bytes"}]
    (tmp_path / "a" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(VolumeError, match="at most 67108864 voxels along an axis"):
        open_array(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "value"), [("run", 5), ("complete", "yes"), ("model", []), ("histogram", "x" * 999)]
)
def test_notes_of_another_type(tmp_path, name, value):
    create_image(tmp_path / "a", ARRAY, None, attributes={name: value})
    with pytest.raises(VolumeError, match=f"volseg.{name} is") as caught:
        open_image(tmp_path / "a")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "histogram",
    [
        {"values": [1]},
        {"values": [1], "counts": [1, 2]},
        {"values": [1, 2], "counts": [1, -2]},
        {"values": [1, 2], "counts": [0, 0]},
        {"values": [1, None], "counts": [1, 1]},
        {"values": [1, 2], "counts": [1, 10**30]},
        {"values": "1", "counts": {}},
    ],
)
def test_a_histogram_that_is_none(tmp_path, histogram):
    image = create_image(tmp_path / "a", ARRAY, None, attributes={"histogram": histogram})
    with pytest.raises(VolumeError, match="histogram"):
        volume_tone(image, Preprocessing())


@pytest.mark.parametrize("noted", [{}, {"model": {"threshold": "x"}}, {"model": {}}])
def test_probabilities_of_which_too_little_is_known(tmp_path, noted):
    attributes = {"complete": True, "run": {"roi": []}, "fingerprint": "a", **noted}
    create_image(tmp_path / "probabilities" / "a", ARRAY, None, attributes=attributes)
    with pytest.raises(VolumeError, match="do not say any more how it was made"):
        open_probabilities(tmp_path, "a")


@pytest.mark.parametrize("multiscales", ["text", [5], [{"datasets": 5}], [{"datasets": ["x"]}]])
def test_multiscales_of_another_type(tmp_path, multiscales):
    write_group(tmp_path / "a", {"ome": {"multiscales": multiscales}})
    with pytest.raises(VolumeError, match="cannot be used"):
        open_image(tmp_path / "a")


@pytest.mark.parametrize("line", [b"5", b"[]", b'{"key": []}', b'{"key": "b"}', b"\xff", DEEP])
def test_a_ledger_counts_up_to_the_first_line_that_is_no_record(tmp_path, line):
    path = tmp_path / "a.jsonl"
    with Ledger.open(path, {"level": 1}) as ledger:
        ledger.record("a", 1)
    kept = path.read_bytes()
    path.write_bytes(kept + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with Ledger.open(path, {"level": 1}) as ledger:
        assert set(ledger.records) == {"a"}
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    "changed",
    [
        {"config": "[]"},
        {"config": DEEP},
        {"best": {"jaccard": 1.0}},
        {"best": 5},
        {"step": -1},
        {"losses": ("x",)},
    ],
)
def test_a_checkpoint_of_no_run(tmp_path, changed):
    path = tmp_path / "checkpoint.safetensors"
    sound = {"step": 1, "seconds": 1.0, "config": "{}", "tensors": {"a": torch.zeros(1)}}
    save_checkpoint(path, Checkpoint(**sound | changed))
    with pytest.raises(ModelError, match="move it away to start anew"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", [f"a = {DEEP}", "data = [5]", f'[run]\nname = "{"x" * 5000}"'])
def test_a_recipe_that_is_none(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        load_recipe(path)
    assert len(str(caught.value)) < 500
    if DEEP in text:
        with pytest.raises(ParameterError, match="cannot be read as TOML"):
            read_recipe(path)


@pytest.mark.parametrize(
    "huge", [{"width": 2**20}, {"patch": (2**20, 2**20, 1)}, {"batch": 2**40}, {"seed": 2**70}]
)
def test_a_recipe_for_no_machine(huge):
    with pytest.raises(ParameterError, match="found"):
        TrainConfig(**{"steps": 1, **huge})
