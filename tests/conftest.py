"""What all tests share: the real crop, the command line, and data that only some machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import settings

from volseg.cli import main

ROOT = Path(__file__).parents[1]

# no test fails on a time: machines differ, and are busy
settings.register_profile("volseg", deadline=None)
settings.load_profile("volseg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the long form of tests to those who ask for it."""
    skip = pytest.mark.skip(reason="slow: `make soak` runs it, or VOLSEG_SOAK=1")
    for item in items:
        if "slow" in item.keywords and "VOLSEG_SOAK" not in os.environ:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def crop() -> Path:
    """The folder of the real crop: ``raw.tif`` and ``labels.tif``, 32 x 384 x 384, 5 nm."""
    return ROOT / "examples" / "crop"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of annotated volumes that are not part of the project."""
    folder = Path(os.environ.get("VOLSEG_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no annotated volumes at {folder}; VOLSEG_SHARED_DATA may name them")
    return folder


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory) -> Path:
    """Weights and card of a tiny network of chance, quick to run."""
    import torch

    from volseg.io.weights import save_weights
    from volseg.models.emnet import EMNet
    from volseg.models.registry import count_parameters

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = EMNet(8).eval()
        noise = torch.rand(1, 1, 12, 32, 32) * 2 - 1
    with torch.no_grad():
        logits = network(noise)
        gain = 1.5 / logits.std()
        network.head.weight.mul_(gain)
        network.head.bias.copy_((network.head.bias - logits.mean()) * gain)
    card = {
        "name": "toy",
        "architecture": "emnet",
        "width": 8,
        "parameters": count_parameters(network),
        "voxel_size": [5.0, 5.0, 5.0],
        "preprocessing": {"percentiles": [1.0, 99.0], "gain": 1, "gamma": 1, "equalise": False},
        "tile": [12, 32, 32],
        "overlap": [4, 8, 8],
        "stride": [4, 8, 8],
        "threshold": 0.5,
        "training": {"data": "none", "terms": "none"},
        "scores": {},
    }
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    save_weights(path, network.state_dict(), card)
    return path


@pytest.fixture
def volseg():
    """Run the command line in this process: ``volseg("stats", path)``."""

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="volseg")

    return run
