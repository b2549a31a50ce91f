"""The table of readers: kinds are known by their bytes, and the documents list them all."""

from __future__ import annotations

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
from volseg.sources.readers import READERS

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
BEGIN, END = "<!-- begin of the table of readers -->\n", "<!-- end of the table of readers -->\n"


def test_the_documents_show_the_table():
    """All readers, with their names and packages."""
    shown = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [row.strip("|").split("|") for row in shown.strip().split("\n")[2:]]
    assert {len(row) for row in rows} == {4}
    named = [(source, names.strip()) for source, names, _, _ in rows if names.strip()]
    expected = [
        f"a folder with `{r.marker}`" if r.marker else ", ".join(f"`{s}`" for s in r.suffixes)
        for r in READERS
    ]
    assert [names for _, names in named] == expected
    for reader, (source, _) in zip(READERS, named, strict=True):
        assert reader.kind in source
        assert (reader.package is not None) == source.endswith("; `pip install 'volseg[formats]'` ")


def test_no_two_readers_have_a_name_in_common():
    suffixes = [suffix for reader in READERS for suffix in reader.suffixes]
    assert len(set(suffixes)) == len(suffixes)


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
