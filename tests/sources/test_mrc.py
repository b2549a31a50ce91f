"""MRC volumes: voxels, bytes of both kinds, and size, or a message."""

from __future__ import annotations

import sys

import mrcfile
import numpy as np
import pytest

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError
from volseg.sources.open import open_stack
from volseg.sources.voxel_size import settle_voxel_size


def write(path, raw, size=(40.0, 40.0, 300.0), **header):
    """Write a volume of voxels of so many angstrom (x, y, z)."""
    with mrcfile.new(path, data=raw, overwrite=True) as made:
        made.voxel_size = size
        for name, value in header.items():
            made.header[name] = value
    return path


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize("suffix", [".mrc", ".rec", ".st"])
def test_volumes_with_their_size(tmp_path, dtype, suffix):
    raw = make_stack((6, 9, 11), dtype)
    path = write(tmp_path / f"a{suffix}", raw)
    np.testing.assert_array_equal(read_pages(path), raw)
    assert settle_voxel_size(open_stack(path).stated, None)[:2] == ((30, 4, 4), "its MRC header")


def test_signed_bytes_are_moved_and_it_is_told(tmp_path):
    raw = make_stack((6, 9, 11), "int8")
    path = write(tmp_path / "a.mrc", raw)
    np.testing.assert_array_equal(read_pages(path), (raw.astype(int) + 128).astype(np.uint8))
    assert "128 is added" in open_stack(path).warnings[0]
    np.testing.assert_array_equal(read_pages(path).argsort(axis=None), raw.argsort(axis=None))


def test_bytes_that_imod_says_are_unsigned(tmp_path):
    raw = make_stack((6, 9, 11))
    stamp = np.zeros(84, np.uint8)
    stamp[40:48] = np.array([1146047817, 0], "<i4").view(np.uint8)
    path = write(tmp_path / "a.mrc", raw.view(np.int8), extra2=stamp.tobytes())
    np.testing.assert_array_equal(read_pages(path), raw)
    assert open_stack(path).warnings == ()


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0)])
def test_a_size_that_nobody_set_is_unknown(tmp_path, size):
    path = write(tmp_path / "a.mrc", make_stack((6, 9, 11), "int16"), size)
    assert open_stack(path).stated == ()


def test_axes_of_another_order_are_refused(tmp_path):
    path = write(tmp_path / "a.mrc", make_stack((6, 9, 11), "int16"), mapc=3, maps=1)
    with pytest.raises(SourceError, match="axes are"):
        read_pages(path)


def test_a_truncated_volume_is_named(tmp_path):
    path = write(tmp_path / "a.mrc", make_stack((6, 9, 11), "int16"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SourceError, match=r"a\.mrc is (truncated or )?damaged"):
        read_pages(path)
    path.write_bytes(b"short")
    with pytest.raises(SourceError, match=r"a\.mrc is (truncated or )?damaged"):
        read_pages(path)


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mrc", make_stack((6, 9, 11), "int16"))
    monkeypatch.setitem(sys.modules, "mrcfile", None)
    with pytest.raises(SourceError, match=r"pip install 'volseg\[formats\]'"):
        read_pages(path)
