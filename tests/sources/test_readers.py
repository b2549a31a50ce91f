"""The table of readers: kinds are known by their bytes, and the documents say what is read."""

from __future__ import annotations

import os
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np
import pytest
import tifffile

from toy_stacks import make_stack, read_pages
from volseg.errors import SourceError
from volseg.sources.formats.foreign import FOREIGN
from volseg.sources.open import open_stack
from volseg.sources.readers import READERS, table_of_formats

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- begin of the table of readers -->\n", "<!-- end of the table of readers -->\n"


def test_the_documents_show_the_table():
    """With VOLSEG_WRITE_DOCS=1 it is written."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    expected = table_of_formats() + "\n"
    if os.environ.get("VOLSEG_WRITE_DOCS"):
        DOCUMENT.write_text(f"{before}{BEGIN}{expected}{END}{after}")
    assert os.environ.get("VOLSEG_WRITE_DOCS") or shown == expected


def test_each_reader_says_what_it_reads():
    suffixes = [suffix for reader in READERS for suffix in reader.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for reader in READERS:
        assert all(form.count("|") == 2 for form in reader.forms.strip().split("\n\n"))


@pytest.mark.parametrize("kind", ["tif", "png", "mrc"])
def test_files_are_known_by_their_bytes_whatever_their_name(tmp_path, kind):
    raw, path = make_stack((1, 9, 11)), tmp_path / "scan.001"
    if kind == "tif":
        tifffile.imwrite(path, raw)
    elif kind == "png":
        path.write_bytes(imagecodecs.png_encode(raw[0]))
    else:
        raw = raw.astype("int16")
        mrcfile.new(path, data=raw).close()
    np.testing.assert_array_equal(read_pages(path), raw)


@pytest.mark.parametrize("name", ["x.xyz", "x.tif"])
@pytest.mark.parametrize(("at", "start", "kind"), [row[:3] for row in FOREIGN])
def test_formats_that_are_not_read_are_named(tmp_path, at, start, kind, name):
    (tmp_path / name).write_bytes(bytes(at) + start + bytes(600))
    with pytest.raises(SourceError, match=f"is {kind}, which is not read: ."):
        open_stack(tmp_path / name)


def test_info_does_not_advise_what_convert_refuses(tmp_path, volseg):
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(600))
    (tmp_path / "b.bin").write_bytes(bytes(600))
    tifffile.imwrite(tmp_path / "c.tif", make_stack())
    said = {name: volseg("info", tmp_path / name) for name in ("a.czi", "b.bin", "c.tif")}
    assert {done.exit_code for done in said.values()} == {2}
    assert "a CZI file of Zeiss, which is not read" in said["a.czi"].stderr
    assert "of no kind that is known" in said["b.bin"].stderr
    assert "volseg convert" in said["c.tif"].stderr
    assert volseg("convert", tmp_path / "c.tif", tmp_path / "c.zarr").exit_code == 0
