"""Sets of OME-TIFF files: the whole image, from whichever file it is begun."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection
from volseg.sources.voxel_size import settle_voxel_size

RAW = make_stack((2, 3, 4, 9, 11), "uint16")  # t, c, z, y, x
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def name_of(t, c, per="tc"):
    return f"set_T{t}_C{c}.ome.tif" if per == "tc" else f"set_T{t}.ome.tif"


def describe(parts, uuid, order="XYZCT"):
    """Describe the set as Bio-Formats does: every plane by itself, with its file."""
    planes = "".join(
        f'<TiffData FirstT="{t}" FirstC="{c}" FirstZ="{z}" IFD="{ifd}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
        for (t, c, z), (name, ifd) in parts.items()
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(3))
    sizes = 'SizeT="2" SizeC="3" SizeZ="4" SizeY="9" SizeX="11"'
    physical = " ".join(
        f'PhysicalSize{axis}="{size}" PhysicalSize{axis}Unit="nm"'
        for axis, size in {"X": 5, "Y": 4, "Z": 30}.items()
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}" UUID="urn:uuid:{uuid}">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint16" {sizes} '
        f"{physical}>{channels}{planes}</Pixels></Image></OME>"
    )


def write(folder, *, master=None, backwards=False):
    """Write a file for each time and channel; in `master`, if there is one, what describes all."""
    parts = {
        (t, c, z): (name_of(t, c), 3 - z if backwards else z)
        for t in range(2)
        for c in range(3)
        for z in range(4)
    }
    for t in range(2):
        for c in range(3):
            name = name_of(t, c)
            xml = describe(parts, name)
            if master is not None and name != master:
                refers = f'<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:{master}"/>'
                xml = f'<OME xmlns="{OME}" UUID="urn:uuid:{name}">{refers}</OME>'
            planes = RAW[t, c, ::-1] if backwards else RAW[t, c]
            tifffile.imwrite(
                folder / name, planes, description=xml, metadata=None, photometric="minisblack"
            )
    if master is not None and master.endswith(".companion.ome"):
        (folder / master).write_text(describe(parts, master))
    return folder


@pytest.mark.parametrize("begun", [(0, 0), (1, 2)])
@pytest.mark.parametrize("form", [{}, {"backwards": True}])
def test_the_set_is_read_from_any_of_its_files(tmp_path, begun, form):
    path = write(tmp_path, **form) / name_of(*begun)
    expected = tifffile.imread(path)  # which reads sets, too
    np.testing.assert_array_equal(expected, RAW)
    np.testing.assert_array_equal(read_pages(path, 1, time=1), RAW[1, 1])
    np.testing.assert_array_equal(read_pages(path, 2, time=0), RAW[0, 2])
    with pytest.raises(SourceError, match="choose with --time 0 to 1"):
        open_stack(path)


def test_a_folder_of_a_set_is_the_set(tmp_path, volseg):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set")
    np.testing.assert_array_equal(read_pages(tmp_path / "set", 1, time=1), RAW[1, 1])
    done = volseg("convert", tmp_path / "set", tmp_path / "v.zarr", "--channel", 1, "--time", 1)
    assert done.exit_code == 0, done.output
    assert "voxels of 30 x 4 x 5 nm" in done.output


@pytest.mark.parametrize("master", [name_of(0, 0), "set.companion.ome"])
@pytest.mark.parametrize("begun", [(0, 0), (1, 1)])
def test_a_set_that_one_file_describes(tmp_path, master, begun):
    path = write(tmp_path, master=master) / name_of(*begun)
    np.testing.assert_array_equal(read_pages(path, 1, time=1), RAW[1, 1])
    stack = open_stack(path, Selection(1, 1))
    assert settle_voxel_size(stack.stated, None)[0] == (30, 4, 5)
    (tmp_path / master).rename(tmp_path / "elsewhere")
    path = tmp_path / name_of(1, 0)
    with pytest.raises(SourceError, match="is missing: put it"):
        open_stack(path, Selection(1, 1))


def test_a_missing_file_is_named(tmp_path):
    path = write(tmp_path) / name_of(0, 0)
    (tmp_path / name_of(1, 1)).unlink()
    with pytest.raises(SourceError, match=r"part of a set of files, of which set_T1_C1\.ome\.tif"):
        open_stack(path)


def test_a_file_with_fewer_pages_than_are_said_is_named(tmp_path):
    path = write(tmp_path) / name_of(0, 0)
    tifffile.imwrite(tmp_path / name_of(1, 1), RAW[1, 1, :2], photometric="minisblack")
    with pytest.raises(SourceError, match=r"set_T1_C1\.ome\.tif describes [34] planes but holds 2"):
        open_stack(path)


def test_a_file_of_its_own_may_be_renamed(tmp_path):
    parts = {
        (t, c, z): ("old.ome.tif", 12 * t + 4 * c + z)
        for t in range(2)
        for c in range(3)
        for z in range(4)
    }
    for uuid in ("old.ome.tif", "another"):
        tifffile.imwrite(
            tmp_path / "new.ome.tif",
            RAW,
            description=describe(parts, uuid),
            metadata=None,
            photometric="minisblack",
        )
        np.testing.assert_array_equal(read_pages(tmp_path / "new.ome.tif", 2, time=1), RAW[1, 2])
