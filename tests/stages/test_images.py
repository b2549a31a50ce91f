"""Stacks of unrelated images: every number is that of each image alone."""

from __future__ import annotations

import re
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
from scipy import ndimage

import volseg
from toy_predictions import exact_options, read_map
from toy_weights import PREPROCESSING, write_weights
from volseg.cli.info import describe_exploration
from volseg.cli.stats import describe_stats
from volseg.engine.progress import NoProgress
from volseg.errors import InputError, ParameterError
from volseg.exchange.volumes import png
from volseg.geometry.grid import full_roi
from volseg.measures.contacts import COUNTED
from volseg.stages.apply.plan import ApplyOptions, plan_apply
from volseg.stages.apply.run import apply
from volseg.stages.evaluate import boundary
from volseg.stages.evaluate.plan import EvaluateOptions, plan_evaluation
from volseg.stages.evaluate.run import evaluate
from volseg.stages.info.run import info
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats
from volseg.storage.arrays import fit_spec
from volseg.storage.tables import read_columns
from volseg.storage.volumes import create_image, labels_path, open_image, probabilities_path

SIZES = [(40, 52), (33, 60), (40, 60)]
QUIET = NoProgress()


@pytest.fixture(scope="module")
def pictures():
    """Images of several sizes and, of each, probabilities and a truth whose labels repeat."""
    rng = np.random.default_rng(6)
    found = []
    for size in SIZES:
        smooth = ndimage.gaussian_filter(rng.random(size), 2)
        level = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
        truth = ndimage.label(np.roll(level > 120, 1, 1))[0].astype(np.uint16)
        found.append((rng.integers(0, 256, size, dtype=np.uint8), level, truth))
    return found


def convert(folder, images, name):
    """Convert pictures, in a folder of their own, to a volume of images."""
    source = folder / name
    source.mkdir()
    for k, image in enumerate(images):
        # names of unrelated images are no sequence
        (source / f"{'cab'[k]}{k * 7}x.png").write_bytes(imagecodecs.png_encode(image))
    volseg.convert(source, folder / f"{name}.zarr", images=True)
    return folder / f"{name}.zarr"


def write_probabilities(volume, levels, name="mitochondria"):
    image = open_image(volume)
    noted = {
        "complete": True,
        "fingerprint": "p",
        "run": {"roi": [[0, n] for n in image.levels[0].shape]},
        "model": {"threshold": 0.5},
    }
    spec = fit_spec(image.levels[0].shape, "uint8")
    made = create_image(probabilities_path(volume, name), spec, image.space, attributes=noted)
    whole = np.zeros(image.levels[0].shape, np.uint8)
    for k, level in enumerate(levels):
        whole[k, : level.shape[0], : level.shape[1]] = level
    made.levels[0].write(tuple(slice(0, n) for n in whole.shape), whole)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory, pictures):
    """All pictures in one volume, and each in one of its own; labelled alike."""
    folder = tmp_path_factory.mktemp("images")
    raws = [raw for raw, _, _ in pictures]
    order = sorted(range(3), key=lambda k: f"{'cab'[k]}")
    made = [convert(folder, raws, "all")] + [
        convert(folder, [raw], f"only{k}") for k, raw in enumerate(raws)
    ]
    chosen = [order, [0], [1], [2]]
    options = LabelOptions(fill_holes=True, split="kmeans", min_size=4)
    for volume, which in zip(made, chosen, strict=True):
        write_probabilities(volume, [pictures[k][1] for k in which])
        label(plan_labels(volume, "mitochondria", options), QUIET)
        truth = folder / f"{volume.stem}-truth"
        truth.mkdir()
        for n, k in enumerate(which):
            tifffile.imwrite(truth / f"{n}.tif", pictures[k][2])
    return folder, order


def test_images_keep_their_names_and_sizes(volumes):
    folder, order = volumes
    image = open_image(folder / "all.zarr")
    assert image.attributes["images"]["sizes"] == [list(SIZES[k]) for k in order]
    assert [name[0] for name in image.attributes["images"]["names"]] == ["a", "b", "c"]
    for path in (image.path, labels_path(image.path, "mitochondria")):
        assert {factor[0] for factor in open_image(path).factors} == {1}


