"""DigitalMicrograph, NIfTI, NRRD, N5, precomputed: every voxel, its size, or a message.

The files are written byte by byte, as the specifications say, and where they are installed by the
formats' own libraries.
"""

from __future__ import annotations

import errno

import numpy as np
import pytest
import tifffile

from toy_formats import write_dm, write_n5, write_nifti, write_nrrd, write_precomputed
from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError, StorageError
from volseg.sources.labels import open_label_path
from volseg.sources.open import list_stacks, open_stack
from volseg.sources.stack import Selection
from volseg.sources.voxel_size import settle_voxel_size, tell_unitless
from volseg.storage.volumes import open_image

SHAPE = (9, 20, 17)


def size_of(path, **selection):
    stack = open_stack(path, **selection)
    stack.close()
    return settle_voxel_size(stack.stated, None)[0]


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "uint8"])
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("order", "<>")
def test_digital_micrograph(tmp_path, version, dtype, order):
    raw = make_stack(SHAPE, dtype)
    path = write_dm(tmp_path / f"a.dm{version}", raw, version, order=order)
    np.testing.assert_array_equal(read_pages(path), raw)
    assert size_of(path) == (30, 4, 5)


@pytest.mark.parametrize("version", [3, 4])
def test_digital_micrograph_as_ncempy_reads_it(tmp_path, version):
    ncempy = pytest.importorskip("ncempy.io.dm")
    raw = make_stack(SHAPE, "uint16")
    path = write_dm(tmp_path / f"a.dm{version}", raw, version)
    found = ncempy.dmReader(str(path))
    np.testing.assert_array_equal(read_pages(path), found["data"])
    assert size_of(path) == tuple(map(float, found["pixelSize"]))
    assert set(found["pixelUnit"]) == {"nm"}


@pytest.mark.parametrize("version", [3, 4])
def test_a_folder_of_slices_as_3view_writes_them(tmp_path, volseg, version):
    raw = make_stack(SHAPE, "uint16")
    (tmp_path / "a").mkdir()
    for k, plane in enumerate(raw):
        path = tmp_path / "a" / f"3view_{k:04}.dm{version}"
        write_dm(path, plane, version, unit="µm", sizes=(0.004, 0.005))
    done = volseg("convert", tmp_path / "a", tmp_path / "v.zarr")
    assert done.exit_code == 0, done.output
    assert "says only unknown,4,5 nm (z,y,x)" in done.stderr
    np.testing.assert_array_equal(open_image(tmp_path / "v.zarr").levels[0][:], raw)


def test_slices_are_not_left_out_beside_a_picture_of_another_kind(tmp_path):
    for k, plane in enumerate(make_stack(SHAPE)):
        write_dm(tmp_path / f"s{k}.dm3", plane, 3)
    tifffile.imwrite(tmp_path / "overview.tif", make_stack(SHAPE)[0])
    with pytest.raises(SourceError, match="mixes TIFF and DigitalMicrograph files: choose with a"):
        open_stack(tmp_path)
    assert open_stack(tmp_path / "*.dm3").shape == SHAPE


@pytest.mark.parametrize("bad", [3, 2.5, "x", None, [1], {}])
def test_damaged_sizes_of_n5_are_unknown(tmp_path, bad):
    for k, noted in enumerate(
        (
            {"pixelResolution": {"dimensions": bad, "unit": bad}},
            {"transform": {"axes": bad, "scale": bad, "units": bad}},
        )
    ):
        path = write_n5(tmp_path / str(k), make_stack(SHAPE), **noted)
        assert open_stack(path).stated == ()


@pytest.mark.parametrize("unit", ["", "1/nm", "s"])
def test_units_that_are_none_of_length_say_nothing(tmp_path, unit):
    path = write_dm(tmp_path / "a.dm3", make_stack(SHAPE), 3, unit=unit)
    assert open_stack(path).stated == ()


@pytest.mark.parametrize("at", [2, 20, 100, 400, -100])
def test_a_damaged_dm_file_is_named(tmp_path, at):
    path = write_dm(tmp_path / "a.dm4", make_stack(SHAPE), 4)
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(SourceError, match=r"a\.dm4 is (truncated or )?damaged"):
        read_pages(path)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "uint8"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("form", [{}, {"order": ">"}, {"second": True}])
