"""Several classes in one pass: what is stored, by which names, and what each class is by itself."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile

from toy_weights import write_weights
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ModelError, ParameterError, VolumeError
from volseg.measures.contacts import count_contacts
from volseg.models.maps import build_maps
from volseg.stages.explain import run as explanation
from volseg.stages.explain.plan import ExplainOptions, plan_explanation
from volseg.stages.label.plan import LabelOptions, contact_tables, plan_labels
from volseg.stages.label.run import label
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.outputs import ledger_header
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.segment.run import SegmentOptions, plan_segmentation, segment
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.arrays import ArraySpec
from volseg.storage.cards import load_card
from volseg.storage.results import dropped_from, finish
from volseg.storage.tables import read_columns
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path
from volseg.storage.weights import load_weights

SHAPE = (6, 48, 40)
NAMES = ["cells", "gaps", "walls"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    maps = [asdict(m) for m in build_maps(NAMES, ["contour", "walls-contour"])]
    maps[2] |= {"threshold": 0.6, "min_size": 3}
    splitting = {"cells": {"sure": 0.55, "contour": 0.5, "fewest": 2}}
    tile = (2, 32, 32), (0, 16, 16)
    return write_weights(
        tmp_path_factory.mktemp("model"), "unet2d", *tile, maps=maps, splitting=splitting
    )


@pytest.fixture
def volume(tmp_path):
    raw = np.random.default_rng(3).integers(0, 256, SHAPE).astype(np.uint8)
    spec = ArraySpec(SHAPE, "uint8", (2, 16, 16), (4, 32, 32))
    image = create_image(tmp_path / "vol.zarr", spec, (5.0, 5.0, 5.0), attributes={})
    image.levels[0].write(tuple(slice(0, n) for n in SHAPE), raw)
    return image.path


def run(volume, model, *, split="none", **options):
    chosen = PredictOptions(str(model), block=(4, 32, 32), device="cpu", **options)
    return segment(plan_segmentation(volume, SegmentOptions(chosen, split=split)), NoProgress())


def stored(volume, name):
    return open_image(probabilities_path(volume, name)).levels[0][tuple(slice(0, n) for n in SHAPE)]


def images(volume):
    return sorted(p.name for p in (volume / "probabilities").iterdir() if p.is_dir())


@pytest.mark.parametrize("views", ["xy", "ortho"])
def test_each_class_is_what_it_is_alone(volume, model, tmp_path, views):
    alone = shutil.copytree(volume, tmp_path / "alone.zarr")
    report = run(volume, model, views=views)
    assert images(volume) == NAMES
    assert list(report.classes) == NAMES
    for name in NAMES[::2]:
        run(alone, model, classes=(name,), views=views)
        np.testing.assert_array_equal(stored(alone, name), stored(volume, name))
        noted = open_image(labels_path(alone, name)).attributes
        assert noted["objects"] == report.classes[name].objects > 0
        both = open_image(labels_path(volume, name)).attributes
        assert both["fingerprint"] == noted["fingerprint"]
        # by the rules of the class, and no other
        assert both["dropped"] == noted["dropped"]
        assert list(both["dropped"]) == (["min_size"] if name == "walls" else [])
    assert open_image(labels_path(volume, "walls")).attributes["run"]["threshold_of_255"] == 153
    assert run(volume, model, views=views).predict.tiles == 0
    # every map can be checked by predicting it again
    found = verify(volume, VerifyOptions(model=str(model)), NoProgress())
    assert not found.findings
    assert {s.array for s in found.sampled} == {f"probabilities/{name}" for name in NAMES}


def test_what_rules_dropped_is_told_of_each_class(volume, model, volseg):
    flags = ["--model", model, "--device", "cpu", "--min-probability", "1", "--views", "xy"]
    for words in (["segment"], ["run", "--measure", "basic"]):
        done = volseg(words[0], volume, *flags, *words[1:])
        assert done.exit_code == 0, done.output
        for name in NAMES:
            (lost,) = dropped_from(open_image(labels_path(volume, name))).describe().values()
            assert f"note: {lost['told']}" in done.stderr
            assert f"--overwrite --name {name}`" in done.stderr


def test_objects_are_split_where_a_class_has_contours(volume, model):
    chosen = PredictOptions(str(model), block=(4, 32, 32), device="cpu")
    notes = plan_segmentation(volume, SegmentOptions(chosen, split="contour")).notes
    assert [n.split(",")[0] for n in notes if "stay" in n] == [
        "the network gives no contours of gaps"
    ]
    run(volume, model, split="contour")
    assert images(volume) == sorted([*NAMES, "cells-contour", "walls-contour"])
    split = {n: open_image(labels_path(volume, n)).attributes["run"].get("split") for n in NAMES}
    assert split == {"cells": "contour", "gaps": None, "walls": "contour"}
    noted = open_image(labels_path(volume, "cells")).attributes["run"]
    assert noted["split_sure_of_255"] == 141
    before = open_image(probabilities_path(volume, "cells-contour")).attributes
    # a class that is made again takes its old contours away
    run(volume, model, classes=("cells",), overwrite=True, views="xz")
    assert "cells-contour" not in images(volume)
    assert before["run"]["output"] == "contour"


def test_a_class_without_contours_is_whole_whatever_else_it_has(volume, tmp_path):
    maps = [asdict(m) for m in build_maps(["cells", "gaps"], ["contour", "gaps-distance"])]
    model = write_weights(tmp_path, "unet2d", (2, 32, 32), (0, 16, 16), maps=maps)
    chosen = PredictOptions(str(model), device="cpu")
    plan = plan_segmentation(volume, SegmentOptions(chosen, split="contour"))
    assert [p.header.get("split") for p in plan.labellings] == ["contour", None]
    assert [len(p.source.guides) for p in plan.labellings] == [1, 0]


def test_a_later_run_leaves_what_is_complete(volume, model):
    run(volume, model, classes=("walls",))
    told = PredictOptions(str(model), classes=("walls",), block=(4, 32, 32), device="cpu")
    predict(plan_prediction(volume, replace(told, store_contour=True)), NoProgress())
    there = {p: p.stat().st_mtime_ns for p in (volume / "probabilities").rglob("*") if p.is_file()}
    run(volume, model)
    assert images(volume) == sorted([*NAMES, "walls-contour"])
    assert {p: p.stat().st_mtime_ns for p in there} | there == there


def test_a_run_that_is_killed_between_two_images_goes_on(volume, model, monkeypatch):
    run(volume, model, classes=("cells",))
    with monkeypatch.context() as patch:
        patch.setattr("volseg.stages.predict.run.finish", finish_all_but("gaps"))
        with pytest.raises(KeyboardInterrupt):
            run(volume, model)
    assert run(volume, model).predict.tiles == 0
    assert images(volume) == NAMES


def test_a_run_of_a_former_version_that_resamples_does_not_go_on(volume, model):
    run(volume, model, classes=("cells",))
    told = PredictOptions(str(model), classes=("cells",), block=(4, 32, 32), device="cpu")
    plan = plan_prediction(volume, told)
    zoomed = plan_prediction(volume, replace(told, zoom=2.0))
    assert (plan.resampled, zoomed.resampled) == (False, True)
    before = ledger_header(plan.outputs, resampled=plan.resampled)
    assert before == plan.mask.header
    after = ledger_header(zoomed.outputs, resampled=zoomed.resampled)
    assert after == {**zoomed.mask.header, "resampled": 2}


def finish_all_but(name):
    def finish_one(path, *args):
        if path.name == name:
            raise KeyboardInterrupt
        finish(path, *args)

    return finish_one


def test_one_class_is_repaired_before_the_others_are_made(volume, model):
    run(volume, model, classes=("walls",))
    (probabilities_path(volume, "walls") / "0/c/0/0/0").write_bytes(b"?")
    chosen = PredictOptions(str(model), block=(4, 32, 32), device="cpu")
    plan = plan_segmentation(volume, SegmentOptions(chosen, repair=True))
    with pytest.raises(ParameterError, match="with --classes walls first"):
        segment(plan, NoProgress())


def test_names_that_do_not_fit_are_refused(volume, model):
    with pytest.raises(ParameterError, match="knows cells, gaps, walls"):
        run(volume, model, classes=("nuclei",))
    for name in ("mine", "mitochondria"):
        with pytest.raises(ParameterError, match="3 classes keep their own names"):
            run(volume, model, name=name)
    with pytest.raises(ModelError, match="gives no contours"):
        run(volume, model, classes=("gaps",), split="contour")
    run(volume, model, classes=("gaps",), name="mine")
    run(volume, model, classes=("gaps",), name="mitochondria")  # which is the default elsewhere
    assert images(volume) == ["mine", "mitochondria"]
    with pytest.raises(ConflictError):
        run(volume, model, classes=("walls",), name="mine")


def test_another_result_of_a_class_is_kept_as_the_message_says(volume, model):
    run(volume, model)
    options = PredictOptions(str(model), block=(4, 32, 32), device="cpu")
    advised = "give --classes cells and another --name, or give --overwrite"
    for asked in (
        SegmentOptions(options, threshold=0.9),
        SegmentOptions(replace(options, roi="0:4,:,:")),
    ):
        with pytest.raises(ConflictError, match=advised):
            segment(plan_segmentation(volume, asked), NoProgress())
    alone = replace(options, classes=("cells",), name="other")
    segment(plan_segmentation(volume, SegmentOptions(alone, threshold=0.9)), NoProgress())
    with pytest.raises(ConflictError, match=r"vol\.zarr --model \S+ --classes gaps --name OTHER`"):
        plan_labels(volume, "gaps", LabelOptions(threshold=0.8)).stands()


def test_contacts_between_classes_are_a_table(volume, model):
    run(volume, model)
    ours, theirs = (labels_path(volume, name) for name in ("cells", "gaps"))
    whole = tuple(slice(0, n) for n in SHAPE)
    cells, gaps = (open_image(path).levels[0][whole] for path in (ours, theirs))
    found = stats(plan_stats(volume, StatsOptions("cells", contacts="gaps")), NoProgress()).contacts
    columns, units, _ = read_columns(found.table)
    rows = count_contacts(cells, gaps, SHAPE)
    np.testing.assert_array_equal(columns["label"], rows[:, 0])
    np.testing.assert_array_equal(columns["faces_x"], rows[:, 4])
    assert found.table.name == "cells-gaps-contacts.parquet"
    assert (found.touching, found.area_nm2) == (
        len(np.unique(rows[:, 0])),
        columns["area_nm2"].sum(),
    )
    assert units["area_nm2"] == "nm2"
    both = np.zeros(SHAPE, np.uint8)
    both[:, 2:8, 2:8] = both[:, 20:26, 20:26] = 255
    tifffile.imwrite(volume / "seen.by.tif", both, photometric="minisblack")
    options = StatsOptions(labels=volume / "seen.by.tif", contacts="gaps")
    mine = stats(plan_stats(volume, options), NoProgress()).contacts
    assert mine.table.name == "seen.by-gaps-contacts.parquet"
    assert set(read_columns(mine.table)[0]["label"]) == {1, 2}  # components of the mask
    assert contact_tables(volume, "cells") == contact_tables(volume, "gaps") == (found.table,)
    assert contact_tables(volume, "walls") == ()
    label(plan_labels(volume, "gaps", LabelOptions(threshold=0.8, overwrite=True)), NoProgress())
    assert not found.table.exists()
    with pytest.raises(VolumeError, match="has no labels/none"):
        plan_stats(volume, StatsOptions("cells", contacts="none"))


def test_the_class_that_is_named_is_explained(volume, model, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "draw_sheet", lambda *_: None)
    run(volume, model)
    asked = {"roi": "0:2,:,:", "model": str(model), "output": tmp_path / "a.png"}
    plan = plan_explanation(volume, ExplainOptions(name="walls", **asked))
    assert plan.prediction.choice.maps == (2,)
    found = explanation.explain(plan, NoProgress())
    # filters and bias of its own sum up to the logits of its own
    walls = stored(volume, "walls")[:2] / 255
    inside = walls >= 0.6
    bias = float(load_weights(model, load_card(model))["head.bias"][2])
    logits = np.log(walls[inside] / (1 - walls[inside]).clip(1 / 512))
    assert bias + sum(v for _, v in found.filters) == pytest.approx(logits.mean(), abs=0.1)
    with pytest.raises(ParameterError, match="one class is explained at a time"):
        plan_explanation(volume, ExplainOptions(**asked))
