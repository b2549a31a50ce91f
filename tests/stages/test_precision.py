"""Precision: chosen once for a run, the same for all its workers, and kept when it goes on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import LocalCluster

from toy_cluster import QUIET
from toy_predictions import exact_options, fail_in_a_block, read_map
from toy_volumes import write_raw
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ParameterError
from volseg.geometry.grid import full_roi
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.stages.verify.sample import ELSEWHERE, EXACT
from volseg.storage.attributes import update_attributes
from volseg.storage.volumes import labels_path, open_image, probabilities_path

SHAPE, NAME = (16, 56, 48), "mitochondria"
PRECISIONS = ["float32", "bfloat16"]
OTHER_INSTRUCTIONS = Path(__file__).parents[1] / "toys" / "other_instructions.py"


@pytest.fixture(params=PRECISIONS)
def precision(request, monkeypatch):
    """What is asked for, on a machine where auto would be the other one."""
    multiplies(monkeypatch, request.param == "float32")
    return request.param


@pytest.fixture(scope="module")
def references(toy_model, tmp_path_factory):
    """What one block and one worker give: the volume, probabilities and labels."""
    found = {}
    for precision in PRECISIONS:
        volume = new_volume(tmp_path_factory.mktemp(precision))
        asked = exact_options(toy_model, (24, 64, 64), precision=precision)
        segment(
            plan_segmentation(volume, SegmentOptions(asked, threshold=0.75, min_size=4)),
            NoProgress(),
        )
        found[precision] = volume, read_map(volume), labels(volume)
    return found


def new_volume(folder):
    raw = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    return write_raw(folder / "vol.zarr", raw, complete=True)


def labels(volume):
    return open_image(labels_path(volume, NAME)).levels[0][full_roi(SHAPE)]


def multiplies(monkeypatch, fast):
    """Let this machine's CPU, or not, multiply bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


def test_each_is_computed_and_recorded_as_asked(references):
    for precision, (volume, probabilities, _) in references.items():
        run = open_image(probabilities_path(volume, NAME)).attributes["run"]
        assert (run["device"], run["precision"]) == ("cpu", precision)
        assert probabilities.std() > 10, "a constant would prove nothing"
    exact, rounded = (references[p][1].astype(int) for p in PRECISIONS)
    assert 0 < abs(exact - rounded).max() < 100


def test_results_are_the_same_for_any_blocks_and_workers(
    references, toy_model, tmp_path, precision
):
    volume = new_volume(tmp_path)
    asked = exact_options(toy_model, workers=3, precision=precision)
    segment(
        plan_segmentation(volume, SegmentOptions(asked, threshold=0.75, min_size=4)), NoProgress()
    )
    assert (read_map(volume) == references[precision][1]).all()
    assert (labels(volume) == references[precision][2]).all()
    assert labels(volume).max() > 10


def test_a_run_goes_on_in_the_same_precision_and_in_no_other(
    references, toy_model, tmp_path, monkeypatch, precision
):
    volume, asked = new_volume(tmp_path), exact_options(toy_model, precision=precision)
    fail_in_a_block(volume, asked, monkeypatch)
    other = "bfloat16" if precision == "float32" else "float32"
    refused = (
        rf"was made in {precision}; you ask for {other}; give --precision {precision} to go on "
        rf"with it, choose another --name, or give --overwrite"
    )
    # as a newer or an older machine would choose, and as somebody might ask for
    for now in ("auto", other):
        with pytest.raises(ConflictError, match=refused):
            predict(plan_prediction(volume, replace(asked, precision=now)), NoProgress())
    assert predict(plan_prediction(volume, asked), NoProgress()).tiles == 0
    assert (read_map(volume) == references[precision][1]).all()
    with pytest.raises(ConflictError, match=refused):
        predict(plan_prediction(volume, replace(asked, precision=other)), NoProgress())
    with pytest.raises(ConflictError, match=r"; you ask for .*, .*; choose another --name"):
        predict(
            plan_prediction(volume, replace(asked, precision=other, roi="0:8,:,:")), NoProgress()
        )