def test_nifti(tmp_path, name, form, dtype):
    raw = make_stack(SHAPE, dtype)
    path = write_nifti(tmp_path / name, raw, **form)
    np.testing.assert_array_equal(read_pages(path), raw)
    assert size_of(path) == (30, 4, 5)


def test_nifti_that_scales_values(tmp_path):
    raw = make_stack(SHAPE, "int16")
    path = write_nifti(tmp_path / "a.nii", raw, slope=0.25, shift=-3)
    np.testing.assert_array_equal(read_pages(path), raw.astype("f4") / 4 - 3)
    assert "multiplied by 0.25, and -3 to be added" in open_stack(path).warnings[0]


def test_a_slope_that_is_no_number_scales_nothing(tmp_path):
    raw = make_stack(SHAPE, "int16")
    path = write_nifti(tmp_path / "a.nii", raw, slope=float("nan"), shift=float("nan"))
    np.testing.assert_array_equal(read_pages(path), raw)
    assert open_stack(path).warnings == ()


def test_nifti_of_several_times(tmp_path):
    raw = make_stack((3, *SHAPE), "int16")
    path = write_nifti(tmp_path / "a.nii", raw)
    np.testing.assert_array_equal(read_pages(path, time=2), raw[2])
    with pytest.raises(SourceError, match="time series of 3"):
        read_pages(path)


def test_nifti_of_millimetres_that_nobody_set(tmp_path):
    path = write_nifti(tmp_path / "a.nii", make_stack(SHAPE), (1000.0,) * 3, units=2)
    assert open_stack(path).stated == ()
    path = write_nifti(tmp_path / "b.nii", make_stack(SHAPE), units=0)
    assert open_stack(path).stated == ()
    told = tell_unitless(path, (0.03, 0.004, 0.005), "spacings")
    assert open_stack(path).warnings == (told,)
    path = write_nifti(tmp_path / "c.nii", make_stack(SHAPE), (1000.0,) * 3, units=0)
    assert open_stack(path).warnings == ()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.hdr"])
def test_nifti_by_its_own_library(tmp_path, name):
    nibabel = pytest.importorskip("nibabel")
    raw = make_stack(SHAPE, "int16")
    form = nibabel.Nifti1Pair if name == "a.hdr" else nibabel.Nifti1Image
    image = form(raw.T, np.diag([5e-3, 4e-3, 3e-2, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / name)
    np.testing.assert_array_equal(read_pages(tmp_path / name), raw)
    assert size_of(tmp_path / name) == pytest.approx((30, 4, 5))
    written = write_nifti(tmp_path / "own.nii", raw, slope=0.5, shift=1)
    loaded = nibabel.load(written)
    np.testing.assert_array_equal(loaded.get_fdata().T, read_pages(written))


@pytest.mark.parametrize("cut", [10, 350, 1000, -100])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_damaged_nifti_file_is_named(tmp_path, name, cut):
    path = write_nifti(tmp_path / name, make_stack(SHAPE))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"a\.nii.* is (truncated or )?damaged"):
        read_pages(path)


DIRECTIONS = ("space dimension: 3", "space directions: (5,0,0) (0,-4,0) (0,0,30)")
NM = 'space units: "nm" "nm" "nm"'


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ((*DIRECTIONS, NM), (30, 4, 5)),
        (("spacings: 0.005 0.004 0.03", 'units: "um" "um" "um"'), (30, 4, 5)),
        (("kinds: domain domain domain", "spacings: 5 4 30", 'units: "nm" "nm" "nm"'), (30, 4, 5)),
        (DIRECTIONS, None),
        (("spacings: 5 4 30",), None),
        ((), None),
    ],
)
@pytest.mark.parametrize("form", [{}, {"packed": True}, {"data": "a.raw"}])
def test_nrrd(tmp_path, lines, size, form):
    raw = make_stack(SHAPE, "uint16")
    path = write_nrrd(tmp_path / "a.nhdr", raw, *lines, **form)
    np.testing.assert_array_equal(read_pages(path), raw)
    assert size_of(path) == size
    told = open_stack(path).warnings
    assert bool(told) == bool(lines and size is None)
    assert all("give --voxel-size 30,4,5" in words for words in told)


