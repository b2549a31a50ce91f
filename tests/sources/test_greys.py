"""Images in the place of labels are refused wherever labels of others are read; labels are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import volseg
from toy_stacks import make_stack
from volseg.errors import VolumeError
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import open_label_path

CROP = Path(__file__).parents[2] / "examples/crop"
SHAPE = (4, 120, 130)


def check(tmp_path, given):
    tifffile.imwrite(tmp_path / "given.tif", given, photometric="minisblack")
    return refuse_greys(open_label_path(tmp_path / "given.tif"))


def dense(apart):
    """Make a slice without background whose objects are about so many pixels apart."""
    rng, seeds = np.random.default_rng(0), np.ones(SHAPE[1:], bool)
    seeds.flat[rng.choice(seeds.size, int(seeds.size / apart**2), replace=False)] = False
    nearest = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    found = 1 + np.ravel_multi_index(tuple(nearest), seeds.shape)
    return np.stack([found] * SHAPE[0]).astype(np.uint16)


def blurred(raw, sigma):
    return ndimage.gaussian_filter(raw, (0, sigma, sigma))


RAW = tifffile.imread(CROP / "raw.tif")[:8]
SOFT = blurred(255 * (tifffile.imread(CROP / "labels.tif")[:8] > 0).astype(np.uint8), 3)
NOISE = make_stack(SHAPE, "uint16")
IMAGES = {
    "raw": RAW,
    "blurred": blurred(RAW, 1),
    "wide": RAW.astype(np.uint16) * 77 + 1000,
    "noise": NOISE,
    "padded": np.pad(RAW, ((0, 0), (400, 0), (300, 0))),
    "probabilities": SOFT,
}
LABELS = {
    "annotated": tifffile.imread(CROP / "labels.tif"),
    "dense": dense(10),
    "of two pixels": dense(2),
    "classes": np.random.default_rng(0).integers(0, 9, SHAPE, np.uint8),
    "specks": np.where(make_stack(SHAPE) > 200, NOISE, 0),
    "tiny": NOISE[:, :22, :22],
    "one row": NOISE[:, :1],
    "nothing": np.zeros(SHAPE, np.uint8),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_grey_values_are_no_labels(tmp_path, kind):
    with pytest.raises(VolumeError, match=r"given\.tif holds grey values, it seems, and not label"):
        check(tmp_path, IMAGES[kind])


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_taken_as_they_are(tmp_path, kind):
    assert check(tmp_path, LABELS[kind]).shape == LABELS[kind].shape


def test_one_value_of_an_image_and_what_volseg_found_may_be_anything(tmp_path):
    tifffile.imwrite(tmp_path / "given.tif", RAW)
    source = open_label_path(tmp_path / "given.tif").with_foreground(3)
    assert refuse_greys(source) is source


COMMANDS = {
    "evaluate": lambda volume, raw, own: volseg.evaluate(volume, truth=raw, labels=own),
    "evaluate --mask": lambda volume, raw, own: volseg.evaluate(
        volume, truth=own, labels=own, mask=raw
    ),
    "evaluate --labels": lambda volume, raw, own: volseg.evaluate(volume, truth=own, labels=raw),
    "stats": lambda volume, raw, _: volseg.stats(volume, labels=raw),
    "segment --mask": lambda volume, raw, _: volseg.segment(volume, mask=raw),
    "train": lambda volume, raw, _: volseg.train(volume, labels=raw, output=volume, steps=1),
    "view": lambda volume, raw, _: volseg.view(volume, truth=raw),
    "run": lambda volume, raw, _: volseg.run(volume, truth=raw),
}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Convert a real crop."""
    place = tmp_path_factory.mktemp("greys") / "v.zarr"
    volseg.convert(CROP / "raw.tif", place, voxel_size=(5, 5, 5))
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_labels_of_others_refuses_an_image(volume, command):
    with pytest.raises(VolumeError, match="holds grey values"):
        COMMANDS[command](volume, CROP / "raw.tif", CROP / "labels.tif")
