"""The pipeline of a device: NumPy's bytes on a CPU, and no bit of blocks or batches anywhere."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from toy_predictions import exact_options, read_map
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, ConflictError, ParameterError
from volseg.models import devices
from volseg.models.inference import Predictor
from volseg.models.maps import build_maps
from volseg.stages.predict import loading, tasks
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.pipeline import CPU, Reading, along_axes, run_on, stage, weigh
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.volumes import open_image, probabilities_path
from volseg.voxels.blend import FULL, interpolation_matrix
from volseg.voxels.intensity import Tone

ON = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]
WINDOW = Tone((20.3, 180.7))
TONES = [WINDOW, replace(WINDOW, gamma=0.5), replace(WINDOW, ranks=((0.0, 90.0), (0.2, 1.0)))]


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(4).integers(0, 256, (21, 60, 70), dtype=np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("slices", "volumes")]
    return {
        "unet2d": write_weights(folders[0], "unet2d", (8, 48, 48), (0, 16, 16), 4),
        "emnet": write_weights(folders[1], "emnet", (8, 32, 32), (4, 8, 8), 8),
    }


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", ">u2", "i2", "i4", "f4", "f8"])
def test_intensities_become_the_bytes_that_numpy_makes(tone, kind):
    raw = np.random.default_rng(0).integers(-100, 250, (3, 5, 7)).astype(kind)
    raw.setflags(write=False)
    seen = Reading(stage(raw, CPU), tone, None, (0, 0, 0)).send().shown
    np.testing.assert_array_equal(seen.numpy(), tone(raw))


def test_matrices_along_axes_equal_einsum(raw):
    block = raw[:8, :12, :9].astype(np.float32)
    moved = np.zeros((4, 8), np.float32)
    moved[np.arange(4), np.arange(4) + 2] = 0.3, 0.0, 1.0, 0.7
    finer = interpolation_matrix(np.linspace(-1, 12, 31), 12) * np.linspace(0, 1, 31)[:, None]
    coarser = interpolation_matrix(np.arange(1.0, 9, 2.3), 9)
    matrices = moved, finer.astype(np.float32), coarser
    expected = np.einsum("zyx,az,by,cx->abc", block, *matrices)
    found = along_axes(torch.from_numpy(block)[None], matrices)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    shares = weigh(torch.from_numpy(block)[None] / 255, matrices, [3])[0]
    np.testing.assert_allclose(shares, np.rint(expected * (FULL / 255 / 3)), atol=1)


def test_one_thread_of_a_process_owns_a_device():
    def me():
        return {run_on("cpu", lambda: threading.current_thread().name)}

    assert me() | me() == {"volseg-network"}
    with pytest.raises(ZeroDivisionError):
        run_on("cpu", lambda: 1 / 0)
    assert run_on("cpu", me) == {"volseg-network"}, "the owner does not wait for itself"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_forked_child_has_an_owner_of_its_own_and_no_lock_is_held_there():
    held = threading.Event()

    def load():
        with loading._LOADING:
            held.set()
            time.sleep(0.1)  # the fork waits for what is being loaded

    run_on("cpu", int)
    threading.Thread(target=load).start()
    assert held.wait(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child == 0:
        locked = run_on("cpu", lambda: loading._LOADING.acquire(timeout=1))
        own = run_on("cpu", os.getpid) == os.getpid()
        os._exit(0 if locked and own else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


@pytest.mark.parametrize("device", ON)
@pytest.mark.parametrize(
    ("name", "views"), [("unet2d", "xy"), ("unet2d", "ortho"), ("emnet", "xy")]
)
def test_no_bit_depends_on_blocks_and_workers(device, name, views, raw, models, tmp_path):
    volume, found = write_raw(tmp_path / "vol.zarr", raw), []
    for block, workers in (((8, 32, 32), 2), ((16, 64, 96), 1)):
        asked = exact_options(models[name], block, workers, views=views, overwrite=True)
        predict(plan_prediction(volume, replace(asked, device=device)), NoProgress())
        found.append(read_map(volume))
    np.testing.assert_array_equal(*found)
    assert found[0].std() > 1


@pytest.mark.parametrize("spoiled", [0, 2])
def test_tiles_of_any_lattice_that_are_not_finite_fail_the_block(
    spoiled, raw, models, tmp_path, monkeypatch
):
    def evaluate(tile, _needed, axis):
        return torch.full_like(tile, torch.nan if axis == spoiled else 0.5)[None]

    monkeypatch.setattr(
        tasks, "predictor_for", lambda _: SimpleNamespace(evaluate=evaluate, maps=())
    )
    asked = exact_options(models["unet2d"], views="ortho")
    with pytest.raises(BlockError, match="not finite in tile 0,0,0"):
        predict(plan_prediction(write_raw(tmp_path / "vol.zarr", raw), asked), NoProgress())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError),
        (RuntimeError("CUDA error: out of memory"), MemoryError),
        (RuntimeError("a cosmic ray"), RuntimeError),
    ],
)
def test_memory_that_is_full_beside_the_network_is_told_with_advice(error, told):
    def fail(_):
        raise error

    with pytest.raises(told) as found:
        tasks.PredictTask.__call__(SimpleNamespace(_assemble=fail), None)
    advised = f"{error}; give fewer --workers" in str(found.value)
    assert advised == (told is MemoryError)


@pytest.mark.parametrize("device", ON)
def test_no_bit_depends_on_what_fills_up_a_batch(device, models):
    tile = np.random.default_rng(1).standard_normal((11, 48, 48)).astype(np.float32)
    predictor = predictor_for(NetworkChoice(str(models["unet2d"]), device, "float32", batch=4))
    padded = replace(predictor, padded=True)
    whole = padded(tile)
    np.testing.assert_array_equal(padded(np.concatenate([tile, tile[:1]]))[:11], whole)
    if device == "cpu":
        np.testing.assert_array_equal(predictor(tile), whole)
        np.testing.assert_array_equal(replace(predictor, batch=8)(tile), whole)


def test_a_batch_is_on_record_where_it_decides(raw, models, tmp_path):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    asked = exact_options(models["unet2d"])
    predict(plan_prediction(volume, replace(asked, batch=3)), NoProgress())
    run = open_image(probabilities_path(volume, "mitochondria")).attributes["run"]
    assert (run["batch"], "gpu" in run) == (3, False)
    with pytest.raises(ConflictError, match=r"in batches of 3 slices; .*give --batch 3 to go on"):
        predict(plan_prediction(volume, asked), NoProgress())
    with pytest.raises(ParameterError, match="at least 1 slice, found 0"):
        plan_prediction(volume, replace(asked, batch=0))


class Memory:
    def __init__(self, gib):
        self.total_memory = int(gib * 2**30)


def pretend(monkeypatch, name, gib=80):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Memory(gib))


def test_a_run_on_a_gpu_keeps_to_its_kind_and_batch(raw, models, tmp_path, monkeypatch):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    asked = replace(exact_options(models["unet2d"]), device="cuda", precision="tf32")
    pretend(monkeypatch, "Fast 9", 7.7)
    small = plan_prediction(volume, asked).mask.header
    assert (small["batch"], small["gpu"], small["precision"]) == (4, "Fast 9", "tf32")
    pretend(monkeypatch, "Fast 9", 139.8)
    assert plan_prediction(volume, asked).choice.batch == devices.MOST_SLICES
    with pytest.raises(ParameterError, match="is a Fast 9, and this run is for a Slow 1, which"):
        predictor_for(NetworkChoice(str(models["unet2d"]), "cuda", "float32", gpu="Slow 1"))
    with pytest.raises(ParameterError, match="tf32 is for GPUs of device cuda, found cpu"):
        plan_prediction(volume, replace(asked, device="cpu"))


@pytest.mark.parametrize("maps", [1, 3])
def test_networks_of_any_number_of_maps_are_evaluated(maps):
    network = torch.nn.Conv2d(1, maps, 1).requires_grad_(requires_grad=False)
    tile = torch.randn(5, 8, 6)
    known, wanted = build_maps("abc"[:maps]), tuple(range(maps))
    predictor = Predictor(network, CPU, torch.float32, 2, tta=True, maps=known, wanted=wanted)
    found = predictor.evaluate(tile)
    expected = network(tile[:, None]).sigmoid().transpose(0, 1)
    torch.testing.assert_close(found, expected)
