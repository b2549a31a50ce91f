"""Explain: maps are what the network has, blended; they lie in the right place, and are shown."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

import volseg
from toy_volumes import write_labels, write_raw
from toy_weights import write_weights
from volseg.api.layers import compose_layers
from volseg.api.opening import info
from volseg.measures.suspects import Suspect
from volseg.models.explaining import Explainer, listening
from volseg.models.registry import find_architecture
from volseg.stages.explain import run as stage
from volseg.stages.explain.plan import ExplainOptions, plan_explanation
from volseg.stages.predict import region
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.tiles import tiles_of
from volseg.stages.report import again
from volseg.stages.report.again import Disagreement, measure_disagreement
from volseg.stages.report.explained import draw_panels
from volseg.stages.report.plan import plan_report
from volseg.stages.view.plan import ViewOptions, plan_view
from volseg.stages.view.state import compose_state
from volseg.storage.images import read_explanation
from volseg.storage.volumes import open_image

SHAPE, ROI = (6, 48, 48), "2:4,8:40,:"
BOX = (slice(2, 4), slice(8, 40), slice(0, 48))


@pytest.fixture(scope="module")
def raw():
    smooth = ndimage.gaussian_filter(np.random.default_rng(5).random(SHAPE), (1, 2, 2))
    return ((smooth - smooth.min()) / np.ptp(smooth) * 254 + 1).astype(np.uint8)


@pytest.fixture
def volume(tmp_path, raw):
    path = write_raw(tmp_path / "v.zarr", raw, voxel_size=(30.0, 5.0, 5.0))
    write_labels(path, (raw > 150).astype(np.uint32), (30.0, 5.0, 5.0))
    return path


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """Weights of slices with attention; one tile holds a slice of the volume."""
    return write_weights(
        tmp_path_factory.mktemp("w"), "attention-unet", (2, 96, 96), (0, 16, 16), 2
    )


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """Draw no sheet, which takes longer than all else, where it is not looked at."""
    if "hand" not in request.node.name:
        monkeypatch.setattr(stage, "draw_sheet", lambda *_: None)


def read(volume, name):
    layers = {layer.name: layer for layer in read_explanation(volume, "mitochondria").layers}
    layer = layers[name]
    return layer.image.levels[0][:, :, :] / 255 * layer.full, layer


def test_layers_are_what_a_hand_takes_from_the_network(volume, gated, tmp_path):
    """Of every slice alone, by hand: flips, gradients, gates, features."""
    report = volseg.explain(volume, roi=ROI, model=str(gated), output=tmp_path / "a.png")
    plan = plan_explanation(volume, ExplainOptions(ROI, model=str(gated)))
    assert plan.stands
    predictor = predictor_for(plan.prediction.choice)
    tiles = tiles_of(plan.prediction)
    deviations, attention, saliency, logits, strongest = [], [], [], [], []
    best = report.filters[0][0]
    for z in (2, 3):
        (tile,) = (t for t in plan.prediction.handover.reaching() if t.position[0] == z // 2)
        seen = tiles.cut(tile, tiles.read([tile]).send())[z % 2]
        x = seen[None, None].requires_grad_()
        flips = [(), (2,), (3,), (2, 3)]
        with torch.no_grad():
            found = torch.stack(
                [predictor.network(x.flip(f)).flip(f).sigmoid()[0, 0] for f in flips]
            )
        deviations.append(found.std(0, correction=0))
        with listening(predictor.network) as taken:
            out = predictor.network(x)
        attention.append(taken.gates[-1].detach()[0, 0])
        inside = torch.zeros_like(out, dtype=torch.bool)
        inside[0, 0, 24:56, 16:64] = True
        inside &= out >= 0
        (gradient,) = torch.autograd.grad(out[inside].sum(), x)
        saliency.append(gradient.abs()[0, 0])
        logits.append(out[inside].detach())
        strongest.append(taken.last.detach()[0, best])
    for name, slices, exact in (
        ("uncertainty", deviations, 0.5),
        ("attention-1", attention, 1.0),
        ("saliency", saliency, None),
        (f"filter-{best}", strongest, None),
    ):
        stored, layer = read(volume, name)
        # the tile begins its overlap before the volume
        expected = torch.stack(slices)[:, 24:56, 16:64].numpy()
        assert exact is None or layer.full == exact
        assert np.abs(stored - expected.clip(0, layer.full)).max() <= layer.full / 255
    bias = float(predictor.network.head.bias)
    assert sum(v for _, v in report.filters) + bias == pytest.approx(
        float(torch.cat(logits).mean()), rel=1e-4
    )
    assert set(report.layers) >= {"grad-cam", "attention-2", "attention-4", "attention-8"}
    assert (tmp_path / "a.png").stat().st_size > 10_000
    scene = plan_view(volume, ViewOptions())
    assert scene.layers["explained: grad-cam"].corner == (2, 8, 0)
    assert compose_state(scene, dict.fromkeys(scene.layers, ""))["layers"][-1]["visible"] is False
    layers = {keywords["name"]: keywords for _, keywords, _ in compose_layers(volume)}
    assert layers["v mitochondria explained: saliency"]["translate"] == [60.0, 40.0, 0.0]
    assert info(volume)["explanations"]["mitochondria"]["roi"] == "2:4,8:40,0:48"
    sheet = draw_panels(
        open_image(volume), "mitochondria", read_explanation(volume, "mitochondria")
    )
    assert [p.name for p in sheet.panels] == ["raw", *report.layers]
    assert (sheet.title, sheet.size) == ("z = 3", "0.16 x 0.24 µm")


def test_a_region_lies_where_it_was_cut_out_and_is_made_once(volume, gated, tmp_path, monkeypatch):
    options = {"roi": ROI, "model": str(gated), "output": tmp_path / "a.png"}
    first = volseg.explain(volume, **options)
    _, layer = read(volume, "uncertainty")
    assert layer.image.space.origin == (60.0, 40.0, 0.0)
    assert layer.image.voxel_size == (30.0, 5.0, 5.0)
    assert layer.image.levels[0].shape == (2, 32, 48)
    monkeypatch.setattr(stage, "_evaluate", None)
    (tmp_path / "a.png").touch()
    assert volseg.explain(volume, **options).filters == first.filters
    with pytest.raises(volseg.InputError, match="another region or network; give --overwrite"):
        volseg.explain(volume, **options | {"roi": "0:1,:,:"})
    with pytest.raises(volseg.InputError, match=r"a\.png exists already"):
        volseg.explain(volume, **options | {"name": "other"})


@pytest.mark.parametrize(
    ("architecture", "tile", "overlap", "views"),
    [
        ("unet2d", (8, 32, 32), (0, 16, 16), "ortho"),
        ("unet2d-valid", (4, 36, 36), (0, 4, 4), "xy"),
        ("emnet", (12, 32, 32), (4, 8, 8), "xy"),
        ("attention-unet3d", (16, 32, 32), (0, 0, 0), "xy"),
    ],
)
def test_maps_lie_where_probabilities_do(
    tmp_path, raw, monkeypatch, architecture, tile, overlap, views
):
    """Without flips, the mean over views is what was predicted."""
    cube = np.concatenate([raw[:, :40, :40]] * 3)
    path = write_raw(tmp_path / "v.zarr", cube, voxel_size=(5.0, 5.0, 5.0))
    model = str(write_weights(tmp_path, architecture, tile, overlap, 8))
    volseg.segment(path, model=model, workers=1, precision="float32", views=views)
    # weights of chance see farther than tiles overlap
    monkeypatch.setattr(
        region, "cut_tile", lambda _n, lattice, _f: tuple(slice(0, a.tile) for a in lattice.axes)
    )
    monkeypatch.setattr("volseg.models.explaining.FLIPS", 1)
    taken, blend = [], stage.blend_region
    monkeypatch.setattr(
        stage, "blend_region", lambda *args: taken.append(blend(*args)) or dict(taken[-1])
    )
    report = volseg.explain(path, roi="3:6,9:30,8:33", model=model, output=tmp_path / "a.png")
    box = (slice(3, 6), slice(9, 30), slice(8, 33))
    stored = open_image(path / "probabilities" / "mitochondria").levels[0][box] / 255
    assert np.abs(taken[0]["mean"] - stored).max() < 0.6 / 255
    layers = {"uncertainty", "saliency", "grad-cam", f"filter-{report.filters[0][0]}"}
    if architecture.startswith("attention"):
        layers |= {"attention-1", "attention-2", "attention-4", "attention-8"}
    else:
        assert "no attention gates" in report.notes[-1]
    assert layers < set(report.layers)
    for name in layers - {"uncertainty"}:
        values, _ = read(path, name)
        assert values.shape == (3, 21, 25)
        assert name == "grad-cam" or values.min() < values.max()  # of chance it may be all below 0
    found = float((taken[0]["mean"] >= 0.5).mean())
    assert report.found == pytest.approx(found)
    assert report.uncertainty[1] < 0.5


class Linear(torch.nn.Module):
    """Two features, twice raw and minus three times raw; their logit is seven times raw."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.ModuleList([torch.nn.Conv2d(1, 2, 1, bias=False)])
        self.head = torch.nn.Conv2d(2, 1, 1, bias=False)
        self.encoder[0].weight.data[:] = torch.tensor([2.0, -3.0]).reshape(2, 1, 1, 1)
        self.head.weight.data[:] = torch.tensor([5.0, 1.0]).reshape(1, 2, 1, 1)

    def forward(self, x):
        return self.head(self.encoder[0](x))


