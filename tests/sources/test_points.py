"""Points of CSV files: in voxels, in nm, and as napari saves them."""

from __future__ import annotations

import json

import pytest

from volseg.errors import ParameterError, SourceError
from volseg.sources.annotations import read_annotations
from volseg.sources.points import read_points

SIZE = (50.0, 5.0, 4.0)
NAPARI = "index,axis-0,axis-1,axis-2\n0.0,3.0,40.4,7.6\n1.0,0.0,1.0,2.0\n"
"""As napari 0.5 saves a layer of points."""


@pytest.mark.parametrize(
    ("text", "yes", "expected"),
    [
        ("z,y,x,mark\n3,40,8,yes\n0,1,2,no\n", None, [True, False]),
        ("\ufeffY, X, Z, yes\n40,8,3,1\n1,2,0,0\n", None, [True, False]),
        ("z_nm,y_nm,x_nm,label\n151,199,31,mitochondrion\n0,5,8,None\n", None, [True, False]),
        (NAPARI, False, [False, False]),
        (NAPARI, True, [True, True]),
        ("index,axis-0,axis-1,axis-2,axis-3\n0,5,3,40.4,7.6\n1,5,0,1,2\n", True, [True, True]),
        (NAPARI.replace("axis-2\n", "axis-2,kind\n").replace("7.6\n", "7.6,no\n")[:-1] + ",yes\n",
         None, [False, True]),
    ],
)  # fmt: skip
def test_points_are_read_in_voxels(tmp_path, text, yes, expected):
    path = tmp_path / "clicks.csv"
    path.write_text(text, encoding="utf-8")
    points = read_points(path, yes, SIZE)
    assert [p.place for p in points] == [(3, 40, 8), (0, 1, 2)]
    assert [p.yes for p in points] == expected
    assert points[1].name == "clicks.csv, line 3"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a,b\n1,2\n", SourceError, "has the columns a, b; points have z,y,x"),
        ("", SourceError, "has the columns none"),
        ("z,y,x,mark\n", SourceError, "holds no points"),
        ("z,y,x,mark\n1,2,3,perhaps\n", SourceError, "line 2: mark is 'perhaps', expected yes"),
        ("z,y,x,mark\n1,two,3,yes\n", SourceError, "line 2: 1, two, 3 are no coordinates"),
        ("z,y,x,mark\n1,nan,3,yes\n", SourceError, "are no coordinates"),
        ("z,y,x,mark\n1,2\n", SourceError, "are no coordinates"),
        (NAPARI, ParameterError, "has no column 'mark' of yes and no"),
        ("z_nm,y_nm,x_nm,mark\n1,2,3,no\n", ParameterError, "is in nm and the voxel size is unk"),
    ],
)
def test_what_is_no_list_of_points_is_refused(tmp_path, text, error, message):
    path = tmp_path / "clicks.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_points(path, None, None)


def test_a_column_neither_contradicts_what_is_said_of_all_points_nor_is_needed(tmp_path):
    """Layers of napari have columns of the same names that mean something else."""
    path = tmp_path / "clicks.csv"
    path.write_text("z,y,x,label\n3,40,8,lysosome\n0,1,2,no\n", encoding="utf-8")
    assert [p.yes for p in read_points(path, False, None)] == [False, False]
    with pytest.raises(ParameterError, match="line 3: label is 'no', and --points yes=FILE calls"):
        read_points(path, True, None)
    with pytest.raises(SourceError, match="line 2: label is 'lysosome', expected yes or no"):
        read_points(path, None, None)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="cannot read points of"):
        read_points(tmp_path / "none.csv", None, None)


def state(layers, unit="m"):
    sides = (4e-9, 5e-9, 5e-8) if unit else (1, 1, 1)
    dimensions = {axis: [side, unit] for axis, side in zip("xyz", sides, strict=True)}
    return {"dimensions": dimensions, "layers": [{"type": "image", "name": "raw"}, *layers]}


