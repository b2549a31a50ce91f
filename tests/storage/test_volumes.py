"""OME-Zarr images: valid, read back as written, and those of others with their units."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image as OmeImage
from ome_zarr_models.v05.image_label import ImageLabel

from volseg.errors import ConflictError, ParameterError, VolumeError
from volseg.storage.arrays import create_array, fit_spec
from volseg.storage.attributes import (
    listed_labels,
    read_attributes,
    update_attributes,
    write_group,
)
from volseg.storage.volumes import (
    create_image,
    labels_path,
    open_image,
    probabilities_path,
    register_label,
    slices_path,
    table_path,
    volume_tone,
)
from volseg.voxels.intensity import Preprocessing

SHAPE = (40, 150, 160)
SIZE = (50.0, 5.0, 4.0)


def make(path, label=False, **attributes):
    spec = fit_spec(SHAPE, "uint32" if label else "uint8")
    return create_image(path, spec, SIZE, label=label, attributes=attributes)


def test_what_is_written_is_valid_ome_zarr(tmp_path):
    volume = tmp_path / "vol.zarr"
    make(volume)
    make(probabilities_path(volume, "m"))
    make(labels_path(volume, "m"), label=True)
    register_label(volume, "m")
    for path in (volume, probabilities_path(volume, "m")):
        OmeImage.from_zarr(zarr.open_group(path, mode="r"))
    ImageLabel.from_zarr(zarr.open_group(labels_path(volume, "m"), mode="r"))
    assert zarr.open_group(volume / "labels", mode="r").attrs["ome"]["labels"] == ["m"]


def test_an_image_reads_back_as_written(tmp_path):
    written = make(tmp_path / "vol.zarr", histogram={"values": [1], "counts": [2]})
    assert open_image(tmp_path / "vol.zarr") == written


def test_every_level_lies_where_its_voxels_were(tmp_path):
    """The first voxel's leading face is at the same place in all levels."""
    make(tmp_path / "vol.zarr")
    (multiscale,) = read_attributes(tmp_path / "vol.zarr")["ome"]["multiscales"]
    assert len(multiscale["datasets"]) > 1
    for dataset in multiscale["datasets"]:
        scale, translation = (t[t["type"]] for t in dataset["coordinateTransformations"])
        face = np.subtract(translation, np.divide(scale, 2))
        np.testing.assert_allclose(face, -np.divide(SIZE, 2))


@pytest.mark.parametrize(
    ("unit", "nanometers"),
    [("nanometer", 1), ("micrometer", 1e3), ("angstrom", 0.1), ("millimeter", 1e6)],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_others_with_their_units(tmp_path, unit, nanometers, version):
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.open_group(tmp_path / "v", mode="w", zarr_format=zarr_format)
    group.create_array("s0", shape=(1, 1, 8, 9, 10), dtype="uint8", chunks=(1, 1, 4, 4, 4))
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": unit} for a in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 3, 2, 2]}]
    multiscales = [
        {
            "axes": axes,
            "version": version,
            "datasets": [{"path": "s0", "coordinateTransformations": scale}],
        }
    ]
    content = {"multiscales": multiscales}
    group.attrs.update(content if version == "0.4" else {"ome": {"version": "0.5", **content}})
    image = open_image(tmp_path / "v")
    assert image.levels[0].shape == (8, 9, 10)
    np.testing.assert_allclose(image.voxel_size, np.multiply((3, 2, 2), nanometers))


def test_without_units_the_voxel_size_is_unknown(tmp_path):
    create_image(tmp_path / "v", fit_spec(SHAPE, "uint8"), None, attributes={})
    assert open_image(tmp_path / "v").voxel_size is None
    zarr.create_array(tmp_path / "a", shape=SHAPE, dtype="uint8")
    assert open_image(tmp_path / "a").voxel_size is None


def rewrite(path, change):
    attributes = read_attributes(path)
    change(attributes["ome"]["multiscales"][0])
    write_group(path, attributes)
    return path


@pytest.mark.parametrize("scale", [[0, 5, 4], [-50, 5, 4], [math.nan, 5, 4], [5, 4], "5,5,5", None])
def test_a_scale_is_three_positive_numbers(tmp_path, scale):
    make(tmp_path / "v")

    def change(multiscale):
        multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = scale

    with pytest.raises(VolumeError, match=r"multiscales metadata of .*v cannot be used"):
        open_image(rewrite(tmp_path / "v", change))


def test_a_unit_without_a_scale_is_no_voxel_size(tmp_path):
    make(tmp_path / "v")

    def change(multiscale):
        for dataset in multiscale["datasets"]:
            del dataset["coordinateTransformations"]

    assert open_image(rewrite(tmp_path / "v", change)).voxel_size is None


def test_a_scale_common_to_all_levels_is_applied(tmp_path):
    make(tmp_path / "v")
    common = {"coordinateTransformations": [{"type": "scale", "scale": [2, 3, 4]}]}
    image = open_image(rewrite(tmp_path / "v", lambda multiscale: multiscale.update(common)))
    assert image.voxel_size == (100.0, 15.0, 16.0)
    assert image.factors == make(tmp_path / "w").factors


@pytest.mark.parametrize("axes", ["xyz", "yx"])
def test_other_axes_are_refused(tmp_path, axes):
    make(tmp_path / "v")
    named = {"axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in axes]}
    with pytest.raises(VolumeError, match=r"expected \['z', 'y', 'x'\]"):
        open_image(rewrite(tmp_path / "v", lambda multiscale: multiscale.update(named)))


def test_a_level_outside_the_image_is_refused(tmp_path):
    make(tmp_path / "secret.zarr")
    make(tmp_path / "v.zarr")
    attributes = read_attributes(tmp_path / "v.zarr")
    attributes["ome"]["multiscales"][0]["datasets"][0]["path"] = "../secret.zarr/0"
    write_group(tmp_path / "v.zarr", attributes)
    with pytest.raises(VolumeError, match="names a level outside itself"):
        open_image(tmp_path / "v.zarr")


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"attributes": {"ome": 3}}',
        '{"attributes": {"ome": {"multiscales": [{}]}}}',
        '{"attributes": {"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}}}',
    ],
)
def test_damaged_metadata_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "zarr.json").write_text(content)
    with pytest.raises(VolumeError, match=r"v"):
        open_image(tmp_path / "v")