@pytest.mark.parametrize("dtype", ["uint8", ">i2", ">f4"])
def test_nrrd_of_other_types(tmp_path, dtype):
    raw = make_stack(SHAPE, np.dtype(dtype).name).astype(dtype)
    np.testing.assert_array_equal(read_pages(write_nrrd(tmp_path / "a.nrrd", raw)), raw)


def test_nrrd_of_channels(tmp_path):
    raw = make_stack((*SHAPE, 2), "uint16")
    path = write_nrrd(tmp_path / "a.nrrd", raw, "kinds: list domain domain domain")
    np.testing.assert_array_equal(read_pages(path, 1), raw[..., 1])
    with pytest.raises(SourceError, match="2 channels"):
        read_pages(path)


def test_nrrd_by_its_own_library(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    raw = make_stack(SHAPE, "int16")
    header = {"space dimension": 3, "space directions": np.diag([5.0, 4.0, 30.0])}
    header |= {"space units": ["nm"] * 3, "encoding": "gzip"}
    nrrd.write(str(tmp_path / "a.nrrd"), raw.T, header)
    np.testing.assert_array_equal(read_pages(tmp_path / "a.nrrd"), raw)
    assert size_of(tmp_path / "a.nrrd") == (30, 4, 5)
    written = write_nrrd(tmp_path / "own.nrrd", raw, packed=True)
    np.testing.assert_array_equal(nrrd.read(str(written))[0].T, raw)


def test_nrrd_says_its_order_of_bytes_in_any_letters_or_is_refused(tmp_path):
    raw = make_stack(SHAPE, "uint16").astype(">u2")
    path = write_nrrd(tmp_path / "a.nrrd", raw)
    written = path.read_bytes()
    path.write_bytes(written.replace(b"endian: big", b"endian: BIG"))
    np.testing.assert_array_equal(read_pages(path), raw)
    for other in (b"# none", b"endian: middle"):
        path.write_bytes(written.replace(b"endian: big", other))
        with pytest.raises(SourceError, match="does not say of which type, order of bytes"):
            read_pages(path)


@pytest.mark.parametrize("damage", ["encoding: bzip2", "sizes: 1 2", "type: block", "data file: b"])
def test_nrrd_of_a_form_that_is_not_read_is_named(tmp_path, damage):
    with pytest.raises(SourceError, match=r"a\.nrrd (is|names)"):
        read_pages(write_nrrd(tmp_path / "a.nrrd", make_stack(SHAPE), damage))


N5_SIZES = {
    "pixelResolution": ({"unit": "nm", "dimensions": [5, 4, 30]}, (30, 4, 5)),
    "transform": ({"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": [30, 4, 5]}, (30, 4, 5)),
    "resolution": ([5, 4, 30], None),
    "nothing": (0, None),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", N5_SIZES)
def test_n5(tmp_path, name, compress, dtype):
    raw, (noted, size) = make_stack(SHAPE, dtype), N5_SIZES[name]
    path = write_n5(tmp_path / "a.n5" / "raw" / "s0", raw, compress=compress, **{name: noted})
    np.testing.assert_array_equal(read_pages(path), raw)
    assert size_of(path) == size
    (path.parent / "attributes.json").write_text("{}")
    np.testing.assert_array_equal(read_pages(path.parent), raw)
    assert any("--voxel-size 30,4,5" in w for w in open_stack(path).warnings) == (
        name == "resolution"
    )


@pytest.mark.parametrize(("factors", "size"), [([2, 2, 1], (30, 8, 10)), (["a", 2, 1], None)])
def test_a_level_of_n5_has_larger_voxels(tmp_path, factors, size):
    noted = {"pixelResolution": {"unit": "nm", "dimensions": [5, 4, 30]}}
    path = write_n5(tmp_path / "s1", make_stack(SHAPE), downsamplingFactors=factors, **noted)
    assert size_of(path) == size


def test_a_container_of_n5_lists_its_datasets(tmp_path):
    write_n5(tmp_path / "a.n5" / "b" / "raw", make_stack(SHAPE))
    (tmp_path / "a.n5" / "attributes.json").write_text('{"n5": "2.0.0"}')
    with pytest.raises(SourceError, match=r"is a group of N5; name a dataset in it: .*b/raw"):
        open_stack(tmp_path / "a.n5")


@pytest.mark.parametrize("write", [write_n5, write_precomputed])
def test_blocks_that_are_not_there_are_0_and_counted(tmp_path, volseg, write):
    raw = make_stack(SHAPE) | 1
    path = write(tmp_path / "a", raw)
    assert open_stack(path).warnings == ()
    blocks = [
        p for p in path.rglob("*") if p.is_file() and p.suffix != ".json" and p.name != "info"
    ]
    blocks[3].unlink()
    assert f"1 of {len(blocks)} blocks" in open_stack(path).warnings[0]
    assert (read_pages(path) == 0).any()
    done = volseg("info", path)
    assert (done.exit_code, f"volseg convert {path} {path}.zarr" in done.stderr) == (2, True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_precomputed(tmp_path, volseg, dtype):
    raw = make_stack(SHAPE, dtype)
    path = write_precomputed(tmp_path / "a", raw, (100, 50, 20))
    np.testing.assert_array_equal(read_pages(path), raw)
    assert size_of(path) == (30, 4, 5)
    assert list_stacks(str(path)).places == (str(path),)
    done = volseg("convert", path, tmp_path / "v.zarr")
    assert done.exit_code == 0, done.output
    image = open_image(tmp_path / "v.zarr")
    np.testing.assert_array_equal(image.levels[0][:], raw)
    assert image.space.origin == (600, 200, 500)


@pytest.mark.parametrize("form", ["n5", "precomputed", "nrrd", "nii"])
def test_labels_of_every_form(tmp_path, form):
    labels, path = make_stack(SHAPE, "uint16"), tmp_path / f"a.{form}"
    writers = {"n5": write_n5, "precomputed": write_precomputed, "nrrd": write_nrrd}
    writers.get(form, write_nifti)(path, labels)
    source = open_label_path(path)
    np.testing.assert_array_equal(source[2:5, 3:9, 0:17], labels[2:5, 3:9])


@pytest.mark.parametrize("write", [write_n5, write_precomputed])
def test_without_the_extra_it_is_named(tmp_path, monkeypatch, write):
    path = write(tmp_path / "a", make_stack(SHAPE))
    monkeypatch.setattr("volseg.sources.readers.find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"tensorstore: pip install 'volseg\[formats\]'"):
        open_stack(path)


@pytest.mark.parametrize("write", [write_n5, write_precomputed])
def test_damaged_descriptions_of_blocks_are_named(tmp_path, write):
    path = write(tmp_path / "a", make_stack(SHAPE))
    file = next(p for p in path.iterdir() if p.is_file())
    content = file.read_text()
    changed = [content[:-9], content.replace("uint8", "x"), content.replace("8", "-8")]
    for bad in ("", "[]", "{}", *changed):
        file.write_text(bad)
        with pytest.raises(SourceError, match=r"a/?.* (is|are)"):
            open_stack(path)


def test_pixel_sizes_of_digital_micrograph_in_tiff(tmp_path):
    raw = make_stack(SHAPE, "uint16")
    tags = [(code, 2, 3, "nm", True) for code in (65003, 65004, 65005)]
    scales = {65009: 5.0, 65010: 4.0, 65011: 30.0}
    tags += [(code, 12, 1, size, True) for code, size in scales.items()]
    tifffile.imwrite(
        tmp_path / "a.tif", raw, extratags=tags, metadata=None, photometric="minisblack"
    )
    assert size_of(tmp_path / "a.tif") == (30, 4, 5)


@pytest.mark.parametrize("write", [write_n5, write_precomputed, write_nifti])
def test_sizes_go_with_axes_that_the_user_names(tmp_path, write):
    raw = make_stack(SHAPE, "uint16")
    noted = {"pixelResolution": {"unit": "nm", "dimensions": [5, 4, 30]}}
    path = write(tmp_path / "a.nii", raw, **(noted if write is write_n5 else {}))
    # x is the first axis of N5 and precomputed, and the last in memory of NIfTI
    named = {write_nifti: "XYZ", write_n5: "ZYX", write_precomputed: "ZYXC"}
    chosen = Selection(axes=named[write])
    np.testing.assert_array_equal(read_pages(path, axes=chosen.axes), raw.T)
    assert size_of(path, selection=chosen) == (5, 4, 30)


def test_no_room_to_unpack_is_said(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", make_stack(SHAPE))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("volseg.sources.formats.mapped._unpack", full)
    with pytest.raises(StorageError, match=r"a\.nii\.gz needs \d+ bytes in .*set TMPDIR"):
        read_pages(path)
