"""Programs of others open what volseg writes: values, sizes, units, labels by name."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
import pytest

import volseg
from toy_volumes import write_labels, write_raw
from volseg.geometry.grid import full_roi
from volseg.storage.ome import Space
from volseg.storage.volumes import labels_path, open_image

SHAPE, SIZE = (20, 70, 90), (30.0, 5.0, 4.0)


@contextmanager
def lenient():
    """Let other programs warn of what is not volseg's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(5).integers(0, 255, SHAPE, np.uint8)


@pytest.fixture(scope="module")
def labels():
    labels = np.zeros(SHAPE, np.uint32)
    labels[2:9, 10:40, 10:30], labels[10:18, 30:60, 40:80] = 1, 2
    return labels


@pytest.fixture(scope="module")
def volume(tmp_path_factory, raw, labels):
    space = Space(SIZE, (0.0, 0.0, 0.0), ("nanometer",) * 3)
    path = write_raw(tmp_path_factory.mktemp("vol") / "vol.zarr", raw, (32, 64, 64), space)
    write_labels(path, labels, space)
    return path


@pytest.fixture(scope="module")
def older(volume, tmp_path_factory):
    """The same labels as OME-Zarr 0.4."""
    place = tmp_path_factory.mktemp("older") / "labels.zarr"
    return volseg.export(volume, output=place).output


def test_ome_zarr_py(volume, older, raw, labels):
    with lenient():
        io, reader = pytest.importorskip("ome_zarr.io"), pytest.importorskip("ome_zarr.reader")
        image = next(iter(reader.Reader(io.parse_url(str(volume)))()))
        theirs = next(iter(reader.Reader(io.parse_url(str(older)))()))
    assert [d.shape for d in image.data] == [level.shape for level in open_image(volume).levels]
    np.testing.assert_array_equal(np.asarray(image.data[0]), raw)
    np.testing.assert_array_equal(np.asarray(theirs.data[0]), labels)
    scale = image.metadata["coordinateTransformations"][0][0]
    assert scale == {"type": "scale", "scale": list(SIZE)}
    assert [axis["unit"] for axis in image.metadata["axes"]] == ["nanometer"] * 3


def test_the_reader_of_napari(volume, older, labels):
    with lenient():
        plugin = pytest.importorskip("napari_ome_zarr")
        found = {str(p): plugin.napari_get_reader(str(p))(str(p)) for p in (volume, older)}
    assert [layer[2] for layer in found[str(volume)]] == ["image", "labels"]
    for levels, shown, kind in (found[str(volume)][1], found[str(older)][0]):
        assert kind == "labels"
        assert tuple(shown["scale"]) == SIZE
        np.testing.assert_array_equal(np.asarray(levels[0]), labels)


def test_ngio(volume, older, raw, labels):
    with lenient():
        ngio = pytest.importorskip("ngio")
        container = ngio.open_ome_zarr_container(str(volume))
        image, objects = container.get_image(), container.get_label("mitochondria")
        theirs = ngio.open_ome_zarr_container(str(older)).get_image()
        read = [np.asarray(found.get_array()) for found in (image, objects, theirs)]
    assert container.list_labels() == ["mitochondria"]
    for found, expected in zip(read, (raw, labels, labels), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found in (image, objects, theirs):
        size = found.pixel_size
        assert (size.z, size.y, size.x, size.space_unit) == (*SIZE, "nanometer")


def test_tensorstore_by_the_makers_of_neuroglancer(volume, older, raw, labels, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")

    def read(driver, place, **more):
        kept = {"driver": "file", "path": str(place)}
        return tensorstore.open({"driver": driver, "kvstore": kept, **more}).result()

    np.testing.assert_array_equal(read("zarr3", volume / "0").read().result(), raw)
    own = labels_path(volume, "mitochondria")
    for k, level in enumerate(open_image(own).levels):
        expected = level[full_roi(level.shape)]
        np.testing.assert_array_equal(read("zarr3", own / str(k)).read().result(), expected)
    np.testing.assert_array_equal(read("zarr", older / "0").read().result(), labels)
    volseg.export(volume, output=tmp_path / "a.precomputed")
    found = read("neuroglancer_precomputed", tmp_path / "a.precomputed")
    np.testing.assert_array_equal(found.read().result()[..., 0].T, labels)
    sizes = [unit.multiplier for unit in found.dimension_units[:3]]
    assert sizes == list(SIZE[::-1])
