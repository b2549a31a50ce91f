"""Networks of several maps from a stack to exports: every command takes several results."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import tifffile

import volseg
from toy_weights import write_weights
from volseg.api.exporting import export_all
from volseg.api.judging import evaluate_all
from volseg.api.models import export_model, import_model
from volseg.errors import ParameterError
from volseg.models.maps import build_maps
from volseg.stages.explain import run as explanation
from volseg.stages.view.plan import ViewOptions, plan_view
from volseg.storage.volumes import open_image

SHAPE = (6, 48, 40)
SIX = ["mitochondria", "membranes", "synapses", "vesicles", "axons", "boundaries"]
CARDS = {
    "exclusive": (SIX, (), True),
    "contour": (["nuclei"], ("contour", "distance"), False),
    "offset": (["nuclei"], ("offset",), False),
}
TILES = (2, 32, 32), (0, 16, 16)


@pytest.fixture(params=CARDS)
def made(request, tmp_path):
    """A model of some maps, the names of its classes, and a volume that it has segmented."""
    names, auxiliary, exclusive = CARDS[request.param]
    maps = [
        asdict(m) | {"threshold": 0.1, "reach_nm": 80.0}
        for m in build_maps(names, auxiliary, exclusive=exclusive)
    ]
    model = write_weights(tmp_path, "unet2d", *TILES, maps=maps)
    raw = np.random.default_rng(3).integers(0, 256, SHAPE).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", raw, photometric="minisblack")
    volseg.convert(tmp_path / "raw.tif", tmp_path / "vol.zarr", voxel_size=(5, 5, 5))
    split = "none" if exclusive else request.param
    name = None if exclusive else names[0]  # one class alone is called mitochondria without it
    report = volseg.segment(
        tmp_path / "vol.zarr", model=str(model), name=name, split=split, workers=1
    )
    assert list(report.classes) == names
    return model, names, tmp_path / "vol.zarr"


def test_all_maps_go_through_every_command(made, tmp_path, monkeypatch):
    model, names, volume = made
    every = ",".join(names)
    measured = volseg.stats_all([volume], name=every, measure="shapes")
    assert [r.table.stem for r in measured] == names
    scored = evaluate_all(volume, truth="{name}", name=every, output=tmp_path / "scores")
    assert {e.objects.f1 for e in scored if e.objects.truth} == {1.0}
    folder = tmp_path / "scores"
    for name in names:
        place = folder / name if len(names) > 1 else folder
        assert json.loads((place / "evaluation.json").read_text())["prediction"].endswith(name)
    page = volseg.report(volume, name=every, truth="{name}", suspects=1).path.read_text()
    assert all(name in page for name in names)
    done = export_all(volume, name=every, output=tmp_path / "{name}.tif", workers=1)
    for name, each in zip(names, done, strict=True):
        stored = open_image(volume / "labels" / name).levels[0]
        np.testing.assert_array_equal(tifffile.imread(each.output), stored[:, :, :])
    scene = plan_view(volume, ViewOptions(name=every, truth=names[0]))
    layers = [layer for n in names for layer in (f"probabilities {n}", f"objects {n}")]
    first = ["raw", "probabilities", "objects"]
    assert list(scene.layers) == [*first, *layers[2:], "truth"]
    assert list(scene.tables) == ["objects", *layers[3::2]]
    assert scene.places[list(scene.layers)[-2]] == f"labels/{names[-1]}"
    monkeypatch.setattr(explanation, "draw_sheet", lambda *_: None)
    explained = volseg.explain(volume, roi="0:2,:,:", model=str(model), name=names[-1])
    assert "saliency" in explained.layers


def test_exported_networks_give_what_volseg_stores(made, tmp_path):
    pytest.importorskip("bioimageio.spec")
    model, names, _ = made
    assert export_model(str(model), form="bioimageio", output=tmp_path / "p.zip").difference < 1e-5
    imported = import_model(tmp_path / "p.zip", output=tmp_path / "in")
    assert [m.name for m in imported.card.maps if m.is_class] == names


def test_several_names_are_refused_where_one_is_meant(made):
    names, volume = made[1:]
    for verb in (
        volseg.stats,
        partial(volseg.evaluate, truth="a"),
        partial(volseg.export, output="a.tif"),
    ):
        with pytest.raises(ParameterError, match=r"takes one result at a time, found a,b"):
            verb(volume, name="a,b")
    with pytest.raises(ParameterError, match=r"need outputs of their own: write \{name\}"):
        export_all(volume, name="a,b", output="a.tif")
    for verb in (evaluate_all, volseg.report):
        with pytest.raises(ParameterError, match=r"write \{name\} in --truth"):
            verb(volume, name="a,b", truth=names[0])
    with pytest.raises(ParameterError, match="--contacts is another result"):
        volseg.stats(volume, name=names[0], contacts=names[0])


@pytest.mark.parametrize("name", ["", ",", " "])
def test_a_name_that_is_empty_is_refused(name, tmp_path):
    for verb in (
        volseg.stats,
        lambda volume, **names: volseg.stats_all([volume], **names),
        partial(volseg.report, truth="a"),
        partial(evaluate_all, truth="a"),
        partial(export_all, in_place=True),
    ):
        with pytest.raises(ParameterError, match="expected a name"):
            verb(tmp_path / "vol.zarr", name=name)


def test_weights_of_several_maps_are_not_taught_and_marks_are_kept_alone(made):
    _, names, volume = made
    found = volseg.open(volume).labels
    name = max(names, key=lambda name: found[name][:].max())
    with pytest.raises(ParameterError, match="only weights of one map can be taught"):
        volseg.teach(volume, name=name, marked_no=[1])
    assert volseg.teach(volume, name=name, marked_no=[1], minutes=0).marked_no == 1
