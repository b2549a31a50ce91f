"""What a network is trained on: volumes, stacks, images, and which of their slices."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from toy_elsewhere import write_elsewhere
from toy_training import STILL
from volseg.api.training import pair_up
from volseg.engine.progress import NoProgress
from volseg.errors import InputError, ParameterError, SourceError, VolumeError, VoxelSizeError
from volseg.geometry.grid import full_roi
from volseg.models.registry import find_architecture
from volseg.sources.labels import open_label_path
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.train.data import NO_SIZE, open_training_data
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.objects import predict_objects, whole_region
from volseg.stages.train.regions import Pair, Share, choose_parts, take_fraction, take_slices
from volseg.stages.train.sources import open_pair
from volseg.storage.cards import load_card
from volseg.training.augmentation import Augmentation
from volseg.training.config import TrainConfig
from volseg.training.loader import draw_batch
from volseg.training.sampling import count_classes
from volseg.training.tissue import NOT_ANNOTATED
from volseg.training.validation import (
    annotated_slices,
    count_window,
    read_window,
    validation_windows,
    whole_grid,
)
from volseg.voxels.intensity import Tone

SHAPE = (20, 32, 40)
SIZE = (5.0, 5.0, 5.0)
FLAT = TrainConfig(
    architecture="unet2d", width=2, patch=(1, 16, 16), batch=4, steps=9, augmentation=STILL
)
RULES = dataclasses.replace(load_card("unet2d"), threshold=175 / 255)
CPU = torch.device("cpu"), torch.float32


class AsItIs(HeldOut):
    """A network that gives what it is shown."""

    card = RULES

    @property
    def network(self):
        network = nn.Sequential(nn.Identity())
        network.register_parameter("where", nn.Parameter(torch.zeros(1)))
        return network


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Slice z has the intensity 10 z, and 255 in a square that is labelled."""
    folder = tmp_path_factory.mktemp("stack")
    raw = np.broadcast_to(10 * np.arange(20, dtype=np.uint8)[:, None, None], SHAPE).copy()
    labels = np.zeros(SHAPE, np.uint16)
    raw[:, 8:20, 10:24], labels[:, 8:20, 10:24] = 255, 3
    tifffile.imwrite(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "labels.tif", labels)
    options = ConvertOptions(voxel_size=SIZE)
    with plan_conversion(folder / "raw.tif", folder / "vol.zarr", options) as plan:
        convert(plan, NoProgress())
    return folder


def pair(stack, raw="raw.tif", **changes):
    return Pair(stack / raw, str(stack / "labels.tif"), **changes)


def opened(pairs, voxel_size=SIZE, **changes):
    return open_training_data(pairs, TrainConfig(steps=1, **changes), voxel_size)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_volumes_of_others_are_counted_and_left_as_they_are(stack, tmp_path, version):
    path = write_elsewhere(tmp_path / "else.zarr", tifffile.imread(stack / "raw.tif"), version)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    (ours,), (theirs,), (array,) = (
        opened([Pair(raw, str(stack / "labels.tif"))], voxel_size=size).training
        for raw, size in ((stack / "vol.zarr", None), (path, None), (path / "s0", SIZE))
    )
    assert ours.tone == theirs.tone == array.tone
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_labels_may_be_a_folder_of_slices(stack, tmp_path, suffix):
    for z, plane in enumerate(tifffile.imread(stack / "labels.tif")):
        # the tenth comes after the second
        write = imagecodecs.imwrite if suffix == "png" else tifffile.imwrite
        write(tmp_path / f"m{z}.{suffix}", plane)
    whole, slices = (
        open_pair(Pair(stack / raw, str(labels)), SIZE)
        for raw, labels in (("raw.tif", stack / "labels.tif"), ("vol.zarr", tmp_path))
    )
    box = (slice(0, 20), slice(0, 32), slice(0, 40))
    np.testing.assert_array_equal(slices.labels[box], whole.labels[box])


