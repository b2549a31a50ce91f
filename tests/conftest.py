"""What all tests share: the real crop, the command line, and data that only some machines have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from distributed.protocol.pickle import dumps, loads
from hypothesis import settings

from volseg.cli import main
from volseg.engine.steps import Failure

ROOT = Path(__file__).parents[1]
LONG = (
    *("test_kills.py", "test_damage.py", "test_train.py", "test_site.py", "test_studies.py"),
    *("test_disk.py", "test_no_pickle.py", "test_documents.py", "test_fuzzing.py"),
    *("test_main_job.py", "test_paths.py", "test_report.py", "test_remote.py"),
)
"""Files that take longest, and begin first: else one worker waits for another at the end."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # set before torch is loaded: threads of workers that share the cores spin while they wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# no test fails on a time: machines differ, and are busy
settings.register_profile("volseg", deadline=None)
settings.load_profile("volseg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, and leave the long form of tests to those who ask for it."""
    items.sort(key=lambda i: LONG.index(i.path.name) if i.path.name in LONG else len(LONG))
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
    """Weights and card of a tiny network with random weights, quick to run."""
    from toy_weights import write_weights

    folder = tmp_path_factory.mktemp("model")
    return write_weights(folder, "emnet", (12, 32, 32), (4, 8, 8), 8, seed=5)


@pytest.fixture(scope="session")
def lines_model(toy_model, tmp_path_factory) -> Path:
    """The tiny network, with centerlines that vary."""
    from toy_weights import write_lines

    return write_lines(tmp_path_factory.mktemp("model") / "lines.safetensors", toy_model)


def _do_far_away(packed, *sources):
    outcome = loads(packed)(*sources)
    # errors are made fit for it where they are sent
    return outcome and [o if isinstance(o, Failure) else loads(dumps(o)) for o in outcome]


@pytest.fixture(autouse=True)
def _all_could_run_elsewhere(monkeypatch):
    """Check that what threads are given and give back could be sent to and fro, too."""
    from volseg.engine.local import LocalScheduler

    start = LocalScheduler.start

    def checked(self, graph, window, arrived):
        far = {k: (partial(_do_far_away, dumps(node[0])), *node[1:]) for k, node in graph.items()}
        start(self, far, window, arrived)

    monkeypatch.setattr(LocalScheduler, "start", checked)


@pytest.fixture(scope="module")
def quick_training() -> Iterator[None]:
    """Train without what takes most of a toy's time: context in validations, and pictures."""
    from volseg.stages.train import record
    from volseg.training.validation import CONTEXTS

    with pytest.MonkeyPatch.context() as patch:
        for dimensions in CONTEXTS:
            patch.setitem(CONTEXTS, dimensions, (0, 0, 0))
        patch.setattr(record, "can_draw", lambda: False)
        patch.setattr(record, "find_spec", lambda name: name != "tensorboard" or None)
        yield


@pytest.fixture
def pictures(monkeypatch) -> None:
    """Draw pictures of training all the same."""
    from importlib.util import find_spec

    from volseg.stages.train import record
    from volseg.storage.plots import can_draw

    pytest.importorskip("matplotlib")
    monkeypatch.setattr(record, "can_draw", can_draw)
    monkeypatch.setattr(record, "find_spec", find_spec)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let a test compute in one thread."""
    from toy_threads import one_thread

    with one_thread():
        yield


@pytest.fixture
def volseg():
    """Run the command line in this process: ``volseg("stats", path)``."""

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="volseg")

    return run