def test_grad_cam_and_saliency_are_what_arithmetic_says():
    """Vinogradova et al., equation 2: a feature weighs the mean of its gradient over the map."""
    x = np.random.default_rng(2).normal(size=(1, 8, 6)).astype(np.float32)
    needed = (slice(0, 1), slice(2, 7), slice(1, 6))
    predictor = SimpleNamespace(
        network=Linear().requires_grad_(False),
        margin=(0, 0, 0),
        dimensions=2,
        device=torch.device("cpu"),
        wanted=(0,),
        maps=(),
    )
    explainer = Explainer(predictor, 0.5, (1, 1, 1))
    maps = explainer._map(x, needed, 0, explainer._trace)
    found = np.zeros(x.shape, bool)
    found[needed] = x[needed] >= 0
    share = found.sum() / x.size
    assert 0 < share < 1
    np.testing.assert_allclose(maps["grad-cam"], share * np.maximum(7 * x, 0), rtol=1e-5)
    np.testing.assert_allclose(maps["saliency"], 7.0 * found, rtol=1e-5)
    # what both features add to the mean logit: 10 and -3 times raw
    mean = x[found].mean()
    assert explainer.rank_filters() == [
        (0, pytest.approx(10 * mean, rel=1e-5)),
        (1, pytest.approx(-3 * mean, rel=1e-5)),
    ]


