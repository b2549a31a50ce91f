"""Programs of others open what volseg writes: values, sizes, units, labels by name."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.parse
import warnings
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import imagecodecs
import numpy as np
import pytest

import volseg
import volseg.api.looking
from toy_browser import BROWSER, PATIENCE, browsing
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


def test_readers_of_version_0_4_open_the_copy_in_place(volume, raw, labels, tmp_path):
    """What v2 alone knows is looked at without the files of v3, which newer readers prefer."""
    both, alone = tmp_path / "vol.zarr", tmp_path / "v2.zarr"
    shutil.copytree(volume, both)
    volseg.export(both, "raw", in_place=True)
    volseg.export(both, "labels", in_place=True)
    shutil.copytree(both, alone, ignore=shutil.ignore_patterns("zarr.json", "c", ".volseg"))
    with lenient():
        ngio = pytest.importorskip("ngio")
        for path in (both, alone):
            container = ngio.open_ome_zarr_container(str(path))
            image, objects = container.get_image(), container.get_label("mitochondria")
            np.testing.assert_array_equal(np.asarray(image.get_array()), raw)
            np.testing.assert_array_equal(np.asarray(objects.get_array()), labels)
            for found in (image, objects):
                size = found.pixel_size
                assert (size.z, size.y, size.x, size.space_unit) == (*SIZE, "nanometer")
        io, reader = pytest.importorskip("ome_zarr.io"), pytest.importorskip("ome_zarr.reader")
        for path in (both, alone):
            nodes = list(reader.Reader(io.parse_url(str(path)))())
            np.testing.assert_array_equal(np.asarray(nodes[0].data[0]), raw)
            np.testing.assert_array_equal(np.asarray(nodes[-1].data[0]), labels)


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
    both = tmp_path / "vol.zarr"
    shutil.copytree(volume, both)
    volseg.export(both, "raw", in_place=True)
    for driver in ("zarr", "zarr3"):
        np.testing.assert_array_equal(read(driver, both / "0").read().result(), raw)
    volseg.export(volume, output=tmp_path / "a.precomputed")
    found = read("neuroglancer_precomputed", tmp_path / "a.precomputed")
    np.testing.assert_array_equal(found.read().result()[..., 0].T, labels)
    sizes = [unit.multiplier for unit in found.dimension_units[:3]]
    assert sizes == list(SIZE[::-1])


class Ranges(SimpleHTTPRequestHandler):
    """Sends files, and parts of files, to pages of any origin."""

    def do_GET(self):
        asked, path = self.headers.get("Range"), self.translate_path(self.path)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return self.send_error(404)
        if asked is None:
            return self.reply(200, content)
        first, last = asked.removeprefix("bytes=").split("-")
        start = int(first) if first else max(len(content) - int(last), 0)
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        return self.reply(206, content[start:stop], f"bytes {start}-{stop - 1}/{len(content)}")

    def do_HEAD(self):
        self.do_GET()

    def reply(self, status, content, span=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if span is not None:
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_neuroglancer(volume, older, raw, labels, tmp_path):
    """Neuroglancer itself, in a browser, reads volumes and exports; its values come back here."""
    with lenient():
        neuroglancer = pytest.importorskip("neuroglancer")
    for place, name in ((volume, "vol.zarr"), (older, "older.zarr")):
        (tmp_path / name).symlink_to(place)
    for what in ("raw", "labels"):
        volseg.export(volume, what, output=tmp_path / f"{what}.precomputed")
    sources = {
        "image": ("precomputed://{}/raw.precomputed", raw),
        "segments": ("precomputed://{}/labels.precomputed", labels),
        "own": ("zarr3://{}/vol.zarr", raw),
        "own objects": ("zarr3://{}/vol.zarr/labels/mitochondria", labels),
        "older objects": ("zarr2://{}/older.zarr", labels),
    }
    viewer = neuroglancer.Viewer()
    with serving(tmp_path) as url, browsing(tmp_path) as browser:
        with viewer.txn() as state:
            for name, (source, array) in sources.items():
                kind = "ImageLayer" if array is raw else "SegmentationLayer"
                layer = getattr(neuroglancer, kind)(source=source.format(url))
                state.layers[name] = layer
        browser.go(viewer.get_viewer_url())
        for name, (_, expected) in sources.items():
            found = viewer.volume(name).result(timeout=PATIENCE)
            order = [found.domain.labels.index(axis) for axis in "zyx"]
            units = [found.dimension_units[k] for k in order]
            np.testing.assert_allclose([u.multiplier for u in units], np.multiply(SIZE, 1e-9))
            assert [u.base_unit for u in units] == ["m"] * 3
            if expected is raw:  # segments come back as they are packed
                read = np.transpose(found.read().result(timeout=PATIENCE), order)
                np.testing.assert_array_equal(read, expected, err_msg=name)
        objects = [name for name, (_, array) in sources.items() if array is labels]
        for at in ((5, 20, 20), (12, 45, 60), (5, 45, 60)):
            position = [n + 0.5 for n in at[::-1]]
            with viewer.txn() as state:
                state.position = position
            for name in objects:
                asked = (
                    f"String(viewer.layerManager.getLayerByName('{name}').layer"
                    f".getValueAt(new Float32Array({position}), {{pickedRenderLayer: null}}))"
                )
                seen = browser.wait(f"{asked}.match(/^[0-9]+$/)[0]")
                assert (name, at, seen) == (name, at, str(labels[at]))
        viewer.set_state(_state_of(volseg.api.looking.link(f"{url}/vol.zarr")))
        browser.wait("viewer.layerManager.getLayerByName('objects') && viewer.isReady()")
        _assert_coloured_over_grey(browser.look(tmp_path / "link.png"))
    neuroglancer.stop()


def _state_of(link):
    return json.loads(urllib.parse.unquote(link.partition("#!")[2]))


def _assert_coloured_over_grey(picture):
    """Raw is grey; objects are coloured and let it through, so their shades vary."""
    shown = imagecodecs.png_decode(picture.read_bytes())[60:380, :480, :3].astype(int)
    apart = np.ptp(shown, axis=2)
    coloured = shown[(apart > 30) & (apart < 200)]
    assert len(coloured) > 1000
    assert len(np.unique(coloured, axis=0)) > 30
    assert (apart == 0).sum() > 1000
