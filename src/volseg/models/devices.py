"""Devices and precisions: their names, and what a machine can do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from volseg.errors import ParameterError

ACCELERATORS = {"cuda": "CUDA", "mps": "MPS (Apple)", "xpu": "XPU (Intel)"}
"""PyTorch's names of devices beside the CPU. ``auto`` takes ``cuda`` or the CPU: volseg has not run
on the others, which have to be asked for."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "tf32": torch.float32}
TF32 = "tf32"
"""The precision that is stored as float32 and multiplied by GPUs with 10 bits of mantissa."""
UNALLOCATED = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "std::bad_alloc",
)
"""Messages of PyTorch on CPUs, of pinned memory, of MPS and of OpenVINO, when memory is full; none
has an exception of its own for that."""
CPU_SLICES, SLICES, MOST_SLICES = 4, 8, 32
"""Slices that a 2D network sees at once on a CPU, on a GPU that nobody knows, and at most on one:
what bounds its memory. On CPUs more are not faster (decision 0037)."""


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu`` into a device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(name)
    if name != "cpu" and not getattr(torch, name).is_available():
        raise ParameterError(
            f"no {ACCELERATORS[name]} device is usable on {socket.gethostname()}; give --device "
            f"cpu or auto"
        )
    return torch.device(name)


def means_full_memory(error: Exception) -> bool:
    """Tell whether an error says that the memory of a device is full.

    Examples
    --------
    >>> means_full_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    True
    """
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or any(words in str(error) for words in UNALLOCATED)


def check_device(name: str) -> None:
    """Check the name of a device."""
    if name == "openvino":
        raise ParameterError("only segment evaluates networks with OpenVINO; give --device cpu")
    if name != "cpu" and name not in ACCELERATORS:
        names = f"auto, cpu, {', '.join(list(ACCELERATORS)[:-1])} or {list(ACCELERATORS)[-1]}"
        raise ParameterError(f"a device is {names}, found {name!r}")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn the name of a precision into a type; ``auto`` takes bfloat16 where it is fast.

    A CPU that does not multiply bfloat16 computes it all the same, at a fifth of the speed of
    float32. A GPU that does not is refused: what its libraries do then has not been tested. Nor has
    bfloat16 on ``mps`` and ``xpu``, which compute in float32.
    """
    if name == "auto":
        name = "bfloat16" if multiplies_bfloat16(device) else "float32"
    check_precision(name)
    if name == TF32 and device.type != "cuda":
        raise ParameterError(f"tf32 is for GPUs of device cuda, found {device.type}")
    if name == "bfloat16" and device.type in {"mps", "xpu"}:
        raise ParameterError(
            f"bfloat16 has not been tested on {ACCELERATORS[device.type]}; give --precision float32"
        )
    if name != "float32" and device.type == "cuda" and not multiplies_bfloat16(device):
        raise ParameterError(
            f"the GPU of {socket.gethostname()} does not multiply {name}; give --precision "
            f"float32, or run on GPUs of compute capability 8.0 or higher"
        )
    return PRECISIONS[name]


def check_precision(name: str) -> None:
    """Check the name of a precision."""
    if name not in PRECISIONS:
        names = "auto, float32, bfloat16 or tf32"
        raise ParameterError(f"a precision is {names}, found {name!r}")


@contextmanager
def computing_in(precision: torch.dtype, device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Let a GPU compute float32 as such, unless TF32 is asked for, and the same each time.

    By default its convolutions round what they multiply to TF32, which has 10 bits of mantissa
    where float32 has 23, and bfloat16 has 7. Kernels are not chosen by trying, for chance decides
    which one wins.
    """
    if device.type != "cuda":
        yield
        return
    now, allowed = torch.backends.cudnn, tf32 and precision == torch.float32
    limit = now.benchmark_limit
    with now.flags(now.enabled, False, limit, True, allow_tf32=allowed):
        yield


def choose_batch(asked: int | None, where: str, device: torch.device | None) -> int:
    """Choose how many slices a network of slices sees at once.

    Parameters
    ----------
    asked : None to choose
    device : None if it is another machine's, or not PyTorch's

    Returns
    -------
    int
        4 on CPUs, 8 on GPUs that nobody knows; on others a power of two: one for each GiB of
        memory.
    """
    if asked is not None:
        if asked < 1:
            raise ParameterError(f"a batch has at least 1 slice, found {asked}")
        return asked
    if where not in ACCELERATORS:
        return CPU_SLICES
    if device is None or device.type != "cuda":
        return SLICES
    gib = torch.cuda.get_device_properties(device).total_memory >> 30
    return min(1 << max(gib.bit_length() - 1, 0), MOST_SLICES)


def gpu_name(device: torch.device | None) -> str | None:
    """Name the kind of a GPU of this machine; None for CPUs, and where nobody knows."""
    if device is None or device.type != "cuda":
        return None
    return torch.cuda.get_device_name(device)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether a device of this machine multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # no public name yet for what CPUs do
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def as_tensor(values: NDArray[Any]) -> Tensor:
    """View an array as a tensor; what PyTorch cannot view is copied."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())
