"""Exported networks give what the originals give; packages are valid, and come back exactly."""

from __future__ import annotations

import dataclasses
import gc
import json
import resource
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch

from volseg.errors import ConflictError, InputError, ModelError, ParameterError, StorageError
from volseg.exchange import export_model as stage
from volseg.exchange.export_model import export_model
from volseg.exchange.export_network import (
    Probabilities,
    largest_difference,
    load_network,
    trace_network,
)
from volseg.models.registry import count_parameters, find_architecture
from volseg.storage.cards import load_card
from volseg.storage.weights import load_weights, save_weights

SMALL = {"unet2d": 4, "unet2d-valid": 4, "attention-unet": 4, "unet3d": 4}


@pytest.fixture
def model(tmp_path):
    """Save a network with random weights: ``model("unet2d", percentiles=(0, 100))``."""

    def save(architecture, name="toy", **preprocessing):
        torch.manual_seed(3)
        form, width = find_architecture(architecture), SMALL.get(architecture, 8)
        network = form.build(width)
        flat = form.dimensions == 2
        tile = form.fit((8 if flat else 16, 64, 64))
        card = {
            "name": name,
            "architecture": architecture,
            "width": width,
            "parameters": count_parameters(network),
            "voxel_size": [9.0, 5.0, 5.0],
            "preprocessing": {
                "percentiles": [1.0, 99.0],
                "gain": 1.0,
                "gamma": 1.0,
                "equalise": False,
                **preprocessing,
            },
            "tile": list(tile),
            "overlap": [0 if flat else 8, 16 + form.offset[1], 16 + form.offset[2]],
            "stride": list(form.stride),
            "threshold": 0.5,
            "training": {"data": "none"},
            "scores": {},
        }
        path = tmp_path / f"{name}.safetensors"
        save_weights(path, network.state_dict(), card)
        return path

    return save


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_other_forms_give_the_same_probabilities(toy_model, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnx")
    output = tmp_path / f"toy{stage.SUFFIXES[form]}"
    report = export_model(toy_model, form, output)
    assert 0 <= report.difference < 1e-5
    # batch and sizes are not those of the trace
    assert report.checked_on == (2, 1, 8, 16, 16)
    assert report.size_bytes == output.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize(
    "architecture", ["emnet-paper", "unet2d-valid", "attention-unet", "unet3d"]
)
def test_traces_hold_at_other_sizes(architecture):
    torch.manual_seed(0)
    form = find_architecture(architecture)
    network = Probabilities(form.build(SMALL.get(architecture, 8))).eval().requires_grad_(False)
    tile = form.fit(form.multiple)
    larger = form.fit(tuple(n + 1 for n in tile))
    small, large = (
        torch.rand(1, 1, *form.input_shape(t)[3 - form.dimensions :]) for t in (tile, larger)
    )
    assert largest_difference(network, trace_network(network, small), large) < 1e-6


@pytest.mark.parametrize("architecture", ["unet3d", "unet2d-valid"])
def test_packages_are_valid(model, tmp_path, architecture):
    spec = pytest.importorskip("bioimageio.spec")
    output = tmp_path / "package.zip"
    export_model(model(architecture), "bioimageio", output)
    with warnings.catch_warnings(), spec.ValidationContext(log_warnings=False):
        warnings.simplefilter("ignore", ResourceWarning)
        found = spec.load_description(output, format_version="latest", perform_io_checks=True)
        assert isinstance(found, spec.ModelDescr), found.validation_summary.format()
        sizes = [a.size for a in found.inputs[0].axes[2:]]
        halo = [getattr(a, "halo", 0) for a in found.outputs[0].axes[2:]]
        del found
        gc.collect()
    form = find_architecture(architecture)
    first = 3 - form.dimensions
    assert [s.step for s in sizes] == list(form.multiple[first:])
    card = load_card(tmp_path / "toy.safetensors")
    assert halo == [o // 2 for o in card.overlap[first:]]


def test_the_description_says_what_volseg_does(model, tmp_path):
    pytest.importorskip("bioimageio.spec")
    import yaml

    path = model("emnet", percentiles=[2.0, 98.0], gain=1.5)
    export_model(path, "bioimageio", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        described = yaml.safe_load(archive.read("bioimageio.yaml"))
        raw, probabilities = (
            np.load(archive.open(f"test_{k}.npy"), allow_pickle=False) for k in ("input", "output")
        )
    steps = described["inputs"][0]["preprocessing"]
    assert [s["id"] for s in steps] == ["scale_range", "clip", "scale_linear"]
    assert steps[0]["kwargs"]["min_percentile"] == 2
    assert steps[2]["kwargs"] == {"gain": 3.0, "offset": -1.0}
    assert raw.shape == probabilities.shape == (1, 1, 12, 24, 24)
    assert 0 <= probabilities.min() < probabilities.max() <= 1
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert described["config"]["volseg"]["card"] == card
    assert [a.get("scale") for a in described["inputs"][0]["axes"][2:]] == [9.0, 5.0, 5.0]


@pytest.mark.parametrize("preprocessing", [{"gamma": 0.5}, {"equalise": True}])
def test_what_a_package_cannot_say_is_refused(model, tmp_path, preprocessing):
    path, output = model("emnet", **preprocessing), tmp_path / "out" / "a.zip"
    with pytest.raises(ParameterError, match="cannot express"):
        export_model(path, "bioimageio", output)
    assert not list(output.parent.iterdir())
    notes = export_model(path, "torchscript", tmp_path / "a.pt").notes
    assert any("gamma" in note for note in notes)


@pytest.mark.parametrize("form", ["torchscript", "bioimageio"])
def test_a_disk_that_is_full_ends_in_a_message_and_leaves_nothing(toy_model, tmp_path, form):
    """PyTorch ends the process where it writes to a path itself."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*model"):
            export_model(toy_model, form, tmp_path / f"model{stage.SUFFIXES[form]}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_instance_norms_have_no_onnx(model, tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(ParameterError, match="export this model as torchscript"):
        export_model(model("emnet-paper"), "onnx", tmp_path / "a.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.json", "toy.safetensors"]


def test_outputs_are_checked_before_any_work(toy_model, tmp_path):
    with pytest.raises(ParameterError, match=r"onnx is written to a \.onnx file"):
        export_model(toy_model, "onnx", tmp_path / "a.pt")
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(ConflictError, match="exists"):
        export_model(toy_model, "onnx", tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "mine"


def test_a_missing_extra_is_named(toy_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'volseg\[export\]'"):
        export_model(toy_model, "onnx", tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "bioimageio", None)
    with pytest.raises(InputError, match=r"pip install 'volseg\[export\]'"):
        export_model(toy_model, "bioimageio", tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_network_that_differs_is_not_written(toy_model, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_load_own", lambda _: torch.zeros_like)
    with pytest.raises(ModelError, match="differs from the original by"):
        export_model(toy_model, "torchscript", tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_weights_stay_what_they_were(toy_model):
    network = load_network(toy_model)
    loaded = load_weights(toy_model, load_card(toy_model))
    assert all(torch.equal(network.weights[k], loaded[k]) for k in loaded)
    assert dataclasses.asdict(network.card)["name"] == "toy"