def test_a_stack_in_memory_is_the_volume_it_would_be_converted_to(stack):
    ours, theirs = (opened([pair(stack, name)]) for name in ("raw.tif", "vol.zarr"))
    assert ours.training[0].tone == theirs.training[0].tone
    assert ours.description[0]["labels hash"] == theirs.description[0]["labels hash"]
    config = TrainConfig(patch=(8, 16, 16), steps=1)
    for a, b in zip(
        draw_batch(ours.training, config, 3), draw_batch(theirs.training, config, 3), strict=True
    ):
        assert (a == b).all()


def test_slices_within_pixels_are_images_and_labels_by_their_axes(stack, tmp_path):
    names = "raw.tif", "labels.tif"
    for name in names:
        samples = np.ascontiguousarray(tifffile.imread(stack / name)[:4].transpose(1, 2, 0))
        tifffile.imwrite(tmp_path / name, samples, photometric="rgb", extrasamples=[0])
    raw, labels = (tmp_path / name for name in names)
    with pytest.raises(SourceError, match="--channel 0 to 3"):
        opened(pair_up(raw, labels=labels))
    ours = opened(pair_up(raw, labels=labels, axes="YXZ"), patch=(4, 16, 16))
    theirs = opened(pair_up(stack / names[0], labels=stack / names[1], roi="0:4,:,:"))
    for a, b in zip(ours.training, theirs.training, strict=True):
        box = full_roi((4, *SHAPE[1:]))
        np.testing.assert_array_equal(a.raw[box], b.raw[box])
        np.testing.assert_array_equal(a.labels[box], b.labels[box])
    classes = TrainConfig(steps=1, classes=("a=3",), patch=(4, 16, 16))
    found = open_training_data(pair_up(raw, labels=labels, axes="YXZ"), classes, SIZE)
    assert found.description[0]["training foreground"] == ours.description[0]["training foreground"]
    write_elsewhere(tmp_path / "raw.zarr", tifffile.imread(stack / "raw.tif"), "0.5")
    write_elsewhere(tmp_path / "labels.zarr", tifffile.imread(stack / "labels.tif"), "0.5")
    zarrs = pair_up(tmp_path / "raw.zarr", labels=tmp_path / "labels.zarr", axes="YXZ")
    with pytest.raises(ParameterError, match="are Zarr, which names its own"):
        opened(zarrs)


@pytest.mark.parametrize("name", ["raw.tif", "vol.zarr", "else.zarr/s0"])
def test_padding_has_no_say_in_how_bright_tissue_is(stack, tmp_path, name):
    """Networks see in training what they see in `segment`."""
    raw = np.random.default_rng(1).integers(80, 160, (5, 64, 96), dtype=np.uint8)
    raw[:, :, :48] = 0
    labels = np.zeros(raw.shape, np.uint8)
    labels[:, 8:20, 60:70] = 1
    tifffile.imwrite(tmp_path / "raw.tif", raw)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    write_elsewhere(tmp_path / "else.zarr", raw, "0.5")
    with plan_conversion(tmp_path / "raw.tif", tmp_path / "vol.zarr", ConvertOptions(SIZE)) as plan:
        convert(plan, NoProgress())
    data = opened([Pair(tmp_path / name, str(tmp_path / "labels.tif"))])
    assert data.training[0].tone.window == (80.0, 159.0)


def test_several_pairs_each_have_their_regions_and_are_drawn_by_size(stack):
    data = opened(
        [
            pair(stack, roi="0:4,:,:", validation="4:6,:,:"),
            pair(stack, "vol.zarr", roi="6:18,:,:", validation="18:20,:,:"),
        ]
    )
    assert [s.roi[0] for s in data.training] == [slice(0, 4), slice(6, 18)]
    assert [s.roi[0] for s in data.validation] == [slice(4, 6), slice(18, 20)]
    assert data.voxels == 16 * 32 * 40