def test_grad_cam_keeps_the_slices_of_a_thin_tile_apart():
    form = find_architecture("unet2d-neighbours")
    torch.manual_seed(3)
    network = form.build(2).eval().requires_grad_(False)
    network.head.bias.fill_(9.0)
    predictor = SimpleNamespace(
        network=network,
        margin=form.margin,
        dimensions=3,
        device=torch.device("cpu"),
        wanted=(0,),
        maps=(),
    )
    x = np.random.default_rng(2).normal(size=(4, 16, 16)).astype(np.float32)
    explainer = Explainer(predictor, 0.5, form.stride)
    found = explainer._map(x, (slice(0, 2), slice(0, 16), slice(0, 16)), 0, explainer._trace)
    with listening(network) as taken:
        logits = network(torch.from_numpy(x)[None, None].requires_grad_())
    (share,) = torch.autograd.grad(logits[logits >= 0].sum(), taken.deepest)
    seen = (share.mean(dim=(2, 3, 4), keepdim=True) * taken.deepest).sum(dim=1).relu()
    assert seen.shape == (1, 2, 1, 1)
    assert len(seen.unique()) == 2
    expected = seen[0].detach().expand(2, 16, 16)
    np.testing.assert_allclose(found["grad-cam"], expected, rtol=1e-4)


def test_what_is_on_record_is_explained_with_its_views(tmp_path, raw, toy_model):
    """The network and its settings are those that made the probabilities."""
    path = write_raw(tmp_path / "v.zarr", raw, shard=(6, 48, 48))
    volseg.segment(path, model=toy_model, invert=True, workers=1, precision="float32")
    with pytest.raises(volseg.InputError, match="name the network that is to be explained"):
        plan_explanation(path, ExplainOptions("0:1,:,:"))
    plan = plan_explanation(path, ExplainOptions("0:1,:,:", model=str(toy_model)))
    made = open_image(path / "probabilities" / "mitochondria").attributes["run"]
    assert plan.header["model"] == made["model"]
    assert plan.header["invert"] is True
    assert plan.header["lattice"] == made["lattice"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--roi", "0:9,:,:"], "leaves the volume, which has 6 voxels there"),
        (["--roi", "1,2"], "a region is written z0:z1"),
        ([], "Missing option '--roi'"),
        (["--roi", ":,:,:", "--model", "none"], "no model is called 'none'"),
        (["--roi", ":,:,:", "--output", "a.jpg"], "ends in .png"),
    ],
)
def test_bad_regions_and_models_are_refused(volseg, volume, flags, words):
    done = volseg("explain", volume, *flags)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_large_regions_are_refused(volume, monkeypatch):
    monkeypatch.setattr("volseg.stages.explain.plan.LARGEST", 100)
    with pytest.raises(volseg.InputError, match="13,824 voxels, and at most 100"):
        volseg.explain(volume, roi=":,:,:")