def test_a_copy_of_images_keeps_their_names_and_sizes(volumes, tmp_path):
    folder, _ = volumes
    volseg.convert(folder / "all.zarr", tmp_path / "copy.zarr")
    before, after = open_image(folder / "all.zarr"), open_image(tmp_path / "copy.zarr")
    assert after.attributes["images"] == before.attributes["images"]


def test_objects_and_their_measures_are_those_of_each_image_alone(volumes, pictures):
    folder, order = volumes
    for name, which in [("all", order), *((f"only{k}", [k]) for k in order)]:
        write_probabilities(folder / f"{name}.zarr", [pictures[k][1] for k in which], "others")
        label(plan_labels(folder / f"{name}.zarr", "others", LabelOptions(threshold=0.45)), QUIET)
    options = StatsOptions(outline=True, name="mitochondria", contacts="others")
    whole = stats(plan_stats(folder / "all.zarr", options), QUIET)
    faces = dict.fromkeys(COUNTED, 0)
    count, analysed = 0, 0
    for z, k in enumerate(order):
        alone = stats(plan_stats(folder / f"only{k}.zarr", options), QUIET)
        found, _, _ = read_columns(alone.contacts.table)
        faces = {name: count + found[name].sum() for name, count in faces.items()}
        own = whole.columns["bbox_z_start"] == z
        assert own.sum() == alone.summary.objects > 3
        assert (whole.columns["bbox_z_stop"][own] == z + 1).all()
        moved = {"label", "bbox_z_start", "bbox_z_stop", "centroid_z"}
        assert np.isfinite(whole.columns["nearest_neighbour"][own]).all()
        for name in set(whole.columns) - moved:
            np.testing.assert_array_equal(whole.columns[name][own], alone.columns[name], name)
        count += alone.summary.objects
        analysed += alone.summary.analysed_voxels
    assert whole.summary.objects == count
    found, _, _ = read_columns(whole.contacts.table)
    assert {name: found[name].sum() for name in COUNTED} == faces
    assert whole.summary.analysed_voxels == analysed == sum(y * x for y, x in SIZES)
    assert whole.summary.volume_fraction == whole.summary.object_voxels / analysed
    assert any("3 images hold" in note for note in whole.notes)


@pytest.mark.parametrize(
    "asked", [{}, {"ignore_border": True, "tolerance": 3.0}, {"foreground": 0}]
)
def test_images_are_evaluated_one_by_one(volumes, asked):
    folder, order = volumes

    def scores(name):
        options = EvaluateOptions(truth=str(folder / f"{name}-truth"), **asked)
        return evaluate(plan_evaluation(folder / f"{name}.zarr", options), QUIET)

    whole, alone = scores("all"), [scores(f"only{k}") for k in order]
    assert [i.voxels for i in whole.images] == [a.voxels for a in alone]
    for mine, other in zip(whole.images, alone, strict=True):
        of = other.objects
        assert (mine.truth, mine.predicted, mine.matched) == (of.truth, of.predicted, of.matched)
        assert (mine.dice, mine.jaccard) == (other.foreground.dice, other.foreground.jaccard)
        assert mine.average_precision == other.mean.average_precision
    assert whole.objects.matched == sum(a.objects.matched for a in alone)
    assert whole.objects.matched > 0 or "foreground" in asked
    assert whole.objects.truth == sum(a.objects.truth for a in alone) > 0
    # counts of levels add up, so recall and false positive rate of the whole are means by voxels
    inside = np.array([a.foreground.both + a.foreground.truth_only for a in alone])
    outside = [a.voxels for a in alone] - inside
    for kind, weights in (("recall", inside), ("false_positive_rate", outside)):
        rates = np.array([np.nan_to_num(getattr(a.curves, kind)) for a in alone])
        mean = np.average(rates, axis=0, weights=weights)
        np.testing.assert_allclose(getattr(whole.curves, kind), mean)
    if "tolerance" in asked:
        for side in ("truth", "predicted"):
            surfaces = [getattr(a.boundary, side) for a in alone]
            assert getattr(whole.boundary, side) == sum(surfaces) > 0