def test_data_of_several_sizes_are_seen_at_the_one_of_the_network(stack):
    """Patches of a volume at half the network's size show what the coarser one shows."""
    fine = pair(stack, "vol.zarr", voxel_size=(5.0, 5.0, 5.0), share=3.0)
    thick = pair(stack, voxel_size=(40.0, 10.0, 10.0), share=1.0)
    ten = (10.0, 10.0, 10.0)
    volumes = opened([fine, thick], voxel_size=None, resample_to=ten)
    assert volumes.voxel_size == ten
    assert [s.scale for s in volumes.training] == [(2.0, 2.0, 2.0), (0.25, 1.0, 1.0)]
    assert [s.isotropic for s in volumes.training] == [True, False]
    assert [s.weight for s in volumes.training] == [3.0, 1.0]
    slices = opened([fine, thick], architecture="unet2d", voxel_size=None, resample_to=ten)
    assert [s.scale for s in slices.training] == [(2.0, 2.0, 2.0), (1.0, 1.0, 1.0)]
    with pytest.raises(VoxelSizeError, match="--resample-to"):
        opened([fine, thick], voxel_size=None)
    with pytest.raises(ParameterError, match=r"share above 0, or none; found 3.0, None"):
        opened([fine, pair(stack, voxel_size=(5.0, 5.0, 5.0))])


@pytest.mark.parametrize(
    ("architecture", "network"),
    [("unet2d", 10.0), ("emnet", 10.0), ("emnet", 2.5), ("emnet", 15.0)],
)
def test_annotated_slices_are_validated_on_at_any_scale(stack, architecture, network):
    """Slice z has the intensity 10 z outside the square."""
    sparse = pair(stack, slices=(2, 7, 11, 12, 16))
    size = (network,) * 3
    data = opened(
        [sparse, pair(stack, slices=(3, 9, 13, 14), held_out=True)],
        architecture=architecture,
        resample_to=size,
    )
    (source,) = data.validation
    low, high = source.tone.window
    seen = []
    for window in validation_windows(whole_grid(source), slices=annotated_slices(source)):
        raw, truth = read_window(source, window)[:2].numpy()
        assert raw.shape[0] == 1
        assert truth.any()
        seen.append((float(raw.min()) + 1) / 2 * (high - low) + low)
    slices = {round(v / 10) for v in seen}
    assert np.abs(np.array(seen) - 10 * np.array(sorted(slices))).max() < 1e-3
    # slices that one of the network's holds count once
    assert slices == ({3, 9, 13} if network == 15 else {3, 9, 13, 14})


def test_patches_of_annotated_slices_know_them_at_any_scale(stack):
    sparse = pair(stack, slices=(2, 3, 7, 8, 11, 12, 18, 19))
    deep = opened([sparse], resample_to=(10.0, 10.0, 10.0))
    config = TrainConfig(patch=(8, 8, 8), steps=1, augmentation=STILL, loss="bce")
    for step in range(10):
        _, target, _ = draw_batch(deep.training, config, step, centerline=False)
        assert 0 < (target != NOT_ANNOTATED).numpy().mean() <= 0.5


def test_patches_turn_out_of_the_plane_only_where_nothing_changes_by_it(stack):
    """A network of thick slices would be shown thin ones that lie as its rows do."""
    cubes = pair(stack, voxel_size=(5.0, 5.0, 5.0))
    turned = [
        opened([cubes], voxel_size=None, resample_to=size).training[0].isotropic
        for size in ((8.0, 8.0, 8.0), (30.0, 8.0, 8.0))
    ]
    assert turned == [True, False]


