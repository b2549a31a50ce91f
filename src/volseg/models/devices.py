"""Devices and precisions: their names, and what a machine can do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from volseg.errors import ParameterError

ACCELERATORS = {"cuda": "CUDA", "mps": "MPS (Apple)", "xpu": "XPU (Intel)"}
"""PyTorch's names of devices beside the CPU. ``auto`` takes ``cuda`` or the CPU: volseg has not run
on the others, which have to be asked for."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu`` into a device.

    Raises
    ------
    ParameterError
        If a GPU is asked for and there is none, or the name is unknown.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(name)
    if name != "cpu" and not getattr(torch, name).is_available():
        raise ParameterError(
            f"no {ACCELERATORS[name]} device is usable on {socket.gethostname()}; give --device "
            f"cpu or auto"
        )
    return torch.device(name)


def check_device(name: str) -> None:
    """Check the name of a device.

    Raises
    ------
    ParameterError
        If it is unknown.
    """
    if name == "openvino":
        raise ParameterError("only segment evaluates networks with OpenVINO; give --device cpu")
    if name != "cpu" and name not in ACCELERATORS:
        names = f"auto, cpu, {', '.join(list(ACCELERATORS)[:-1])} or {list(ACCELERATORS)[-1]}"
        raise ParameterError(f"a device is {names}, found {name!r}")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn ``auto``, ``float32`` or ``bfloat16`` into a type; auto takes bfloat16 where it is fast.

    A CPU that does not multiply bfloat16 computes it all the same, at a fifth of the speed of
    float32. A GPU that does not is refused: what its libraries do then has not been tested. Nor has
    bfloat16 on ``mps`` and ``xpu``, which compute in float32.

    Raises
    ------
    ParameterError
        If the name is unknown, or the device cannot compute so.
    """
    if name == "auto":
        name = "bfloat16" if multiplies_bfloat16(device) else "float32"
    check_precision(name)
    if name == "bfloat16" and device.type in {"mps", "xpu"}:
        raise ParameterError(
            f"bfloat16 has not been tested on {ACCELERATORS[device.type]}; give --precision float32"
        )
    if name == "bfloat16" and device.type == "cuda" and not multiplies_bfloat16(device):
        raise ParameterError(
            f"the GPU of {socket.gethostname()} does not multiply bfloat16; give --precision "
            f"float32, or run on GPUs of compute capability 8.0 or higher"
        )
    return PRECISIONS[name]


def check_precision(name: str) -> None:
    """Check the name of a precision.

    Raises
    ------
    ParameterError
        If it is unknown.
    """
    if name not in PRECISIONS:
        raise ParameterError(f"a precision is auto, {' or '.join(PRECISIONS)}, found {name!r}")


@contextmanager
def computing_in(precision: torch.dtype, device: torch.device) -> Iterator[None]:
    """Let a GPU compute float32 as such.

    By default its convolutions round what they multiply to TF32, which has 10 bits of mantissa
    where float32 has 23, and bfloat16 has 7.
    """
    if device.type != "cuda" or precision != torch.float32:
        yield
        return
    now = torch.backends.cudnn
    kept = (now.enabled, now.benchmark, now.benchmark_limit, now.deterministic)
    with now.flags(*kept, allow_tf32=False):
        yield


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether a device of this machine multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # no public name yet for what CPUs do
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