def test_a_first_look_leaves_out_what_images_are_padded_with(volumes, pictures, tmp_path):
    volume, order = volumes[0] / "all.zarr", volumes[1]
    raw = np.concatenate([pictures[k][0].ravel() for k in order])
    ends = [(raw == end).mean() for end in (0, 255)]
    assert info(volume)["saturated"] == pytest.approx(ends)
    stats(plan_stats(volume, StatsOptions()), QUIET)
    found = volseg.explore(volume, output=tmp_path / "a.png")
    assert found["intensities"]["saturated"] == pytest.approx(ends)
    told = [found["intensities"][part] for part in ("inside", "outside")]
    assert sum(part["voxels"] for part in told) == raw.size
    mean = sum(part["voxels"] * part["mean"] for part in told) / raw.size
    assert mean == pytest.approx(raw.mean())
    # rows and columns of one image: through others, and padding, nothing goes on
    height, width = SIZES[order[1]]
    assert found["correlation"]["box"] == f"1:2,0:{height},0:{width}"
    assert sorted(found["correlation"]) == ["box", "level", "x", "y"]
    assert {"mean_area_voxels", "mean_voxels"} & set(found["objects"]) == {"mean_area_voxels"}
    shown = "\n".join(describe_exploration(found))
    assert "along y falls to 1/e" in shown
    assert "along z" not in shown
    assert "mean volume" not in shown


def test_what_was_found_as_a_volume_is_parted_into_images(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.ones((3, 20, 24), np.uint8), photometric="minisblack")
    volume = tmp_path / "v.zarr"
    volseg.convert(tmp_path / "v.tif", volume)
    level = np.zeros((20, 24), np.uint8)
    level[2:6, 3:8] = level[10:15, 9:15] = 255
    write_probabilities(volume, [level] * 3)
    report = label(plan_labels(volume, "mitochondria", LabelOptions(min_size=0)), QUIET)
    assert report.objects == 2
    found = stats(plan_stats(volume, StatsOptions(images=True)), QUIET)
    assert found.columns["voxels"].tolist() == [20, 30] * 3
    options = EvaluateOptions(truth="mitochondria", images=True)
    assert evaluate(plan_evaluation(volume, options), QUIET).objects.matched == 6


def test_labels_of_images_are_verified(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.ones((3, 50, 50), np.uint8), photometric="minisblack")
    volume = tmp_path / "v.zarr"
    volseg.convert(tmp_path / "v.tif", volume, images=True)
    level = np.zeros((50, 50), np.uint8)
    level[2:6, 0:5] = 255
    write_probabilities(volume, [level] * 3)
    label(plan_labels(volume, "mitochondria", LabelOptions(min_size=0)), QUIET)
    done = volseg.verify(volume, sample=0)
    assert not [f for f in done.findings if f.array.startswith("labels")]
    open_image(labels_path(volume, "mitochondria")).levels[0].write(
        full_roi((3, 50, 50)), np.zeros((3, 50, 50), np.uint32)
    )
    assert [f for f in volseg.verify(volume, sample=0).findings if f.array.startswith("labels")]


@pytest.mark.parametrize("size", [(700.0, 40.0, 50.0), None])
def test_sizes_are_told_as_areas(tmp_path, size):
    tifffile.imwrite(tmp_path / "v.tif", np.ones((3, 50, 50), np.uint8), photometric="minisblack")
    volume = tmp_path / "v.zarr"
    volseg.convert(tmp_path / "v.tif", volume, images=True, voxel_size=size)
    level = np.zeros((50, 50), np.uint8)
    level[2:6, 0:5] = level[10:15, 9:15] = 255
    write_probabilities(volume, [level] * 3)
    label(plan_labels(volume, "mitochondria", LabelOptions(min_size=0)), QUIET)
    told = describe_stats([stats(plan_stats(volume, StatsOptions()), QUIET)])
    head, row = (re.split("  +", line) for line in told.splitlines())
    page = volseg.report(volume, output=tmp_path / "r.html").path.read_text()
    table = page[page.index("<main>") : page.index("<script>")]
    if size is None:
        assert head[-3:] == ["mean pixels", "median pixels", "objects' total pixels"]
        assert row[-3:] == ["25.0", "25.0", "150"]
        assert "area (pixels)" in table
        assert "20 pixels," in table
    else:
        assert head[-5:-2] == ["all per um^2", "unbiased per um^2", "mean um^2"]
        assert row[-5:] == ["0.4", "0.4", "0.05", "0.05", "0.3"]
        assert "area (µm²)" in table
        assert "mean object<br>µm²" in table
        assert "20 pixels (0.04 µm²)" in table
    assert "µm³" not in table