def test_the_smallest_object_is_in_voxels_of_the_network_for_slices_of_any_thickness(stack):
    """The same prism, found in slices of 40 nm and of 10 nm, by a network of 10 nm cubes."""
    thick = pair(stack, voxel_size=(40.0, 10.0, 10.0), held_out=True)
    cubes = pair(stack, voxel_size=(10.0, 10.0, 10.0), held_out=True)
    data = opened(
        [pair(stack), thick, cubes], architecture="unet2d", resample_to=(10.0, 10.0, 10.0)
    )
    found = []
    for source in data.validation:
        held, region = whole_region(source)
        # 255 has a probability of 0.74, and 190, the next, one of 0.63
        held = dataclasses.replace(held, tone=Tone((0.0, 250.0)))
        found.append(predict_objects(AsItIs(Path(), [], *CPU), held, region))
    ours, theirs = found
    assert ours.voxels.tolist() == [4 * 20 * 12 * 14]
    assert theirs.voxels.tolist() == [20 * 12 * 14]
    assert ours.right.all()


def test_objects_that_nobody_annotated_are_not_wrong(stack):
    data = opened([pair(stack), pair(stack, held_out=True)], architecture="unet2d")
    held, region = whole_region(data.validation[0])
    held = dataclasses.replace(held, tone=Tone((0.0, 250.0)))
    labels = np.asarray(held.labels[full_roi(SHAPE)]).astype(np.int16)
    unknown = dataclasses.replace(held, labels=np.where(labels > 0, -1, labels), partial=True)
    judge = AsItIs(Path(), [], *CPU)
    whole, none = (predict_objects(judge, s, region) for s in (held, unknown))
    assert (whole.truth, len(whole.voxels)) == (1, 1)
    assert (none.truth, len(none.voxels)) == (0, 0)


def test_sources_are_drawn_from_by_their_shares(stack):
    """Told apart by what is annotated: all of one pair, nothing of the other."""
    shares = {"raw.tif": 3.0, "vol.zarr": 1.0}
    data = opened([pair(stack, name, share=share) for name, share in shares.items()])
    ours = [
        dataclasses.replace(s, labels=np.full(SHAPE, mark, np.uint8))
        for s, mark in zip(data.training, (1, 0), strict=True)
    ]
    config = TrainConfig(patch=(4, 8, 8), batch=8, steps=1, augmentation=STILL)
    drawn = [draw_batch(ours, config, step, centerline=False)[1].mean() for step in range(40)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.08)


def test_pairs_that_are_held_out_leave_the_others_whole(stack):
    data = opened([pair(stack), pair(stack, "vol.zarr", held_out=True)])
    assert [s.roi for s in data.training] == [full_roi(SHAPE)]
    assert [s.roi for s in data.validation] == [full_roi(SHAPE)]


def test_images_never_mix_and_one_in_five_is_held_out(stack):
    data = opened([pair(stack, images=True)], architecture="unet2d")
    source = data.training[0]
    assert data.validation[0].slices.tolist() == [4, 9, 14, 19]
    assert source.slices.tolist() == [z for z in range(20) if z % 5 != 4]
    low, high = source.tone.window
    (first, *_), _, _ = draw_batch(data.training, FLAT, 0)
    assert float(first.min()) == -1  # each image is seen by its own brightness
    alike = [dataclasses.replace(s, apart=None) for s in data.training]
    seen = set()
    varied = Augmentation(
        intensity_probability=0.0, section_probability=0.0, fault_probability=0.0, zoom=(1.0, 1.4)
    )
    config = dataclasses.replace(FLAT, augmentation=varied)
    for step in range(20):
        raw, _, _ = draw_batch(alike, config, step)
        for patch in raw.numpy():
            # 255 in the square and the slice's own intensity around it: the least says which slice
            least = (float(patch.min()) + 1) / 2 * (high - low) + low
            if least < 200:
                assert least == pytest.approx(round(least), abs=1e-3)
                seen.add(round(least))
    assert seen <= {10 * z for z in source.slices.tolist()}
    assert len(seen) > 10