def test_what_is_predicted_again_is_in_the_precision_on_record(references, toy_model, precision):
    volume, *_ = references[precision]
    report = verify(volume, VerifyOptions(model=str(toy_model), sample=1), NoProgress())
    assert report.findings == ()
    assert [(s.largest, s.allowed) for s in report.sampled] == [(0, EXACT)]


def test_a_cpu_verifies_what_a_gpu_made_in_the_precision_of_that(toy_model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    volume = new_volume(tmp_path)
    predict(plan_prediction(volume, exact_options(toy_model, precision="bfloat16")), NoProgress())
    path = probabilities_path(volume, NAME)
    run = open_image(path).attributes["run"]
    update_attributes(path, {"run": {**run, "device": "cuda"}})
    options = VerifyOptions(model=str(toy_model), sample=1)
    (sampled,) = verify(volume, options, NoProgress()).sampled
    assert (sampled.largest, sampled.allowed) == (0, ELSEWHERE)
    update_attributes(path, {"run": {**run, "precision": "int8"}})
    found = verify(volume, options, NoProgress()).findings
    assert "no precision is called 'int8'" in " ".join(f.message for f in found)


def test_a_cpu_that_can_only_emulate_it_is_named(toy_model, tmp_path, monkeypatch):
    volume = new_volume(tmp_path)
    for precision, fast, warned in (
        ("bfloat16", False, True),
        ("bfloat16", True, False),
        ("auto", False, False),
        ("auto", True, False),
    ):
        multiplies(monkeypatch, fast)
        notes = plan_prediction(volume, exact_options(toy_model, precision=precision)).notes
        assert any("does not multiply bfloat16 in hardware" in n for n in notes) == warned


@pytest.fixture(scope="module")
def scheduler():
    """A running scheduler with a worker, a thread of this process."""
    with LocalCluster(1, processes=False, **QUIET) as cluster:
        yield EngineOptions(scheduler=cluster.scheduler_address)


def test_workers_elsewhere_compute_as_planned_whatever_they_could(
    references, toy_model, tmp_path, monkeypatch, scheduler
):
    multiplies(monkeypatch, True)
    asked = exact_options(toy_model, precision="auto")
    volume = new_volume(tmp_path)
    predict(plan_prediction(volume, replace(asked, engine=scheduler)), NoProgress())
    assert (read_map(volume) == references["float32"][1]).all()
    # the same machine by itself would choose another one
    with pytest.raises(ConflictError, match="give --precision float32 to go on with it"):
        predict(plan_prediction(volume, asked), NoProgress())


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", r"^no CUDA device is usable on \S+; give --device cpu"),
        (
            "openvino",
            r"^--device openvino needs OpenVINO on \S+: pip install 'volseg\[openvino\]'",
        ),
    ],
)
def test_a_worker_without_what_was_planned_ends_the_run(
    toy_model, tmp_path, monkeypatch, scheduler, device, said
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    asked = replace(exact_options(toy_model, device=device), engine=scheduler)
    with pytest.raises(ParameterError, match=said):
        predict(plan_prediction(new_volume(tmp_path), asked), NoProgress())


def test_a_worker_with_an_old_gpu_refuses_bfloat16(toy_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(ParameterError, match=r"the GPU of \S+ does not multiply bfloat16"):
        predictor_for(NetworkChoice(str(toy_model), "cuda", "bfloat16"))


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="variables are of x86")
@pytest.mark.parametrize(("torch_level", "onednn_level"), [("default", "SSE41"), ("avx2", "AVX2")])
def test_blocks_change_nothing_on_older_cpus_either(toy_model, tmp_path, torch_level, onednn_level):
    own = torch.backends.cpu.get_cpu_capability()
    if own == torch_level.upper():
        pytest.skip(f"{own} is what this CPU has; the other tests use it")
    toys = str(OTHER_INSTRUCTIONS.parent)
    done = subprocess.run(
        [sys.executable, OTHER_INSTRUCTIONS, tmp_path, toy_model],
        env={
            **os.environ,
            "ATEN_CPU_CAPABILITY": torch_level,
            "ONEDNN_MAX_CPU_ISA": onednn_level,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([toys, *filter(None, sys.path)]),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["instructions"] == torch_level.upper()
    for precision in PRECISIONS:
        assert len(set(found[precision])) == 1, precision