def layer(name, *points, **more):
    listed = [{"type": "point", "id": str(k), **p} for k, p in enumerate(points)]
    return {"type": "annotation", "name": name, "annotations": listed, **more}


@pytest.mark.parametrize("unit", ["m", ""])
def test_points_of_neuroglancer_are_read_in_voxels(tmp_path, unit):
    path = tmp_path / "state.json"
    first = {"point": [8.9, 40.2, 3.0]}
    second = {"point": [2, 1, 0], "description": "Yes"}
    box = {"type": "axis_aligned_bounding_box", "pointA": [0, 0, 0], "pointB": [9, 9, 9]}
    path.write_text(json.dumps(state([layer("no", first, box | {"id": "b"}, second)], unit)))
    points = read_annotations(path, None, SIZE if unit else None)
    assert [(p.place, p.yes) for p in points] == [((3, 40, 8), False), ((0, 1, 2), True)]
    assert points[0].name == "state.json, layer no, point 1"
    # a layer may have axes of its own, in another order
    own = {
        "transform": {"outputDimensions": {"z": [1e-7, "m"], "y": [5e-9, "m"], "x": [4e-9, "m"]}}
    }
    path.write_text(json.dumps(state([layer("clicks", {"point": [2, 7, 6]}, source=own)])))
    (point,) = read_annotations(path, True, SIZE)
    assert (point.place, point.yes) == ((4, 7, 6), True)


@pytest.mark.parametrize(
    ("source", "corner"),
    [
        ("zarr3://https://host/vol.zarr", (1.5, 9.5, -0.5)),
        ("zarr://s3://bucket/vol.zarr/labels/mitochondria", (1.5, 9.5, -0.5)),
        ({"url": "https://host/vol.zarr/|zarr3:"}, (1.5, 9.5, -0.5)),
        (["python://volume/abc", "file:///here/vol.zarr/|zarr:"], (1.5, 9.5, -0.5)),
        ("python://volume/abc", (0, 0, 0)),
        ("zarr://https://host/vol.zarr/0/", (0, 0, 0)),
        ("https://host/vol.zarr/0|zarr3:", (0, 0, 0)),
        ("precomputed://https://host/vol", (0, 0, 0)),
    ],
)
def test_points_in_a_volume_that_neuroglancer_reads_itself_count_from_its_origin(
    tmp_path, source, corner
):
    path, shown = tmp_path / "state.json", {"type": "image", "name": "raw", "source": source}
    for inside in (0.01, 0.5, 0.99):
        z, y, x = (a + b + inside for a, b in zip((3, 40, 8), corner, strict=True))
        content = state([layer("no", {"point": [x, y, z]})])
        content["layers"][0] = shown
        path.write_text(json.dumps(content))
        (point,) = read_annotations(path, None, SIZE, (1.5, 9.5, -0.5))
        assert point.place == (3, 40, 8)


@pytest.mark.parametrize(
    ("content", "size", "error", "message"),
    [
        (state([]), SIZE, SourceError, "holds no points in layers of annotations"),
        ({"delete": [3]}, SIZE, SourceError, "no state of Neuroglancer"),
        (state([layer("a", {"point": [1, 2]})]), SIZE, ParameterError, "neither yes nor no"),
        (state([layer("no", {"point": [1, 2]})]), SIZE, SourceError, "no state of Neuroglancer"),
        (state([layer("no", {"point": [1, 2, 3]})]), None, ParameterError, "size is unknown"),
    ],
)
def test_what_is_no_state_with_points_is_refused(tmp_path, content, size, error, message):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        read_annotations(path, None, size)


def test_a_state_that_is_no_text_is_told_of_in_own_words(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(SourceError, match=r"of .*state\.json: No such file or directory$"):
        read_annotations(path, None, SIZE)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match=r"of .*state\.json: it is no text in UTF-8$"):
        read_annotations(path, None, SIZE)