def test_reflections_beyond_images_are_not_scored(tmp_path):
    images = [np.tri(*size, dtype=np.uint8) for size in ((40, 40), (40, 24), (24, 40))]
    for folder in ("raw", "labels"):
        (tmp_path / folder).mkdir()
        for k, image in enumerate(images):
            tifffile.imwrite(tmp_path / folder / f"{k}.tif", image)
    mine = Pair(tmp_path / "raw", str(tmp_path / "labels"), images=True)
    pairs = [mine, dataclasses.replace(mine, held_out=True)]
    data = opened(pairs, architecture="unet2d")
    (held,), form = data.validation, find_architecture("unet2d")
    counted = count_window(form.build(2).eval(), held, whole_grid(held), form, torch.float32)
    assert counted.sum() == sum(image.size for image in images)
    assert counted[0, 1].sum() == sum(int(image.sum()) for image in images)
    assert data.training[0].ends is None  # reflections are learned from


def test_slices_are_held_out_at_random_and_any_value_is_foreground(stack):
    chosen = [
        opened([pair(stack, validation="random:6")], architecture="unet2d", seed=seed)
        for seed in (1, 1, 2)
    ]
    held, again, others = (data.validation[0].slices.tolist() for data in chosen)
    assert held == again != others
    assert len(held) == 6
    assert sorted(held + chosen[0].training[0].slices.tolist()) == list(range(20))
    with pytest.raises(ParameterError, match="a number of slices below the 20"):
        opened([pair(stack, validation="random:20")], architecture="unet2d")
    labels, inverse = (opened([pair(stack, foreground=f)]).training[0].labels for f in (None, 0))
    box = full_roi(SHAPE)
    np.testing.assert_array_equal(np.asarray(labels[box]) > 0, np.asarray(inverse[box]) == 0)


def test_images_need_a_network_of_slices_and_no_voxel_size(stack):
    with pytest.raises(ParameterError, match=r"unrelated images .* choose a 2D --architecture"):
        opened([pair(stack, images=True)])
    data = opened([pair(stack, images=True)], architecture="unet2d", voxel_size=None)
    assert data.voxel_size == NO_SIZE
    assert "--voxel-size" in data.notes[0]


def test_only_annotated_slices_are_learned_from(stack):
    sparse = pair(stack, slices=(2, 7, 11, 12, 18))
    flat = opened([sparse], architecture="unet2d")
    assert flat.training[0].slices.tolist() == [2, 7, 11, 12]
    assert flat.validation[0].slices.tolist() == [18]
    windows = validation_windows(full_roi(SHAPE), slices=np.array([18]))
    assert [w[0] for w in windows] == [slice(18, 19)]
    deep = opened([sparse])
    config = TrainConfig(patch=(8, 16, 16), steps=1, augmentation=STILL, loss="bce")
    for step in range(10):
        _, target, lines = draw_batch(deep.training, config, step)
        known = (target != NOT_ANNOTATED).numpy()
        assert 0 < known.mean() <= 0.5
        assert float(lines.abs().max()) == 0
    assert deep.voxels == 4 * 32 * 40


def test_annotated_slices_beyond_the_volume_and_too_few_are_refused(stack):
    with pytest.raises(
        ParameterError, match=r"--slices names 20, 31, but the slices of .* are \d+ to \d+$"
    ):
        opened([pair(stack, slices=(2, 20, 31))], architecture="unet2d")
    with pytest.raises(ParameterError, match=r"1 annotated slices .* leave 0 to train on"):
        opened([pair(stack, slices=(2,))], architecture="unet2d")


