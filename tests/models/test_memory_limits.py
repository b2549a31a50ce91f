"""Memory that is too small: fewer slices at once, then advice; the result stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from volseg.errors import BlockError
from volseg.models.inference import SLICES, Predictor

CPU = torch.device("cpu")


class Blur(torch.nn.Module):
    """A convolution on a device with room for a few slices, or none."""

    def __init__(self, dimensions: int, room: int, error: Exception) -> None:
        super().__init__()
        kind = torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d
        self.conv = kind(1, 1, 3, padding=1)
        self.room, self.error = room, error
        self.batches: list[int] = []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.room:
            raise self.error
        return self.conv(x)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 PiB"),
]


def predictor(network: Blur, dimensions: int = 2) -> Predictor:
    return Predictor(network.requires_grad_(False), CPU, torch.float32, dimensions)


@pytest.fixture
def tile() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((20, 24, 16)).astype(np.float32)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_fewer_slices_at_once_give_the_same(tile, room, error):
    roomy = Blur(2, SLICES, error)
    tight = Blur(2, room, error)
    tight.load_state_dict(roomy.state_dict())
    small = predictor(tight)
    # one slice by itself may be rounded otherwise
    bound = 0 if room > 1 else 1e-6
    assert np.abs(small(tile) - predictor(roomy)(tile)).max() <= bound
    fits = small.batch.slices
    assert fits == {1: 1, 2: 2, 3: 2, 5: 4}[room]
    tight.batches.clear()
    small(tile)
    assert max(tight.batches) == fits, "it is remembered"


@pytest.mark.parametrize(("dimensions", "what"), [(2, "a slice of 24 x 16"), (3, "a tile of 20 x")])
def test_what_does_not_fit_at_all_comes_with_advice(tile, dimensions, what):
    network = Blur(dimensions, 0, ERRORS[0])
    with pytest.raises(BlockError, match=f"{what}.*run fewer workers.*smaller --tile"):
        predictor(network, dimensions)(tile)


def test_other_errors_are_not_taken_for_full_memory(tile):
    with pytest.raises(RuntimeError, match="cosmic ray"):
        predictor(Blur(2, 0, RuntimeError("a cosmic ray")))(tile)
