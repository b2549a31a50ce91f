"""Packages in BioImage.IO's format 0.4, made without volseg: tensors are matched and proved."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from volseg.errors import ModelError
from volseg.exchange.import_model import import_model
from volseg.storage.weights import load_weights

yaml = pytest.importorskip("yaml")
WIDTH = 4


def twice(inputs, outputs, kernel):
    layers, told = [], {"padding": kernel // 2, "bias": False}
    for i in (inputs, outputs):
        layers += [nn.Conv2d(i, outputs, kernel, **told), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class TheirNet(nn.Module):
    """A U-Net as somebody else writes it: other names, in another order."""

    def __init__(self, depth=4, kernel=3):
        super().__init__()
        widths = [WIDTH << k for k in range(depth + 1)]
        self.down = nn.ModuleList(
            twice(i, o, kernel) for i, o in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.out = nn.Conv2d(WIDTH, 1, 1)
        self.merge = nn.ModuleList(twice(2 * w, w, kernel) for w in widths[-2::-1])
        self.raise_ = nn.ModuleList(
            nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1]
        )

    def forward(self, x):
        kept = []
        for k, level in enumerate(self.down):
            x = level(x if k == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, level, left in zip(self.raise_, self.merge, kept[-2::-1], strict=True):
            x = level(torch.cat([left, up(x)], 1))
        return self.out(x)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def form():
    """Depth and filters of the network."""
    return 4, 3


@pytest.fixture
def older(tmp_path, form):
    """Write a package: ``older(edit, **files)``."""
    torch.manual_seed(3)
    network = TheirNet(*form)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    network.eval()
    raw = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 48)).astype(np.float32)
    low, high = np.percentile(raw, (1, 99))
    with torch.inference_mode():
        scaled = torch.from_numpy((2 * (raw - low) / (high - low + 1e-6) - 1).astype(np.float32))
        expected = torch.sigmoid(network(scaled)).numpy()
    buffer = io.BytesIO()
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, buffer)
    harm = f"open({str(tmp_path / 'harmed')!r}, 'w')\n"
    description = {
        "format_version": "0.4.10",
        "type": "model",
        "name": "Their Net",
        "description": "a network",
        "authors": [{"name": "A. Body"}],
        "cite": [{"text": "nothing", "doi": "10.1000/182"}],
        "license": "MIT",
        "documentation": "README.md",
        "covers": ["cover.png"],
        "tags": ["em"],
        "timestamp": "2023-01-01T00:00:00",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, 1, 32, 32], "step": [0, 0, 16, 16]},
                "preprocessing": [
                    {
                        "name": "scale_range",
                        "kwargs": {
                            "mode": "per_sample",
                            "axes": "cyx",
                            "min_percentile": 1.0,
                            "max_percentile": 99.0,
                        },
                    },
                    {
                        "name": "scale_linear",
                        "kwargs": {"axes": "yx", "gain": [2.0], "offset": [-1.0]},
                    },
                ],
            }
        ],
        "outputs": [
            {
                "name": "mask",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"reference_tensor": "raw", "scale": [1] * 4, "offset": [0.0] * 4},
                "halo": [0, 0, 8, 8],
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
        "weights": {
            "pytorch_state_dict": {
                "source": "weights.pt",
                "architecture": "net.py:TheirNet",
                "architecture_sha256": hashlib.sha256(harm.encode()).hexdigest(),
                "kwargs": {},
                "pytorch_version": "1.13",
            }
        },
    }
    content = {
        "weights.pt": buffer.getvalue(),
        "in.npy": npy(raw),
        "out.npy": npy(expected),
        "net.py": harm.encode(),
        "README.md": b"# Their Net",
        "cover.png": b"",
    }

    def write(edit=lambda description: None, **files):
        path = tmp_path / "their.zip"
        edit(description)
        with zipfile.ZipFile(path, "w") as archive:
            named = {f"{name}.npy": entry for name, entry in files.items()}
            for name, entry in (content | named).items():
                archive.writestr(name, entry)
            archive.writestr("rdf.yaml", yaml.safe_dump(description))
        return path

    return write


@pytest.mark.parametrize(("form", "name"), [((4, 3), "unet2d"), ((2, 5), "unet2d-depth2-filter5")])
def test_a_network_of_other_names_is_found_and_its_code_is_not_run(
    older, tmp_path, volseg, form, name
):
    done = volseg(
        *("models", "import", older(), "--output", tmp_path / "out", "--voxel-size", "30,5,5")
    )
    assert done.exit_code == 0, done.output
    output = tmp_path / "out" / "their-net.safetensors"
    report = import_model(older(), tmp_path / "again", voxel_size=(30.0, 5.0, 5.0))
    card = report.card
    assert (card.architecture, card.width, card.name) == (name, WIDTH, "their-net")
    assert (card.tile, card.overlap) == ((1, 32, 48), (0, 16, 16))
    assert (card.preprocessing.percentiles, card.preprocessing.gain) == ((1, 99), 1)
    assert card.training["terms"] == "MIT"
    assert not (tmp_path / "harmed").exists()
    network = card.form.build(card.width).eval()
    network.load_state_dict(load_weights(output, card))
    torch.manual_seed(3)
    x = torch.rand(1, 1, 48, 32)
    theirs = torch.load(io.BytesIO(zipfile.ZipFile(older()).read("weights.pt")), weights_only=True)
    net = TheirNet(*form).eval()
    net.load_state_dict({k.removeprefix("module."): v for k, v in theirs.items()})
    with torch.inference_mode():
        torch.testing.assert_close(network(x), net(x))


def test_the_package_of_the_test_is_what_the_specification_calls_one(older, tmp_path):
    spec = pytest.importorskip("bioimageio.spec")
    with zipfile.ZipFile(older()) as archive:
        archive.extractall(tmp_path / "a")
    with warnings.catch_warnings(), spec.ValidationContext(perform_io_checks=False):
        warnings.simplefilter("ignore")
        found = spec.load_description(tmp_path / "a" / "rdf.yaml", format_version="discover")
    assert not isinstance(found, spec.InvalidDescr), found.validation_summary
    assert found.format_version.startswith("0.4.")


def scaled_otherwise(description):
    description["inputs"][0]["preprocessing"] = [{"name": "zero_mean_unit_variance", "kwargs": {}}]


def two_outputs(description):
    description["outputs"] *= 2


@pytest.mark.parametrize(
    ("edit", "files", "size", "match"),
    [
        (None, {}, None, "give --voxel-size"),
        (None, {"out": npy(np.zeros((1, 1, 32, 48), np.float32))}, True, "but gives other values"),
        (None, {"in": npy(np.zeros((1, 1, 33, 48), np.float32))}, True, "but gives other values"),
        (None, {"in": npy(np.zeros((1, 2, 32, 48), np.float32))}, True, "expected numbers of one"),
        (None, {"in": b"\x93NUMPY"}, True, "in.npy is damaged"),
        (None, {"in": npy(np.array([{}], object))}, True, "in.npy is damaged"),
        (scaled_otherwise, {}, True, "by zero_mean_unit_variance; volseg's"),
        (two_outputs, {}, True, "other than one of outputs"),
        (lambda d: d["test_inputs"].clear(), {}, True, "names no test_inputs"),
        (lambda d: d["weights"]["pytorch_state_dict"].update(sha256="0"), {}, True, "not the file"),
    ],
)
def test_what_is_no_network_of_volseg_is_refused(older, tmp_path, edit, files, size, match):
    path = older(edit or (lambda description: None), **files)
    with pytest.raises(ModelError, match=match):
        import_model(path, tmp_path / "out", voxel_size=(30.0, 5.0, 5.0) if size else None)
    assert not (tmp_path / "out").exists()


def test_another_structure_is_named(older, tmp_path):
    buffer = io.BytesIO()
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 1)).state_dict(), buffer)
    path = older()
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, entry in content.items():
            new.writestr(name, buffer.getvalue() if name == "weights.pt" else entry)
    with pytest.raises(ModelError, match=r"is none of emnet, .*Code that comes with a model"):
        import_model(path, tmp_path / "out", voxel_size=(30.0, 5.0, 5.0))
