"""What is damaged, in the input or after the fact; memory that is full; networks that give NaN."""

from __future__ import annotations

import pytest

TIGHT = "does not fit into the memory of cpu"


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 4
    path.write_bytes(content)


def test_flipped_bits_in_the_input_are_found_and_the_block_is_named(faults, check_result):
    volume = faults.volume()
    shard = volume / "0/c/2/2/1"
    intact = shard.read_bytes()
    flip(shard)
    status, report, errors = faults.run(faults.segment(volume))
    assert status == 1
    assert "StorageError" in errors
    assert str(shard) in errors
    assert "a checksum is wrong" in errors
    # the pass over all voxels, which an unsurveyed volume needs, meets it before the network does
    (named,) = report["missing"]
    damaged = zip(named["roi"], [(16, 20), (64, 70), (32, 60)], strict=True)
    assert all(a <= first and last <= b for (a, b), (first, last) in damaged)
    assert 0 < len(report["missing"]) < 18, "the others are done"
    shard.write_bytes(intact)
    status, report, errors = faults.run(faults.segment(volume))
    assert status == 0, errors
    assert report["predict"]["tiles"] > 0
    check_result(volume)


def test_a_shard_cut_off_later_is_found_and_repaired(faults, check_result):
    volume = faults.volume()
    tiles = faults.run(faults.segment(volume))[1]["predict"]["tiles"]
    for array in ("probabilities", "labels"):
        shard = volume / array / "mitochondria/0/c/1/2/0"
        shard.write_bytes(shard.read_bytes()[:-9])
        status, report, _ = faults.run(["verify", str(volume), "--quick", "--json"])
        assert status == 1
        (finding,) = report["findings"]
        assert (finding["kind"], finding["block"]) == ("unreadable", [1, 2, 0])
        (advice,) = report["advice"]
        assert f"volseg segment {volume} --model toy --repair" in advice
        status, report, errors = faults.run(faults.segment(volume, "--repair"))
        assert status == 0, errors
        (mended,) = report["mended"]
        assert [b["index"] for b in mended["blocks"]] == [[1, 2, 0]]
        assert f"repaired {array}/mitochondria: 1 damaged file(s); made again: block 1,2,0" in (
            errors
        )
        assert report["predict"]["tiles"] < tiles
        assert (report["predict"]["tiles"] > 0) == (array == "probabilities")
        check_result(volume)
    assert faults.run(["verify", str(volume), "--quick", "--json"])[0] == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [("nan", "the network returned values that are not finite in tile"), ("cuda memory", TIGHT)],
)
def test_a_network_that_fails_in_every_block(faults, check_result, kind, message):
    volume = faults.volume()
    status, report, errors = faults.run(faults.segment(volume), {"task": "network", "kind": kind})
    assert status == 1
    assert message in errors
    assert len(report["missing"]) == 18
    assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)


def test_memory_that_is_full_in_a_block_is_tried_again_then_reported(faults, check_result):
    volume = faults.volume()
    fault = faults.fault("evaluate", "memory", where=[0, 0, 0], times=2)
    status, _, errors = faults.run(faults.segment(volume), fault)
    assert status == 0, errors
    check_result(volume)
    volume = faults.volume(faults.folder / "always")
    fault = faults.fault("evaluate", "memory", where=[1, 0, 0])
    status, report, errors = faults.run(faults.segment(volume), fault)
    assert status == 1
    assert "give fewer --workers (a --cluster fewer cores), or --overwrite and a smaller" in errors
    assert [1, 0, 0] in [b["index"] for b in report["missing"]]
    assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)


def test_a_worker_that_hangs_is_ended_and_its_block_done_elsewhere(faults, check_result):
    volume = faults.volume()
    fault = faults.fault("evaluate", "hang", where=[1, 0, 1], times=1)
    limit = ["--block-timeout", "2", *faults.cluster()]
    status, _, errors = faults.run(faults.segment(volume, *limit), fault)
    assert status == 0, errors
    check_result(volume)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, None])
def test_a_thread_that_hangs_stops_neither_the_others_nor_the_exit(faults, check_result, times):
    """A thread cannot be ended: its block is tried elsewhere while there is one, then reported."""
    volume = faults.volume()
    fault = faults.fault("evaluate", "hang", where=[1, 0, 0], times=times)
    limit = ["--block-timeout", "1", "--workers", "2"]
    command = faults.start(faults.segment(volume, *limit), fault)
    status = command.wait(60)
    assert "Traceback" not in command.errors
    if times == 1:
        assert status == 0, command.errors
    else:
        assert status == 1
        assert "worker(s) hang" in command.errors or "its worker hangs" in command.errors
        assert [1, 0, 0] in [b["index"] for b in command.report["missing"]]
        assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)
