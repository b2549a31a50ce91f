"""HDF5 datasets: voxels of any layout, size and axes, or a message."""

from __future__ import annotations

import json
import sys

import h5py
import numpy as np
import pytest

from toy_stacks import make_stack, read_pages
from volseg.api.whole import plan_jobs
from volseg.errors import SourceError
from volseg.sources.labels import LABEL_TYPES, open_label_path
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection
from volseg.sources.voxel_size import settle_voxel_size
from volseg.storage.locations import parse_location
from volseg.storage.volumes import open_image

RAW = make_stack((9, 70, 33))
SIZE = (0.03, 0.004, 0.005)
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (4, 16, 16), "compression": "gzip", "shuffle": True},
    "slices": {"chunks": (1, 70, 33), "fletcher32": True},
}


def write(path, raw=RAW, name="volumes/raw", attributes=None, **form):
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=raw, **form).attrs.update(attributes or {})
    return path


def look(source, **selection):
    stack = open_stack(source, Selection(**selection))
    stack.close()
    return stack


@pytest.mark.parametrize("form", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float32"])
def test_voxels_of_any_layout(tmp_path, dtype, form):
    raw = make_stack((9, 70, 33), np.dtype(dtype).name)
    path = write(tmp_path / "a.h5", raw.astype(dtype), **form)
    for source in (path, f"{path}:/volumes/raw", f"{path}:volumes/raw", f"{path}:/volumes"):
        np.testing.assert_array_equal(read_pages(source), raw)


@pytest.mark.parametrize("form", LAYOUTS.values(), ids=list(LAYOUTS))
def test_convert_reads_slabs_and_the_size(tmp_path, volseg, form):
    raw = make_stack((130, 70, 33))
    form = {k: v for k, v in form.items() if k != "chunks"} | {"chunks": form.get("chunks")}
    path = write(tmp_path / "a.h5", raw, attributes={"element_size_um": SIZE}, **form)
    done = volseg("convert", f"{path}:/volumes/raw", tmp_path / "v.zarr", "--json")
    assert done.exit_code == 0, done.output
    image = open_image(tmp_path / "v.zarr")
    np.testing.assert_array_equal(image.levels[0][:], raw)
    assert image.voxel_size == (30, 4, 5)
    assert image.attributes["voxel_size_from"] == "its element_size_um"
    assert image.attributes["source"]["dataset"] == "/volumes/raw"


def test_a_file_of_several_lists_them(tmp_path, volseg):
    path = write(tmp_path / "a.h5")
    write(path, RAW.astype("u2"), "volumes/labels")
    write(path, RAW[0], "plane")
    done = volseg("convert", path, tmp_path / "v.zarr")
    assert done.exit_code == 2
    assert "/volumes/raw 9 x 70 x 33 uint8" in done.stderr
    assert f"name one after a colon, as in {path}:/volumes/labels" in done.stderr
    assert "plane" not in done.stderr
    with pytest.raises(SourceError, match=r"has no /nothing; it holds 2 dataset"):
        look(f"{path}:/nothing")
    with pytest.raises(SourceError, match="does not say which axes"):
        look(f"{path}:/plane")


@pytest.mark.parametrize("axes", ["XYZ", "ZCYX", "TZYXC", "CZYX"])
@pytest.mark.parametrize("form", [{}, {"chunks": True}])
@pytest.mark.parametrize("said", ["vigra", "labels", "user"])
def test_axes_are_those_that_are_said(tmp_path, axes, form, said):
    whole = np.stack([RAW, 255 - RAW])[None]
    kept = [a for a in "TCZYX" if a in axes]
    raw = whole[tuple(slice(None) if a in kept else 0 for a in "TCZYX")]
    raw = raw.transpose([kept.index(a) for a in axes])
    tags = json.dumps({"axes": [{"key": a.lower(), "resolution": 0} for a in axes]})
    path = write(tmp_path / "a.h5", raw, attributes={"axistags": tags} if said == "vigra" else {})
    if said == "labels":
        with h5py.File(path, "a") as file:
            for dimension, axis in zip(file["volumes/raw"].dims, axes, strict=True):
                dimension.label = axis.lower()
    given = {"axes": axes} if said == "user" else {}
    if "C" not in axes:
        np.testing.assert_array_equal(read_pages(path, **given), RAW)
        return
    np.testing.assert_array_equal(read_pages(path, 1, **given), 255 - RAW)
    with pytest.raises(SourceError, match="2 channels"):
        look(path, **given)


def test_axes_of_length_one_need_no_name(tmp_path):
    write(tmp_path / "a.h5", RAW[None, None])
    write(tmp_path / "b.h5", RAW[..., None])
    for name in ("a.h5", "b.h5"):
        np.testing.assert_array_equal(read_pages(tmp_path / name), RAW)
    path = write(tmp_path / "c.h5", np.stack([RAW, RAW]))
    with pytest.raises(SourceError, match="say so with --axes"):
        look(path)
    with pytest.raises(SourceError, match="time series of 2"):
        look(path, axes="TZYX")
    with pytest.raises(SourceError, match="name each by one of"):
        look(path, axes="ZZYX")
    with pytest.raises(SourceError, match="--series is 1"):
        look(path, axes="CZYX", channel=0, series=1)


def test_labels_whose_axes_nobody_names_are_told_what_helps(tmp_path):
    path = write(tmp_path / "a.h5", np.stack([RAW] * 3, -1))
    with pytest.raises(SourceError, match=r"\(z, y, x\): name theirs with --axes, or save them as"):
        open_label_path(path)


def test_imaris_pads_what_it_stores(tmp_path):
    path, name = tmp_path / "a.ims", "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"
    write(path, np.pad(RAW, ((0, 7), (0, 58), (0, 31))), name, chunks=(8, 64, 64))
    with h5py.File(path, "a") as file:
        for axis, n in zip("ZYX", RAW.shape, strict=True):
            letters = np.array(list(str(n).encode()), "u1").view("S1")
            file[name].parent.attrs[f"ImageSize{axis}"] = letters
        stated = file.create_group("DataSetInfo/Image").attrs
        for k, n in enumerate(RAW.shape[::-1]):
            stated[f"ExtMin{k}"] = np.array([b"0"], "S1")
            length = f"{n * SIZE[2 - k]:.6f}"
            stated[f"ExtMax{k}"] = np.array([c.encode() for c in length], "S1")
        stated["Unit"] = np.array([b"u", b"m"], "S1")
    np.testing.assert_array_equal(read_pages(path), RAW)
    assert settle_voxel_size(look(path).stated, None)[0] == pytest.approx((30, 4, 5))


def test_bigdataviewer_stores_uint16_as_int16(tmp_path):
    raw = make_stack((9, 70, 33), "uint16")
    path = write(tmp_path / "a.h5", raw.view("i2"), "t00000/s00/0/cells", chunks=(4, 16, 16))
    np.testing.assert_array_equal(read_pages(path), raw)
    assert "is read as uint16" in look(path).warnings[0]


@pytest.mark.parametrize(("level", "size"), [(0, (30, 4, 5)), (1, (30, 8, 10))])
def test_the_size_of_bigdataviewer_stands_in_its_xml(tmp_path, level, size):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file[f"t00000/s03/{level}/cells"] = RAW.astype("i2")
        file["s03/resolutions"] = np.array([[1, 1, 1], [2, 2, 1]], float)
    setups = "".join(
        f"<ViewSetup><id>{k}</id><voxelSize><unit>{unit}</unit><size>{sizes}</size></voxelSize>"
        f"</ViewSetup>"
        for k, unit, sizes in ((0, "nm", "1.0 2.0 3.0"), (3, "micron", "0.005 0.004 0.03"))
    )
    xml = f"<SpimData><SequenceDescription><ViewSetups>{setups}</ViewSetups></SequenceDescription>"
    assert look(path).stated == ()
    (tmp_path / "a.xml").write_text(f"{xml}</SpimData>")
    assert settle_voxel_size(look(path).stated, None)[0] == size
    (tmp_path / "a.xml").write_text(xml)
    assert look(path).stated == ()


def test_one_time_of_a_dataset_is_chosen(tmp_path):
    path = write(tmp_path / "a.h5", np.stack([RAW, RAW + 1, RAW + 2]))
    np.testing.assert_array_equal(read_pages(path, axes="TZYX", time=2), RAW + 2)
    with pytest.raises(SourceError, match="time series of 3"):
        read_pages(path, axes="TZYX")


def test_a_resolution_without_unit_is_told_and_not_taken(tmp_path):
    path = write(tmp_path / "a.h5", attributes={"resolution": (40.0, 4.0, 4.0)})
    stack = look(path)
    assert stack.stated == ()
    assert "--voxel-size 40,4,4" in stack.warnings[0]


def test_what_was_never_written_is_told(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("raw", RAW.shape, "u1", chunks=(4, 70, 33))
        made[:4] = RAW[:4]
        file.create_dataset("none", RAW.shape, "u1")
        layout = h5py.VirtualLayout(RAW.shape, "u1")
        layout[:] = h5py.VirtualSource("gone.h5", "raw", RAW.shape)
        file.create_virtual_dataset("virtual", layout)
    assert "2 of 3 chunks" in look(f"{path}:raw").warnings[0]
    with pytest.raises(SourceError, match="never written"):
        look(f"{path}:none")
    with pytest.raises(SourceError, match=r"gone\.h5 is missing"):
        look(f"{path}:virtual")


@pytest.mark.parametrize("form", LAYOUTS.values(), ids=list(LAYOUTS))
def test_a_damaged_file_is_named_without_traceback(tmp_path, volseg, form):
    path = write(tmp_path / "a.h5", **form)
    sound = path.read_bytes()
    cuts = [sound[:size] for size in (0, 20, len(sound) // 2, len(sound) - 50)]
    odd = [b"no HDF5 file", sound[:600] + bytes(400) + sound[1000:]]
    for content in cuts + odd:
        path.write_bytes(content)
        done = volseg("convert", f"{path}:/volumes/raw", tmp_path / "v.zarr")
        assert done.exit_code == 2, done.output
        assert "a.h5" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "v.zarr").exists()


def test_a_damaged_chunk_is_named(tmp_path, volseg):
    path = write(tmp_path / "a.h5", **LAYOUTS["slices"])
    with h5py.File(path) as file:
        at = file["volumes/raw"].id.get_chunk_info(5).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 10] ^= 255
    path.write_bytes(content)
    done = volseg("convert", path, tmp_path / "v.zarr")
    assert done.exit_code == 2
    assert "is damaged or truncated at z 5" in done.stderr


def test_files_are_told_by_their_first_bytes(tmp_path):
    path = write(tmp_path / "a.data")
    np.testing.assert_array_equal(read_pages(f"{path}:/volumes/raw"), RAW)
    (tmp_path / "a.tif").write_bytes(b"none")
    with pytest.raises(SourceError, match="is no HDF5 file"):
        look(f"{tmp_path / 'a.tif'}:/raw")


@pytest.mark.parametrize("dtype", ["bool", "uint64", "int8", "float32"])
def test_labels_of_any_type(tmp_path, dtype):
    labels = (RAW % 5).astype(dtype)
    path = write(tmp_path / "a.h5", labels, **LAYOUTS["chunked"])
    found = open_label_path(parse_location(f"{path}:/volumes/raw"))
    box = (slice(2, 7), slice(10, 50), slice(3, 20))
    np.testing.assert_array_equal(found[box], labels[box])
    assert open_stack(path, types=LABEL_TYPES).dtype == dtype


def test_run_writes_beside_the_file(tmp_path):
    path = write(tmp_path / "a.h5")
    (job,), _ = plan_jobs(f"{path}:/volumes/raw", None, {}, print)
    assert (job.source, job.volume) == (f"{path}:/volumes/raw", tmp_path / "a.zarr")


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SourceError, match=r"pip install 'volseg\[formats\]'"):
        look(path)
