"""Images lie where what they are derived from lies, in the same units, at every level."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from volseg.errors import VolumeError
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import read_attributes
from volseg.storage.volumes import create_image, open_image

SHAPE = (64, 128, 128)
UM = ("micrometer",) * 3


def step(kind, values):
    return {"type": kind, kind: list(values)}


def write_image(path, dataset, multiscale=(), units=UM, rank=3, **more):
    group = zarr.open_group(path, mode="w", zarr_format=3)
    shape = (1,) * (rank - 3) + SHAPE
    group.create_array("0", shape=shape, chunks=shape, dtype="uint8")
    axes = [
        {"name": a, "type": "space"} | ({"unit": u} if u else {})
        for a, u in zip("zyx", units, strict=True)
    ]
    axes = [{"name": "tc"[k], "type": "time"} for k in range(rank - 3)] + axes
    described = {
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": list(dataset)}],
    }
    if multiscale:
        described["coordinateTransformations"] = list(multiscale)
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [described | more]}})
    return path


def derived_from(path):
    """Derive an image; return its units, its scale and, by level, the face of the first voxel."""
    create_image(
        path / "labels" / "a",
        fit_spec(SHAPE, "uint32"),
        open_image(path).space,
        label=True,
        attributes={},
    )
    (found,) = read_attributes(path / "labels" / "a")["ome"]["multiscales"]
    units = tuple(axis.get("unit") for axis in found["axes"])
    levels = [[t[t["type"]] for t in d["coordinateTransformations"]] for d in found["datasets"]]
    assert len(levels) > 1
    faces = [np.subtract(origin, np.divide(scale, 2)) for scale, origin in levels]
    return units, levels[0][0], faces


SCALE, ORIGIN = (0.03, 0.005, 0.005), (0.1, 0.2, 0.3)
BOTH = [step("scale", SCALE), step("translation", ORIGIN)]
HUNDREDFOLD = [step("scale", (3, 0.5, 0.5)), step("translation", (10, 20, 30))]


@pytest.mark.parametrize(
    ("dataset", "multiscale", "rank"),
    [
        (BOTH, [], 3),
        (BOTH[:1], BOTH[1:], 3),
        (HUNDREDFOLD, [step("scale", (0.01, 0.01, 0.01))], 3),
        ([step("scale", (1, 1, *SCALE)), step("translation", (0, 0, *ORIGIN))], [], 5),
        ([{"type": "sequence", "transformations": BOTH}], [], 3),
    ],
)
def test_what_is_derived_lies_where_the_image_lies(tmp_path, dataset, multiscale, rank):
    path = write_image(tmp_path / "v", dataset, multiscale, rank=rank)
    np.testing.assert_allclose(open_image(path).voxel_size, (30, 5, 5))
    units, scale, faces = derived_from(path)
    assert units == UM
    np.testing.assert_allclose(scale, (0.03, 0.005, 0.005))
    for face in faces:
        np.testing.assert_allclose(face, (0.1 - 0.015, 0.2 - 0.0025, 0.3 - 0.0025))


def test_without_units_scale_and_place_are_taken_over_and_no_size(tmp_path):
    steps = [step("scale", (30, 5, 5)), step("translation", (1, 2, 3))]
    path = write_image(tmp_path / "v", steps, units=(None,) * 3)
    assert open_image(path).voxel_size is None
    units, scale, faces = derived_from(path)
    assert units == (None,) * 3
    assert open_image(path / "labels" / "a").voxel_size is None
    np.testing.assert_allclose(scale, (30, 5, 5))
    np.testing.assert_allclose(faces, [(1 - 15, 2 - 2.5, 3 - 2.5)] * len(faces))


def test_what_turns_an_image_is_refused(tmp_path):
    path = write_image(tmp_path / "v", [{"type": "rotation", "rotation": [[1, 0], [0, 1]]}])
    with pytest.raises(VolumeError, match="of type 'rotation', expected scale and translation"):
        open_image(path)


def test_axes_of_coordinate_systems(tmp_path):
    """OME-Zarr 0.6 names its axes there."""
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    systems = [
        {"name": "pixels", "axes": [{"name": a} for a in "zyx"]},
        {"name": "there", "axes": axes},
    ]
    scale = {**step("scale", (30, 5, 5)), "input": "0", "output": "there"}
    path = write_image(tmp_path / "v", [scale], axes=None, coordinateSystems=systems)
    assert open_image(path).voxel_size == (30, 5, 5)


@pytest.mark.parametrize(
    ("origin", "taken"),
    [
        (None, True),
        ((0.1, 0.2, 0.3), True),  # of the first voxel's middle, as of those that are picked out
        ((0.115, 0.2025, 0.3025), True),  # of the middle of what is averaged
        ((0.1, 0.2, 0.32), False),
        ((0.0, 0.2, 0.3), False),
    ],
)
def test_a_level_that_lies_elsewhere_is_not_taken_for_the_same_place(tmp_path, origin, taken):
    path = write_image(tmp_path / "v", BOTH if origin else BOTH[:1])
    group = zarr.open_group(path)
    group.create_array("1", shape=(32, 64, 64), chunks=(32, 64, 64), dtype="uint8")
    described = group.attrs["ome"]
    steps = [step("scale", [2 * s for s in SCALE])]
    steps += [step("translation", origin)] if origin else []
    reduced = {"path": "1", "coordinateTransformations": steps}
    described["multiscales"][0]["datasets"].append(reduced)
    group.attrs["ome"] = described
    image = open_image(path)
    assert len(image.levels) == 1 + taken
    assert image.astray == ("1",) * (not taken)
    assert image.factors[1:] == ((2, 2, 2),) * taken
