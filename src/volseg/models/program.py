"""TorchScript programs that others wrote, behind the interface of volseg's own networks.

A program is code: it can read and write files while it runs, and parts of it run when it is loaded.
So it is opened only for those who say that they trust where it is from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.errors import ModelError

PROGRAM = "program"
"""Name of the one tensor, uint8, that holds a program's bytes among weights."""
REFUSAL = (
    "these weights are a TorchScript program, which is code and can read and write files; it is "
    "run only if --trust-torchscript says that you trust where it is from"
)


class Affine(nn.Module):
    """``gain * x + offset``."""

    def __init__(self, gain: float, offset: float) -> None:
        super().__init__()
        self.gain, self.offset = float(gain), float(offset)

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        return x * self.gain + self.offset


class Clip(nn.Module):
    """Cut off what lies outside a range."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = float(low), float(high)

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        return torch.clamp(x, self.low, self.high)


class Standardise(nn.Module):
    """Give each sample of a batch a mean of 0 and a variance of 1."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = float(eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 1, *space) to itself."""
        flat = x.flatten(1)
        shape = [x.size(0)] + [1] * (x.dim() - 1)
        mean = flat.mean(1).reshape(shape)
        return (x - mean) / (flat.std(1, unbiased=False).reshape(shape) + self.eps)


class Adapter(nn.Module):
    """A foreign network that takes and gives what volseg's own do.

    Parameters
    ----------
    program : nn.Module
        From (n, 1, *space) to (n, channels, *space).
    before : sequence of nn.Module
        What turns -1..1 into what the program takes.
    sizes : sequence of (int, int)
        Of each axis: sizes that the program takes are ``least + n * step``, or ``least`` only where
        the step is 0. What lacks to the next is filled with the border, and cut off again.
    channel : int
        Of the output.
    probabilities : bool
        Whether the program gives probabilities; else logits.
    """

    def __init__(
        self,
        program: nn.Module,
        before: Sequence[nn.Module],
        sizes: Sequence[tuple[int, int]],
        channel: int,
        *,
        probabilities: bool,
    ) -> None:
        super().__init__()
        self.program, self.before = program, nn.Sequential(*before)
        self.least, self.step = [a for a, _ in sizes], [b for _, b in sizes]
        self.channel, self.probabilities = channel, probabilities

    def forward(self, x: Tensor) -> Tensor:
        """Map raw, float, shape (n, 1, *space), to logits of the same shape."""
        x = self.before(x.float())
        sizes = x.shape[2:]
        pads: list[int] = []
        for k in range(len(sizes) - 1, -1, -1):
            more = self.least[k] - sizes[k]
            if more < 0:
                # how much is lacking to the next size; negative numbers divide unlike Python's here
                step = max(self.step[k], 1)
                more = (step - (-more) % step) % step
            pads.extend([0, more])
        out = self.program(functional.pad(x, pads, mode="replicate"))
        out = out[:, self.channel : self.channel + 1].float()
        for k, size in enumerate(sizes):
            out = out.narrow(k + 2, 0, size)
        return torch.logit(out, eps=1e-6) if self.probabilities else out


@contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript is deprecated upstream; what others have published in it stays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def run_serialised(content: bytes, *, trusted: bool) -> nn.Module:
    """Load a TorchScript program; parts of it may run at once.

    Raises
    ------
    ModelError
        If it is not trusted, or is no program.
    """
    if not trusted:
        raise ModelError(REFUSAL)
    try:
        with _quiet():
            program: nn.Module = torch.jit.load(BytesIO(content), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(f"this is no TorchScript program, or a damaged one: {reason}") from error
    return program.eval()


def serialise(adapter: Adapter) -> Tensor:
    """Turn an adapted program into one tensor of bytes.

    Returns
    -------
    uint8, shape (bytes,)
    """
    buffer = BytesIO()
    with _quiet():
        torch.jit.save(torch.jit.script(adapter.eval()), buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def load_program(weights: Mapping[str, Tensor], *, trusted: bool) -> nn.Module:
    """Load the program among weights.

    Raises
    ------
    ModelError
        If it is not trusted, is missing, or is no program.
    """
    if set(weights) != {PROGRAM} or weights[PROGRAM].dtype != torch.uint8:
        raise ModelError(f"a program's weights are one uint8 tensor {PROGRAM!r}: found others")
    return run_serialised(weights[PROGRAM].numpy().tobytes(), trusted=trusted)
