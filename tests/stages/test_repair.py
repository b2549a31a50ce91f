"""Repair: only what is damaged is made again, and the result is what it was, byte by byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from toy_volumes import write_raw
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ParameterError
from volseg.stages.label import tasks as label_block
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.volumes import open_image

SHAPE, SHARD = (20, 70, 60), (8, 32, 32)
NAME = "mitochondria"
PROBABILITIES, LINES = f"probabilities/{NAME}", f"probabilities/{NAME}-centerline"
LABELS = f"labels/{NAME}"


@pytest.fixture
def volume(tmp_path) -> Path:
    raw = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    return write_raw(tmp_path / "vol.zarr", raw, SHARD)


@pytest.fixture
def options(toy_model):
    def choose(*, repair: bool = False, **more) -> SegmentOptions:
        rules = {k: more.pop(k) for k in list(more) if k in {"split", "fill_holes"}}
        prediction = PredictOptions(
            model=str(toy_model),
            block=SHARD,
            shard=SHARD,
            device="cpu",
            precision="float32",
            engine=EngineOptions(workers=2),
            **more,
        )
        return SegmentOptions(prediction, repair=repair, threshold=0.7, min_size=4, **rules)

    return choose


def digest(volume: Path) -> dict[str, str]:
    files = (p for p in volume.rglob("*") if p.is_file() and ".volseg" not in p.parts)
    return {str(p.relative_to(volume)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 16
    path.write_bytes(content)


FLIP = pytest.param(flip, marks=pytest.mark.slow)


def tiles_for(volume: Path, options: SegmentOptions, *targets) -> int:
    """Count the tiles that reach into some blocks."""
    handover = plan_prediction(volume, options.predict).handover
    needed = set()
    for target in targets:
        for source in handover.sources(target):
            needed.update(handover.tiles(source, target))
    return len(needed)


def test_intact_results_are_left_alone(volume, options):
    segment(plan_segmentation(volume, options()), NoProgress())
    before = digest(volume)
    report = segment(plan_segmentation(volume, options(repair=True)), NoProgress())
    assert report.mended == ()
    assert report.predict.tiles == 0
    assert digest(volume) == before


@pytest.mark.parametrize("harm", [cut_off, FLIP, Path.unlink])
def test_a_block_of_probabilities_is_made_again_from_its_own_tiles(volume, options, harm):
    segment(plan_segmentation(volume, options()), NoProgress())
    before = digest(volume)
    harm(volume / PROBABILITIES / "0/c/1/0/1")
    assert not verify(volume, VerifyOptions(sample=0), NoProgress()).ok
    report = segment(plan_segmentation(volume, options(repair=True)), NoProgress())
    (mended,) = report.mended
    assert [b.index for b in mended.blocks] == [(1, 0, 1)]
    total = plan_prediction(volume, options().predict).tiles
    assert 0 < report.predict.tiles == tiles_for(volume, options(), (1, 0, 1)) < total
    assert digest(volume) == before


@pytest.mark.parametrize("rules", [{}, {"split": "distance", "fill_holes": True}])
@pytest.mark.parametrize("harm", [cut_off, FLIP])
def test_a_block_of_labels_is_painted_again_and_no_other(volume, options, harm, rules, monkeypatch):
    segment(plan_segmentation(volume, options(**rules)), NoProgress())
    before = digest(volume)
    harm(volume / LABELS / "0/c/2/1/0")
    painted, original = [], label_block.WriteBlock.__call__
    monkeypatch.setattr(
        label_block.WriteBlock,
        "__call__",
        lambda self, item: painted.append(item.block.index) or original(self, item),
    )
    report = segment(plan_segmentation(volume, options(repair=True, **rules)), NoProgress())
    assert report.predict.tiles == 0
    assert painted == [(2, 1, 0)]
    assert "labels/mitochondria: 1 damaged file(s); made again: block 2,1,0" in str(
        report.mended[0]
    )
    assert digest(volume) == before


@pytest.mark.parametrize("array", [PROBABILITIES, LABELS])
def test_a_damaged_level_of_a_pyramid_is_built_again(volume, options, array):
    segment(plan_segmentation(volume, options()), NoProgress())
    before = digest(volume)
    for path in (volume / array / "1/c").rglob("0"):
        if path.is_file():
            cut_off(path)
    report = segment(plan_segmentation(volume, options(repair=True)), NoProgress())
    assert report.predict.tiles == 0
    assert [m.array for m in report.mended] == [array]
    assert digest(volume) == before


@pytest.mark.parametrize("together", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damaged", [PROBABILITIES, LINES])
def test_mask_and_centerlines_are_repaired_whichever_is_damaged(volume, options, damaged, together):
    if not together:
        segment(plan_segmentation(volume, options()), NoProgress())
    segment(plan_segmentation(volume, options(store_centerline=True)), NoProgress())
    before = digest(volume)
    cut_off(volume / damaged / "0/c/0/0/0")
    cut_off(volume / damaged / "0/c/2/2/1")
    asked = options(repair=True, store_centerline=True)
    report = segment(plan_segmentation(volume, asked), NoProgress())
    assert [m.array for m in report.mended] == [damaged]
    assert report.predict.tiles == tiles_for(volume, asked, (0, 0, 0), (2, 2, 1))
    assert digest(volume) == before


def test_other_options_are_refused_and_nothing_is_changed(volume, options):
    segment(plan_segmentation(volume, options()), NoProgress())
    cut_off(volume / PROBABILITIES / "0/c/1/0/1")
    before = digest(volume)
    with pytest.raises(ConflictError, match="was made for the region"):
        segment(plan_segmentation(volume, options(repair=True, roi="0:8,:,:")), NoProgress())
    with pytest.raises(ParameterError, match="without --store-centerline"):
        segment(
            plan_segmentation(volume, options(repair=True, store_centerline=True)), NoProgress()
        )
    assert digest(volume) == before


def test_a_run_that_is_killed_while_it_repairs_is_resumed(volume, options, monkeypatch):
    segment(plan_segmentation(volume, options()), NoProgress())
    before = digest(volume)
    cut_off(volume / PROBABILITIES / "0/c/1/0/1")
    with monkeypatch.context() as patch:
        patch.setattr("volseg.stages.segment.run.predict", None)
        with pytest.raises(TypeError):
            segment(plan_segmentation(volume, options(repair=True)), NoProgress())
    assert not open_image(volume / PROBABILITIES).attributes["complete"]
    assert segment(plan_segmentation(volume, options()), NoProgress()).predict.tiles > 0
    assert digest(volume) == before
