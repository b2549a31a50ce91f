"""Offsets from a network to objects: any view gives the same, and splitting by them is exact."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import ndimage

from toy_offsets import POINTS, REACH, Pointing, peaked
from toy_predictions import exact_options, read_map
from toy_volumes import write_raw
from toy_weights import write_weights
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ModelError, ParameterError, VolumeError
from volseg.geometry.grid import full_roi
from volseg.models.inference import Predictor
from volseg.models.maps import OFFSETS, build_maps
from volseg.objects.splitting import Splitter
from volseg.objects.votes import vote_seeds
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.stages.predict import tasks
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.arrays import ArraySpec
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path
from volseg.training.splitting import Touching, choose_votes

SHAPE = (24, 48, 40)
NAME = "mitochondria"
MAPS = [asdict(replace(m, reach_nm=5 * REACH) if m.kind in OFFSETS else m) for m in POINTS]


@pytest.mark.parametrize("averaged", [{}, {"tta": True, "rotations": True}])
@pytest.mark.parametrize("views", ["xy", "xz", "yz", "ortho"])
def test_every_view_of_a_right_network_gives_the_same_offsets(
    tmp_path, monkeypatch, views, averaged
):
    model = write_weights(tmp_path, "unet2d", (2, 64, 64), (0, 16, 16), maps=MAPS)
    raw, expected = peaked((7, 11, 9), (16, 24, 20))
    raw = np.uint8(250 * (raw - raw.min()) / np.ptp(raw))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    options = exact_options(model, views=views, store_offset=True, **averaged)
    monkeypatch.setattr(
        tasks,
        "predictor_for",
        lambda choice: Predictor(
            Pointing(),
            *(tasks.torch_device("cpu"), tasks.torch.float32),
            dimensions=2,
            maps=POINTS,
            wanted=choice.maps,
            tta=choice.tta,
            rotations=choice.rotations,
        ),
    )
    plan = plan_prediction(volume, options)
    predict(plan, NoProgress())
    seen = {"xy": "yx", "xz": "zx", "yz": "zy", "ortho": "zyx"}[views]
    assert [o.path.name for o in plan.outputs[1:]] == [f"{NAME}-offset-{axis}" for axis in seen]
    for axis in seen:
        found = read_map(volume, f"{NAME}-offset-{axis}").astype(float)
        # at the ends a peak is as near as its reflection
        away = (found - 255 * expected["zyx".index(axis)])[1:-1, 1:-1, 1:-1]
        # slices along y and x that are averaged with those along z lie apart
        assert np.abs(away).max() <= (1.0 if views == "ortho" else 0.5 + 1e-3)
    noted = open_image(probabilities_path(volume, NAME)).attributes["model"]
    assert noted["offsets"] == {"reach_nm": 5 * REACH, "voxel_size": [5.0, 5.0, 5.0]}


@pytest.fixture(scope="module")
def balls():
    """Balls that touch, and what a network would say of them: class and offsets, with noise."""
    centres = np.zeros(SHAPE, int)
    centres[6:24:12, 8:48:11, 8:40:11] = np.arange(1, 25).reshape(2, 4, 3)
    apart, at = ndimage.distance_transform_edt(centres == 0, return_indices=True)
    mask, noise = apart < 6.3, np.random.default_rng(0).normal(0, 0.7, (3, *SHAPE))
    offsets = (127.5 + 127.5 / 16 * (at - np.indices(SHAPE) + noise)).round().clip(0, 255)
    return 24, centres[tuple(at)] * mask, (np.uint8(255 * mask), *offsets.astype(np.uint8))


def write_volume(folder, maps, **model):
    model = {"threshold": 0.5, "offsets": {"reach_nm": 80.0, "voxel_size": [5.0] * 3}} | model
    spec, size = ArraySpec(SHAPE, "uint8", (8, 32, 32), (8, 32, 32)), (5.0, 5.0, 5.0)
    volume = create_image(folder / "vol.zarr", spec, size, attributes={}).path
    for kind, values in maps.items():
        noted = {"complete": True, "fingerprint": kind, "model": model}
        noted["run"] = {"roi": [[0, n] for n in SHAPE]}
        path = probabilities_path(volume, NAME + kind)
        create_image(path, spec, size, attributes=noted).levels[0].write(full_roi(SHAPE), values)
    return volume


def named(maps, axes="zyx"):
    kinds = ["", *(f"-offset-{axis}" for axis in "zyx")]
    return {k: m for k, m in zip(kinds, maps, strict=True) if not k or k[-1] in axes}


def read(volume):
    return open_image(labels_path(volume, NAME)).levels[0][full_roi(SHAPE)]


@pytest.mark.parametrize("axes", ["zyx", "yx"])
@pytest.mark.parametrize("block", [(8, 32, 32), (24, 64, 64)])
def test_objects_are_told_apart_by_where_they_point(tmp_path, balls, block, axes):
    count, truth, maps = balls
    volume = write_volume(tmp_path, named(maps, axes), splitting={"votes": 2.5})
    rules = LabelOptions(block=block, shard=(8, 32, 32), split="offset")
    assert ndimage.label(truth > 0, np.ones((3, 3, 3)))[1] == 1
    report = label(plan_labels(volume, NAME, rules), NoProgress())
    far = [16.0 if axis in axes else 0.0 for axis in "zyx"]
    splitter = Splitter("offset", reach=tuple(far), votes=2.5)
    want = splitter(truth > 0, list(named(maps, axes).values()))
    found = read(volume)
    # the same pieces, numbered by their first voxels
    pairs = np.unique(np.stack([found.ravel(), want.ravel()]), axis=1)
    assert pairs.shape[1] == report.objects + 1 == want.max() + 1
    # without offsets along z, votes still dip where one ball ends and the next one begins
    assert report.objects == count
    if axes == "zyx":
        each = [np.bincount(found[truth == k]).max() for k in range(1, 1 + count)]
        assert sum(each) > 0.97 * (truth > 0).sum()
    run = open_image(labels_path(volume, NAME)).attributes["run"]
    assert (run["split_axes"], run["split_reach"]) == (axes, [16.0] * 3)
    asked = replace(rules, split_votes=9.0)
    with pytest.raises(ConflictError, match="seeds of at least 9 votes"):
        label(plan_labels(volume, NAME, asked), NoProgress())


def test_offsets_that_are_not_there_are_told_of(tmp_path, balls):
    maps = named(balls[2])
    volume = write_volume(tmp_path, {k: maps[k] for k in ("", "-offset-y")})
    with pytest.raises(
        VolumeError, match="no probabilities/mitochondria-offset-x, which --split offset"
    ):
        plan_labels(volume, NAME, LabelOptions(split="offset"))
    for wrong in (
        {"split": "distance", "split_votes": 2.0},
        {"split": "offset", "split_votes": 0.0},
    ):
        with pytest.raises(ParameterError, match="split_votes must be above 0"):
            LabelOptions(**wrong)


def test_how_far_offsets_reach_must_be_on_record(tmp_path, balls):
    volume = write_volume(tmp_path, named(balls[2]), offsets=None)
    with pytest.raises(ParameterError, match="not on record how far offsets"):
        plan_labels(volume, NAME, LabelOptions(split="offset"))


def test_the_votes_of_a_seed_are_chosen(balls):
    _, truth, maps = balls
    regions = [Touching(maps, truth)]
    found = choose_votes(regions, 0.5, Splitter("offset", reach=(16.0,) * 3, smallest=20))
    assert found["votes_f1"] > 0.95 > 0.1 > found["f1_unsplit"]


def test_a_piece_is_one_stretch_whatever_its_voxels_point_at():
    mask = np.ones((1, 3, 20), bool)
    offsets = np.where(np.arange(20) % 2, 0, 255) * np.ones((1, 3, 1), int)
    seeds = vote_seeds(mask, [offsets.astype(np.uint8)], (0, 0, 30.0), (1, 1, 1), 1.0)
    pieces = Splitter("offset", reach=(0, 0, 30.0), votes=1.0)(
        mask, [mask, offsets.astype(np.uint8)]
    )
    assert seeds.max() == pieces.max() == 2
    for k in (1, 2):
        assert ndimage.label(pieces == k, np.ones((3, 3, 3)))[1] == 1


def test_offsets_go_from_segment_to_verified_labels(tmp_path):
    maps = build_maps(["cells", "gaps"], ["offset"])
    told = [asdict(replace(m, reach_nm=40.0) if m.kind in OFFSETS else m) for m in maps]
    model = write_weights(tmp_path, "unet2d", (2, 32, 32), (0, 16, 16), maps=told)
    raw = np.random.default_rng(3).integers(0, 256, (4, 32, 32)).astype(np.uint8)
    volume = write_raw(tmp_path / "vol.zarr", raw)
    chosen = exact_options(model, zoom=2.0)
    plan = plan_segmentation(volume, SegmentOptions(chosen, split="offset"))
    assert "the network gives no offsets of gaps, so its objects that touch stay one" in plan.notes
    segment(plan, NoProgress())
    stored = sorted(p.name for p in (volume / "probabilities").iterdir() if p.is_dir())
    assert stored == ["cells", "cells-offset-x", "cells-offset-y", "gaps"]
    run = open_image(labels_path(volume, "cells")).attributes["run"]
    assert run["split_reach"] == [4.0] * 3  # voxels that are taken for twice as large
    found = verify(volume, VerifyOptions(model=str(model)), NoProgress())
    assert not found.findings
    assert not found.skipped
    for words in ({"classes": ("gaps",)}, {"model": "unet2d"}):
        with pytest.raises(ModelError, match="gives no offsets; train weights with --auxiliary"):
            plan_segmentation(volume, SegmentOptions(replace(chosen, **words), split="offset"))
