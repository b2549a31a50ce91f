"""What all tests share: the real crop, the command line, and data that only some machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from volseg.cli import main

ROOT = Path(__file__).parents[1]


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


@pytest.fixture
def volseg():
    """Run the command line in this process: ``volseg("stats", path)``."""

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="volseg")

    return run