@pytest.mark.parametrize("seed", range(5))
def test_fractions_are_nested_and_chosen_by_seed(seed):
    box = (slice(5, 105), slice(0, 9), slice(0, 9))
    boxes = [take_fraction(box, Share(f, seed))[0] for f in (0.05, 0.1, 0.37, 0.5, 1.0)]
    slices = np.arange(30)
    chosen = [set(take_slices(slices, Share(f, seed)).tolist()) for f in (0.1, 0.2, 1.0)]
    for small, large in itertools.pairwise(boxes):
        assert large.start <= small.start
        assert small.stop <= large.stop
    assert [b.stop - b.start for b in boxes] == [5, 10, 37, 50, 100]
    assert chosen[0] < chosen[1] < chosen[2]
    assert [len(c) for c in chosen] == [3, 6, 30]
    others = [take_fraction(box, Share(0.1, s))[0].start for s in range(10)]
    assert len(set(others)) > 5


def test_a_fraction_leaves_what_is_held_out_alone(stack):
    whole, part = (opened([pair(stack)], fraction=f, seed=3) for f in (1.0, 0.25))
    assert part.voxels == whole.voxels / 4
    assert part.validation[0].roi == whole.validation[0].roi
    assert part.description[0]["labels hash"] == whole.description[0]["labels hash"]


def test_regions_of_a_pair_that_only_trains_and_of_one_that_is_held_out():
    region = full_roi(SHAPE)
    only = choose_parts(Pair("a", "b", roi="3:9,:,:"), region, SHAPE, Share(), hold_out=False)
    assert [p.roi[0] for p in only.training] == [slice(3, 9)]
    assert only.validation == ()
    held = Pair("a", "b", roi="3:9,:,:", slices=(1, 4, 8), held_out=True)
    parts = choose_parts(held, region, SHAPE, Share(), hold_out=False)
    assert parts.training == ()
    assert parts.validation[0].slices.tolist() == [4, 8]


def test_voxel_sizes_that_differ_need_a_word(stack, tmp_path):
    other = ConvertOptions(voxel_size=(30.0, 5.0, 5.0))
    with plan_conversion(stack / "raw.tif", tmp_path / "other.zarr", other) as plan:
        convert(plan, NoProgress())
    second = Pair(tmp_path / "other.zarr", str(stack / "labels.tif"))
    with pytest.raises(VoxelSizeError, match=r"other\.zarr has voxels of \(30.*--resample-to"):
        opened([pair(stack, "vol.zarr"), second], voxel_size=None)
    assert opened([pair(stack, "vol.zarr"), second]).voxel_size == SIZE
    for size in ((5.0, 5.0, -5.0), (1e12, 1e12, 1e12)):  # of which no card could be written
        with pytest.raises(VoxelSizeError, match=r"must lie between 1e-06 and 1e\+09.* nm"):
            opened([pair(stack, "vol.zarr")], voxel_size=size)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(SHAPE, np.uint8), "has no foreground"),
        (np.ones(SHAPE, np.uint8), "everywhere"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100 > 0, r"in 99\.00% of the voxels.*an image"),
    ],
)
def test_labels_without_contrast_are_refused(stack, tmp_path, labels, message):
    tifffile.imwrite(tmp_path / "flat.tif", labels.astype(np.uint8))
    with pytest.raises(ParameterError, match=message):
        opened([Pair(stack / "raw.tif", str(tmp_path / "flat.tif"))])


def test_an_image_beside_labels_is_refused_and_a_class_that_is_nearly_everywhere_is_not(
    stack, tmp_path
):
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100 > 0
    tifffile.imwrite(tmp_path / "image.tif", image.astype(np.uint8))
    other = Pair(stack / "raw.tif", str(tmp_path / "image.tif"))
    with pytest.raises(ParameterError, match=r"image\.tif .* in 99\.00% of the voxels to train on"):
        opened([pair(stack), other])
    classes = (f"most={other.labels}", f"few={stack / 'labels.tif'}")
    assert opened([other], architecture="unet2d", classes=classes).training