def test_nothing_found_says_so(volume, tmp_path):
    model = write_weights(tmp_path, "unet2d", (2, 96, 96), (0, 16, 16), 2, threshold=0.9999)
    report = volseg.explain(volume, roi=ROI, model=str(model), output=tmp_path / "a.png")
    assert "nothing in the region has a probability of 0.9999" in report.notes[-1]
    assert report.filters == ()


@pytest.mark.parametrize(
    ("architecture", "tile", "overlap"),
    [
        ("unet2d", (2, 96, 96), (0, 16, 16)),
        ("emnet", (12, 32, 32), (4, 8, 8)),
    ],
)
def test_suspects_are_predicted_again_as_uncertainty_is(tmp_path, raw, architecture, tile, overlap):
    """Within the object, the deviation over flips is that of the layer of uncertainty."""
    path = write_raw(tmp_path / "v.zarr", raw, voxel_size=(30.0, 5.0, 5.0))
    model = write_weights(tmp_path, architecture, tile, overlap, 8)
    volseg.segment(path, model=str(model), workers=1, precision="float32", min_probability=0)
    volseg.stats(path, workers=1)
    (subject,) = plan_report([path], ["mitochondria"], [None])
    row = int(np.argmax(subject.columns["voxels"]))
    suspect = Suspect(row, 1.0, ())
    # its network does not come with volseg, and is not named
    assert measure_disagreement(subject, [suspect]) == Disagreement()
    (subject,) = plan_report([path], ["mitochondria"], [None], str(model))
    found = measure_disagreement(subject, [suspect])
    assert found.views == {}
    z = int(subject.columns["centroid_z"][row])
    volseg.explain(path, roi=f"{z}:{z + 1},:,:", model=str(model), output=tmp_path / "a.png")
    labels = subject.labels.levels[0][z : z + 1, :, :]
    stored, _ = read(path, "uncertainty")
    inside = labels == subject.columns["label"][row]
    assert found.flips[row] == pytest.approx(stored[inside].mean(), abs=0.5 / 255)
    with pytest.raises(volseg.InputError, match="emnet made no probabilities of v"):
        volseg.report(path, model="emnet")


def test_views_of_suspects_are_those_whose_mean_was_predicted(tmp_path, raw, monkeypatch):
    cube = np.concatenate([raw[:, :32, :32]] * 4)
    path = write_raw(tmp_path / "v.zarr", cube, voxel_size=(5.0, 5.0, 5.0))
    model = write_weights(tmp_path, "unet2d", (8, 32, 32), (0, 16, 16))
    # weights of chance see farther than tiles overlap
    monkeypatch.setattr(
        region, "cut_tile", lambda _n, lattice, _f: tuple(slice(0, a.tile) for a in lattice.axes)
    )
    seen, see = [], again.see_along_axes
    monkeypatch.setattr(
        again, "see_along_axes", lambda plan, at: seen.append((at, see(plan, at))) or seen[-1][1]
    )
    chosen = {"model": str(model), "workers": 1, "precision": "float32", "min_probability": 0}
    volseg.segment(path, views="ortho", **chosen)
    volseg.stats(path, workers=1)
    (subject,) = plan_report([path], ["mitochondria"], [None], str(model))
    row = int(np.argmax(subject.columns["voxels"]))
    found = measure_disagreement(subject, [Suspect(row, 1.0, ())])
    ((voxels, views),) = seen
    assert views.shape == (again.POINTS, 3)
    for voxel, probabilities in zip(voxels.tolist(), views, strict=True):
        at = tuple(slice(n, n + 1) for n in voxel)
        assert subject.labels.levels[0][at].item() == subject.columns["label"][row]
        stored = subject.probabilities.levels[0][at].item() / 255
        assert probabilities.mean() == pytest.approx(stored, abs=0.6 / 255)
    assert found.views[row] == pytest.approx(views.std(axis=1).mean())
    assert found.flips[row] > 0