def test_what_is_no_volume_says_what_to_do(tmp_path):
    with pytest.raises(VolumeError, match="there is nothing at"):
        open_image(tmp_path / "nowhere")
    (tmp_path / "raw.tif").write_bytes(b"II")
    with pytest.raises(VolumeError, match=r"is a file.*volseg convert \S*raw\.tif \S*raw\.zarr`"):
        open_image(tmp_path / "raw.tif")
    make(tmp_path / "v.zarr")
    with pytest.raises(ConflictError):
        make(tmp_path / "v.zarr")


def test_attributes_are_changed_one_by_one(tmp_path):
    make(tmp_path / "v", complete=False, other=1)
    update_attributes(tmp_path / "v", {"complete": True})
    content = json.loads((tmp_path / "v" / "zarr.json").read_text())
    assert content["attributes"]["volseg"] == {"complete": True, "other": 1}
    assert open_image(tmp_path / "v").voxel_size == SIZE


def test_the_window_is_two_percentiles_of_all_voxels(tmp_path):
    voxels = np.random.default_rng(0).integers(30, 200, 10000)
    values, counts = np.unique(voxels, return_counts=True)
    histogram = {"values": values.tolist(), "counts": counts.tolist()}
    image = make(tmp_path / "v", histogram=histogram)
    low, high = np.percentile(voxels, [1, 99], method="inverted_cdf")
    assert volume_tone(image, Preprocessing((1, 99))).window == (low, high)
    flat = make(tmp_path / "w", histogram={"values": [7], "counts": [9]})
    assert volume_tone(flat, Preprocessing()).window == (7, 8)
    with pytest.raises(VolumeError, match=r"no histogram .*`volseg segment .*` counts"):
        volume_tone(make(tmp_path / "x"), Preprocessing())


@pytest.mark.parametrize("name", ["", ".", "..", "../raw", "a/b", "/abs", ".volseg", "a\0"])
@pytest.mark.parametrize("where", [probabilities_path, labels_path, table_path, slices_path])
def test_a_name_that_means_another_place_is_refused(tmp_path, where, name):
    with pytest.raises(ParameterError, match="a name is that of one folder in the volume"):
        where(tmp_path, name)
    assert where(tmp_path, "a b-2").parent == where(tmp_path, "c").parent


def test_listing_labels_keeps_what_others_noted(tmp_path):
    write_group(tmp_path / "labels", {"ome": {"labels": ["theirs"], "more": 1}, "own": {"a": 2}})
    register_label(tmp_path, "m")
    ome = {"version": "0.5", "labels": ["m", "theirs"], "more": 1}
    assert read_attributes(tmp_path / "labels") == {"ome": ome, "own": {"a": 2}}


@pytest.mark.parametrize("where", [probabilities_path, table_path, slices_path])
def test_a_table_is_not_taken_for_that_of_slices(tmp_path, where):
    with pytest.raises(ParameterError, match="tables of slices end in; found 'a-slices'"):
        where(tmp_path, "a-slices")
    assert labels_path(tmp_path, "a-slices").name == "a-slices"


def test_labels_that_are_listed_at_once_are_all_listed(tmp_path):
    names = [f"n{k}" for k in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: register_label(tmp_path, name), names))
    assert listed_labels(tmp_path) == sorted(names)


def test_of_two_who_create_one_array_one_is_refused(tmp_path):
    def create(_):
        try:
            create_array(tmp_path / "deep" / "a", fit_spec((4, 8, 8), "uint8"))
        except ConflictError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1
