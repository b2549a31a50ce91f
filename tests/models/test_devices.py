"""Devices and precisions: auto takes what is fast, and what cannot be computed is refused."""

from __future__ import annotations

import pytest
import torch

from volseg.errors import ParameterError
from volseg.models.devices import choose_device, choose_precision, computing_in

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_devices_have_the_names_that_pytorch_gives_them(monkeypatch, name):
    module = getattr(torch, name)
    monkeypatch.setattr(module, "is_available", lambda: True)
    assert choose_device(name) == torch.device(name)
    monkeypatch.setattr(module, "is_available", lambda: False)
    with pytest.raises(ParameterError, match=rf"no {name.upper()} .*is usable on .*--device cpu"):
        choose_device(name)


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_devices_that_nobody_ran_on_are_not_chosen_and_compute_in_float32(monkeypatch, name):
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    assert choose_precision("auto", torch.device(name)) == torch.float32
    with pytest.raises(ParameterError, match=r"bfloat16 has not been tested on .*float32"):
        choose_precision("bfloat16", torch.device(name))


def test_unknown_choices_are_refused():
    with pytest.raises(ParameterError, match=r"auto, cpu, cuda, mps or xpu, found 'tpu'"):
        choose_device("tpu")
    with pytest.raises(ParameterError, match="found 'int8'"):
        choose_precision("int8", CPU)
    if not torch.cuda.is_available():
        with pytest.raises(ParameterError, match="no CUDA device"):
            choose_device("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_the_hardware_multiplies_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    assert choose_precision("float32", CPU) == torch.float32


def test_a_gpu_that_could_only_emulate_bfloat16_is_refused(monkeypatch):
    def supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_precision("auto", GPU) == torch.float32
    assert choose_precision("float32", GPU) == torch.float32
    with pytest.raises(ParameterError, match=r"does not multiply bfloat16; give --precision float"):
        choose_precision("bfloat16", GPU)


def test_a_gpu_rounds_float32_to_tf32_only_if_asked_and_chooses_kernels_by_rules(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for precision, asked, rounded in (
        (torch.float32, False, False),
        (torch.float32, True, True),
        (torch.bfloat16, True, False),
    ):
        now = torch.backends.cudnn
        with computing_in(precision, GPU, tf32=asked):
            assert (now.allow_tf32, now.benchmark, now.deterministic) == (rounded, False, True)
        with computing_in(precision, CPU, tf32=False):
            assert now.allow_tf32
        assert now.allow_tf32