def test_values_that_are_not_finite_are_named(stack, tmp_path):
    raw = np.zeros(SHAPE, np.float32)
    raw[3, 4, 5] = np.nan
    tifffile.imwrite(tmp_path / "raw.tif", raw)
    with pytest.raises(SourceError, match=r"raw\.tif: page 4 holds values that are not finite"):
        opened([Pair(tmp_path / "raw.tif", str(stack / "labels.tif"))])


def test_other_data_than_the_recipes_are_refused(stack):
    noted = opened([pair(stack)]).description[0]
    same = pair(stack, raw_fingerprint=noted["raw"], labels_fingerprint=noted["labels hash"])
    assert opened([same]).description[0] == noted
    with pytest.raises(VolumeError, match=r"raw\.tif is not what the recipe was made with"):
        opened([dataclasses.replace(same, raw_fingerprint="0" * 64)])


def test_nothing_to_train_on_is_said(stack, tmp_path):
    with pytest.raises(ParameterError, match="nothing to train on; name a volume"):
        opened([])
    with pytest.raises(InputError, match="there is nothing for training"):
        opened([pair(stack, held_out=True)])
    with pytest.raises(InputError, match="there is nothing at"):
        open_pair(Pair(tmp_path / "nowhere.zarr", "x"))


def test_classes_that_no_voxel_has_are_refused_or_told_of(stack, tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 8:20, 10:24], labels[:10, 22:30, 10:24] = 3, 4
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    known = Pair(stack / "raw.tif", str(tmp_path / "labels.tif"))
    told = {"architecture": "unet2d", "patch": (1, 16, 16), "loss": "bce-dice"}
    with pytest.raises(ParameterError, match="of the class b; check its value"):
        opened([known], classes=("a=3", "b=9"), **told)
    with pytest.raises(ParameterError, match="foreground 3 and classes"):
        opened([dataclasses.replace(known, foreground=3)], classes=("a=3",), **told)
    low = dataclasses.replace(known, validation="16:20,:,:")
    data = opened([low], classes=("a=3", "b=4"), **told)
    assert count_classes(data.validation)[1] == 0 < count_classes(data.training)[1]
    assert "held out is of the class b" in data.notes[-1]


def test_fewer_patches_are_centred_on_a_class_that_weighs_less(stack, tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 8:20, 10:24], labels[:, 22:30, 10:24] = 3, 4
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    told = {"architecture": "unet2d", "patch": (1, 16, 16), "classes": ("a=3", "b=4")}
    pairs = [Pair(stack / "raw.tif", str(tmp_path / "labels.tif"))]
    for a, b, each in (
        (1, 1, (168, 112)),
        (1, 0.01, (168, 41)),
        (1, 0, (168, 1)),
        (0, 0, (168, 112)),
    ):
        (source,) = opened(pairs, **told, map_weights={"a": a, "b": b}).training
        slices = source.roi[0].stop - source.roi[0].start
        of_b = int((source.foreground[:, 1] >= 22).sum())
        assert (len(source.foreground) - of_b, of_b) == (slices * each[0], slices * each[1])


@pytest.mark.parametrize("option", ["time", "channel", "fill-value"])
def test_what_only_convert_can_choose_is_asked_for_there(tmp_path, option):
    pages = np.zeros((4, 2, 16, 16), np.float32)
    pages[1] = np.nan if option == "fill-value" else 1.0
    if option == "fill-value":
        tifffile.imwrite(tmp_path / "raw.tif", pages[:, 0], photometric="minisblack")
    else:
        axes = {"axes": "ZCYX" if option == "channel" else "TZYX"}
        tifffile.imwrite(tmp_path / "raw.tif", pages, imagej=True, metadata=axes)
    with pytest.raises(SourceError, match=rf"--{option}.*option of convert"):
        open_pair(Pair(tmp_path / "raw.tif", str(tmp_path / "raw.tif")), SIZE)
    if option == "time":
        with pytest.raises(SourceError, match=rf"--{option}.*option of convert"):
            open_label_path(tmp_path / "raw.tif")
