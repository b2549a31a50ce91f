"""Memory that is too small fails with advice; nothing is made smaller behind a user's back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from volseg.errors import BlockError
from volseg.models.inference import Predictor

CPU = torch.device("cpu")


class Blur(torch.nn.Module):
    """A convolution on a device with room for a few slices, or none."""

    def __init__(self, dimensions: int, room: int, error: Exception) -> None:
        super().__init__()
        kind = torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d
        self.conv = kind(1, 1, 3, padding=1)
        self.room, self.error = room, error

    def forward(self, x):
        if len(x) > self.room:
            raise self.error
        return self.conv(x)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 PiB"),
    RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223:\nstd::bad_alloc"),
]


def predictor(network: Blur, dimensions: int = 2, **how: int) -> Predictor:
    network = network.requires_grad_(requires_grad=False)
    return Predictor(network, CPU, torch.float32, dimensions, **how)


@pytest.fixture
def tile() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((20, 24, 16)).astype(np.float32)


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "numpy", "pytorch", "openvino"])
def test_a_batch_that_does_not_fit_fails_with_advice_and_a_smaller_one_gives_the_same(tile, error):
    network = Blur(2, 3, error)
    advice = "4 slices of 24 x 16 do not fit .*fewer workers.* a smaller --batch or --tile"
    with pytest.raises(BlockError, match=advice):
        predictor(network)(tile)
    found = predictor(network, batch=3)(tile)
    network.room = 20
    np.testing.assert_array_equal(found, predictor(network)(tile))


@pytest.mark.parametrize(("dimensions", "what"), [(2, "a slice of 24 x 16"), (3, "a tile of 20 x")])
def test_what_does_not_fit_at_all_asks_for_smaller_tiles(tile, dimensions, what):
    network = Blur(dimensions, 0, ERRORS[0])
    with pytest.raises(BlockError, match=f"{what}.*run fewer workers.*smaller --tile, for"):
        predictor(network, dimensions, batch=1)(tile)


def test_other_errors_are_not_taken_for_full_memory(tile):
    with pytest.raises(RuntimeError, match="cosmic ray"):
        predictor(Blur(2, 0, RuntimeError("a cosmic ray")))(tile)