def test_what_cannot_be_evaluated_is_refused(volumes, monkeypatch):
    volume = volumes[0] / "only0.zarr"
    options = EvaluateOptions(truth="mitochondria", foreground=777)
    with pytest.raises(ParameterError, match="no voxel of 777"):
        evaluate(plan_evaluation(volume, options), QUIET)
    monkeypatch.setattr(boundary, "MOST", 40 * 52 - 1)
    options = EvaluateOptions(truth="mitochondria", tolerance=1e6)
    with pytest.raises(ParameterError, match="smaller --tolerance"):
        evaluate(plan_evaluation(volume, options), QUIET)


def test_images_exported_from_a_coarser_level_are_without_padding(tmp_path):
    (tmp_path / "images").mkdir()
    for name, shape in (("a", (71, 140)), ("b", (90, 101))):
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", np.full(shape, 200, np.uint8))
    volume = tmp_path / "v.zarr"
    volseg.convert(tmp_path / "images", volume, images=True)
    volseg.export(volume, "raw", output=tmp_path / "v.pngs", level=1)
    for name, shape in (("a", (35, 70)), ("b", (45, 50))):
        found = imagecodecs.png_decode((tmp_path / "v.pngs" / f"{name}.png").read_bytes())
        assert (found.shape, found.min()) == (shape, 200)


def test_exported_images_have_their_names_and_sizes_again(volumes, pictures, tmp_path):
    folder, order = volumes
    volume = folder / "all.zarr"
    names = open_image(volume).attributes["images"]["names"]
    for what, level in (("raw", 0), ("labels", None)):
        volseg.export(volume, output=tmp_path / f"{what}.pngs", what=what)
        for z, (name, k) in enumerate(zip(names, order, strict=True)):
            file = tmp_path / f"{what}.pngs" / name
            found = imagecodecs.png_decode(file.read_bytes())
            assert found.shape == SIZES[k]
            if level is not None:
                np.testing.assert_array_equal(found, pictures[k][0])
            else:
                stored = open_image(labels_path(volume, "mitochondria")).levels[0][:, :, :][z]
                np.testing.assert_array_equal(found, stored[: SIZES[k][0], : SIZES[k][1]])
                assert not stored[SIZES[k][0] :].any()
    # of the images, that of 33 rows does not reach into the region
    volseg.export(volume, "raw", output=tmp_path / "below.pngs", roi=":,35:,10:")
    found = {p.name: imagecodecs.png_decode(p.read_bytes()) for p in tmp_path.glob("below.pngs/*")}
    for name, k in zip(names, order, strict=True):
        assert (name in found) == (SIZES[k][0] > 35)
        if name in found:
            np.testing.assert_array_equal(found[name], pictures[k][0][35:, 10:])
    roi = f"{order.index(1)}:{order.index(1) + 1},35:,:"
    with pytest.raises(ParameterError, match="no image reaches"):
        volseg.export(volume, "raw", output=tmp_path / "none.pngs", roi=roi)


def test_exported_images_of_like_names_are_told_apart(volumes):
    image = open_image(volumes[0] / "all.zarr")
    named = {"images": {"names": ["1-a.png", "a.png", "a.tif"]}}
    assert png._names(replace(image, attributes=named)) == ["0-1-a.png", "1-a.png", "2-a.png"]


