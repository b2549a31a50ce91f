"""Networks of several maps: what every architecture promises of them."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from toy_offsets import POINTS, Pointing, peaked
from toy_weights import write_weights
from volseg.errors import ModelError, ParameterError
from volseg.exchange.export_model import export_model
from volseg.exchange.import_model import import_model
from volseg.models.folding import fold_norms
from volseg.models.inference import Predictor
from volseg.models.logits import as_binary
from volseg.models.maps import MapSpec, build_maps, check_maps, count_outputs, find_map
from volseg.models.registry import ARCHITECTURES, find_architecture
from volseg.storage.cards import load_card, shipped_models

CPU = torch.device("cpu")
MAPS = build_maps(["cells", "gaps"], ["contour", "distance", "offset"])
MAPS = tuple(replace(m, reach_nm=160.0) if "offset" in m.kind else m for m in MAPS)


@pytest.mark.parametrize(
    "name", [*sorted(ARCHITECTURES), "unet2d-depth2-filter5", "unet2d-plain-depth5"]
)
def test_every_architecture_gives_any_number_of_maps(name):
    torch.manual_seed(0)
    form = find_architecture(name)
    network = form.build(8 if name.startswith("emnet") else 4, outputs=4).eval()
    raw = torch.randn(2, 1, *form.input_shape(form.fit((1, 1, 1)))[3 - form.dimensions :])
    with torch.no_grad():
        found = network(raw)
        folded = fold_norms(copy.deepcopy(network))(raw)
    assert found.shape[:2] == (2, 4)
    torch.testing.assert_close(folded, found, rtol=1e-4, atol=1e-4)
    assert len({round(float(m.mean()), 6) for m in found.unbind(1)}) == 4


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"tta": True, "rotations": True}])
@pytest.mark.parametrize(("name", "axis"), [("unet2d", 0), ("unet2d", 1), ("unet3d", 0)])
def test_a_map_has_the_same_bytes_with_and_without_others(name, axis, options):
    torch.manual_seed(0)
    form = ARCHITECTURES[name]
    network = form.build(4, outputs=7).eval().requires_grad_(False)
    sides = [16, 16, 16]
    sides[axis] = 2 if form.dimensions == 2 else 16
    raw = np.random.default_rng(0).standard_normal(sides).astype(np.float32)
    rules = (network, CPU, torch.float32, form.dimensions)
    whole = Predictor(*rules, maps=MAPS, wanted=range(7), **options)(raw, axis=axis)
    assert whole.shape == (7, *sides)
    for k in (0, 3, 5, 6):
        alone = Predictor(*rules, maps=MAPS, wanted=(k,), **options)(raw, axis=axis)
        np.testing.assert_array_equal(alone, whole[k])


def test_averaged_maps_turn_with_the_tile():
    torch.manual_seed(0)
    network = ARCHITECTURES["unet2d"].build(4, outputs=4).eval().requires_grad_(False)
    averaged = Predictor(network, CPU, torch.float32, 2, maps=MAPS, wanted=(1, 2), tta=True)
    raw = np.random.default_rng(0).standard_normal((2, 16, 32)).astype(np.float32)
    flipped = averaged(np.ascontiguousarray(raw[:, :, ::-1]))
    np.testing.assert_allclose(flipped[..., ::-1], averaged(raw), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"tta": True, "rotations": True}])
@pytest.mark.parametrize(("dimensions", "axis"), [(2, 0), (2, 1), (2, 2), (3, 0)])
def test_offsets_turn_with_every_view(dimensions, axis, options):
    """A network that is always right is right however it is asked."""
    raw, expected = peaked((3, 9, 5), (8, 16, 12))
    known = Predictor(
        Pointing(), CPU, torch.float32, dimensions, maps=POINTS, wanted=(0, 1, 2, 3), **options
    )
    found = known(raw, axis=axis)
    np.testing.assert_allclose(found[0], 0.5)
    for k in range(3):
        right = np.full_like(raw, 0.5) if dimensions == 2 and k == axis else expected[k]
        np.testing.assert_allclose(found[1 + k], right, atol=1e-6)


def test_classes_that_exclude_one_another_share_a_voxel_with_the_background():
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    found = as_binary(logits, 3).sigmoid()
    shares = torch.cat([torch.zeros(2, 1, 5), logits[:, :3]], dim=1).softmax(1)
    torch.testing.assert_close(found[:, :3], shares[:, 1:])
    torch.testing.assert_close(found[:, 3], logits[:, 3].sigmoid())
    torch.testing.assert_close(as_binary(logits[:, :1], 1), logits[:, :1])


def test_maps_that_cannot_stand_together_are_refused():
    assert [m.kind for m in build_maps(["a"], ["centerline", "contour"])][-1] == "centerline"
    assert find_map(MAPS, "contour", "cells") == 2
    assert [m.name for m in MAPS[4:]] == [f"cells-offset-{axis}" for axis in "zyx"]
    assert find_map(MAPS, "contour", "gaps") is None
    for classes, auxiliary in (
        (["a", "a"], []),
        (["a"], ["depth"]),
        (["a"], ["offset-z"]),
        (["a"], ["b-contour"]),
        (["a", "b"], ["b-centerline"]),
        (["a", "b"], ["a-centerline", "b-centerline"]),
    ):
        with pytest.raises(ParameterError):
            build_maps(classes, auxiliary)
    a = MapSpec("a", "class", "a")
    for maps in (
        (MapSpec("a-contour", "contour", "a"),),
        (MapSpec("../a", "class", "../a"),),
        (a, MapSpec("a-offset-y", "offset-y", "a"), MapSpec("a-offset-x", "offset-x", "a")),
        (a, MapSpec("a-contour", "class", "a-contour"), MapSpec("x", "contour", "a")),
    ):
        with pytest.raises(ParameterError):
            check_maps(maps)


def test_cards_of_shipped_weights_name_no_maps_and_give_one():
    for name in shipped_models():
        card = load_card(name)
        assert (card.maps, card.outputs) == ((), 1)


def test_a_card_with_maps_that_make_no_sense_is_refused(tmp_path):
    path = write_weights(tmp_path, "unet2d", (2, 16, 16), (0, 0, 0), maps=[asdict(MAPS[0])])
    card = path.with_suffix(".json")
    content = json.loads(card.read_text())
    for maps in ([{"name": "a", "kind": "odd"}], [{"kind": "class"}], 3, [asdict(MAPS[2])]):
        card.write_text(json.dumps({**content, "maps": maps}))
        with pytest.raises(ModelError, match="not a valid card"):
            load_card(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"maps": [asdict(MAPS[0]) | {"threshold": 7.0}]},
        {"maps": [asdict(MAPS[0]) | {"threshold": 0.0}]},
        {"maps": [asdict(MAPS[0]) | {"min_probability": 5.0}]},
        {"maps": [asdict(MAPS[0]) | {"min_size": -5}]},
        {"splitting": {"cells": {"sure": 5}}},
        {"splitting": {"cells": {"sure": "abc"}}},
        {"splitting": {"cells": {"voxel_size": 7}}},
        {"splitting": {"cells": 3}},
        {"splitting": {"cells": {"votes": 0}}},
        {"maps": [asdict(m) for m in build_maps(["cells"], ["offset"])]},
    ],
)
def test_a_card_whose_limits_are_none_is_refused(tmp_path, changed):
    path = write_weights(tmp_path, "unet2d", (2, 16, 16), (0, 0, 0), maps=[asdict(MAPS[0])])
    content = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(content | changed))
    with pytest.raises(ModelError, match="not a valid card"):
        load_card(path)


@pytest.mark.parametrize("form", ["torchscript", "onnx", "bioimageio"])
def test_networks_of_several_maps_are_exported_and_imported(tmp_path, form):
    pytest.importorskip({"torchscript": "torch", "bioimageio": "bioimageio.spec"}.get(form, form))
    maps = [asdict(m) for m in MAPS]
    path = write_weights(tmp_path, "unet2d", (2, 32, 32), (0, 16, 16), maps=maps)
    suffix = {"torchscript": ".pt", "onnx": ".onnx", "bioimageio": ".zip"}[form]
    report = export_model(path, form, tmp_path / f"out{suffix}")
    assert report.difference < 1e-4
    if form == "bioimageio":
        import_model(tmp_path / "out.zip", tmp_path / "again")
        again = load_card(tmp_path / "again" / "toy.safetensors")
        assert again == load_card(path)
        assert count_outputs(again.maps) == 7