def test_cells_are_what_is_no_membrane(volumes, pictures):
    folder, order = volumes
    volume, before = folder / "all.zarr", 0
    write_probabilities(volume, [pictures[k][1] for k in order], "cells")
    options = LabelOptions(complement=True, threshold=0.45, min_size=0)
    label(plan_labels(volume, "cells", options), QUIET)
    found = open_image(labels_path(volume, "cells")).levels[0][:, :, :]
    for plane, k in zip(found, order, strict=True):
        cells, count = ndimage.label(pictures[k][1] < np.ceil(0.45 * 255), np.ones((3, 3)))
        expected = np.zeros(plane.shape, int)  # of what is padded, nothing
        expected[: SIZES[k][0], : SIZES[k][1]] = np.where(cells, cells + before, 0)
        np.testing.assert_array_equal(plane, expected)
        before += count


def test_corrections_stay_within_an_image(tmp_path, pictures):
    volume = convert(tmp_path, [raw for raw, _, _ in pictures], "all")
    level = np.zeros((33, 52), np.uint8)
    level[4:9, 4:9] = level[20:33, 4:9] = 255
    write_probabilities(volume, [level] * 3)
    label(plan_labels(volume, "mitochondria", LabelOptions(min_size=0)), QUIET)
    options = StatsOptions(measure="shapes")
    before = stats(plan_stats(volume, options), QUIET).columns
    painted = np.zeros((3, 40, 60), np.uint8)
    painted[:, 4:9, 20:25] = 1
    painted[:, 20:33, 20:25] = 1
    tifffile.imwrite(tmp_path / "painted.tif", painted, photometric="minisblack")
    add = {"path": str(tmp_path / "painted.tif")}

    def correct(asked):
        return apply(plan_apply(volume, ApplyOptions(asked), QUIET), QUIET)

    with pytest.raises(ParameterError, match=r"merge\[0\]: the objects lie in the images \[0, 1\]"):
        correct({"merge": [before["label"][before["bbox_z_start"] < 2].tolist()]})
    with pytest.raises(ParameterError, match=r"add\[0\]: it is painted in the images \[1, 2\]"):
        correct({"add": [{**add, "object": int(before["label"][0])}]})
    with pytest.raises(ParameterError, match=r"images have no brightness.* intensity_mean, in"):
        plan_apply(volume, ApplyOptions(None, keep=["brightness<0.45"]), QUIET)
    assert correct({"add": [add]}).objects == 12
    kept, _, _ = read_columns(volume / "tables" / "mitochondria-corrected.parquet")
    anew = stats(plan_stats(volume, replace(options, name="mitochondria-corrected")), QUIET)
    assert kept["touches_border"].sum() == 2  # of the image of 33 rows
    for name, column in anew.columns.items():
        # products of matrices of fewer rows may have other last bits
        np.testing.assert_allclose(kept[name], column, rtol=1e-13, err_msg=name)


def test_a_network_of_slices_sees_each_image_alone(tmp_path):
    raw = np.random.default_rng(3).integers(0, 200, (3, 40, 60), dtype=np.uint8)
    raw[1] = raw[1] // 3 + 90  # another brightness
    model = write_weights(tmp_path, "unet2d", (1, 32, 32), (0, 16, 16), preprocessing=PREPROCESSING)
    together, alone = convert(tmp_path, raw, "all"), []
    for k, plane in enumerate(raw):
        alone.append(convert(tmp_path, [plane], f"only{k}"))
    order = [1, 2, 0]
    options = exact_options(model)
    for volume in (together, *alone):
        predict(plan_prediction(volume, options), QUIET)
    expected = np.concatenate([read_map(alone[k]) for k in order])
    np.testing.assert_array_equal(read_map(together), expected)
    with pytest.raises(ParameterError, match="looks along z"):
        plan_prediction(together, exact_options("emnet"))


def test_colours_become_greys_only_if_that_is_asked_for(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (12, 14, 4), dtype=np.uint8)
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(colour))
    with pytest.raises(InputError, match="--grey"):
        volseg.convert(tmp_path / "c.png", tmp_path / "c.zarr")
    volseg.convert(tmp_path / "c.png", tmp_path / "c.zarr", grey=True)
    stored = open_image(tmp_path / "c.zarr").levels[0][:, :, :][0]
    np.testing.assert_array_equal(stored, np.rint(colour[..., :3] @ [0.299, 0.587, 0.114]))
