"""Arrays of others: whatever zarr-python reads is read, and what would do harm is refused."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs as v3
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.storage import ZipStore

from toy_hostile import zstd_bomb
from volseg.errors import ShapeError, StorageError, VolumeError
from volseg.storage.arrays import open_array
from volseg.storage.stores import Standing, what_stands_at
from volseg.storage.volumes import open_image

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning"),
]
SHAPE = (9, 20, 17)
CHUNK = (4, 8, 8)
LZMA_RAW = {"format": 3, "filters": [{"id": 0x21, "preset": 1}]}


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 200, SHAPE).astype("uint16")


def make(codec):
    return codec() if callable(codec) else codec


def write(path, content, **settings):
    settings = {"chunks": CHUNK, "zarr_format": 2, **settings}
    array = zarr.create_array(path, shape=SHAPE, dtype=content.dtype, **settings)
    array[...] = content
    return path


@pytest.mark.parametrize(
    "codec",
    [
        None,
        numcodecs.Zlib(3),
        numcodecs.GZip(3),
        numcodecs.BZ2(3),
        numcodecs.LZMA(),
        numcodecs.LZMA(**LZMA_RAW),
        numcodecs.LZ4(),
        numcodecs.Zstd(3),
        numcodecs.Zstd(3, checksum=True),
        *[
            numcodecs.Blosc(c, shuffle=s)
            for c in ("lz4", "zstd", "zlib", "blosclz")
            for s in (0, 1, 2)
        ],
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_compression_of_v2(tmp_path, content, codec, order):
    found = open_array(write(tmp_path / "a", content, compressors=codec, order=order))
    np.testing.assert_array_equal(found[:], content)
    np.testing.assert_array_equal(found[2:7, 3:19, 5:6], content[2:7, 3:19, 5:6])


@pytest.mark.parametrize(
    "filters",
    [
        [numcodecs.Delta("<u2")],
        [numcodecs.Shuffle(2)],
        [numcodecs.FixedScaleOffset(0, 1, "<u2", "u1")],
        [numcodecs.AsType("<u8", "<u2")],
        [numcodecs.CRC32()],
        [numcodecs.Adler32(), numcodecs.Fletcher32()],
    ],
)
def test_filters_of_v2(tmp_path, content, filters):
    path = write(tmp_path / "a", content, filters=filters, compressors=numcodecs.Zlib(1))
    np.testing.assert_array_equal(open_array(path)[:], content)


@pytest.mark.parametrize(
    "settings",
    [
        {"compressors": None},
        {"compressors": [GzipCodec(), Crc32cCodec()]},
        {"compressors": BloscCodec(cname="zstd")},
        {"compressors": v3.LZ4},
        {"compressors": v3.LZMA},
        {"compressors": v3.BZ2},
        {"compressors": v3.Zlib},
        {"compressors": v3.CRC32},
        {"compressors": lambda: v3.Shuffle(elementsize=2)},
        {"filters": [lambda: v3.Delta(dtype="<u2")], "compressors": v3.Zstd},
        {"serializer": BytesCodec(endian="big"), "compressors": ZstdCodec()},
        {"shards": (8, 16, 16), "compressors": v3.BZ2},
        {"shards": (8, 16, 16), "compressors": ZstdCodec(), "fill_value": 7},
    ],
)
def test_codecs_of_v3(tmp_path, content, settings):
    # made here, as those of numcodecs warn where they are made
    made = {k: list(map(make, v)) if isinstance(v, list) else make(v) for k, v in settings.items()}
    path = write(tmp_path / "a", content, zarr_format=3, **made)
    found = open_array(path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[:], content)
    np.testing.assert_array_equal(found[1:2, 8:20, 7:9], content[1:2, 8:20, 7:9])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", [">u2", ">f4", "bool", "int8", "float16", "float64", "uint64"])
def test_types(tmp_path, content, zarr_format, dtype):
    values = (content > 100).astype(dtype)
    found = open_array(write(tmp_path / "a", values, zarr_format=zarr_format))
    read = found[:]
    assert (
        read.dtype
        == found.dtype
        == (np.uint8 if dtype == "bool" else values.dtype.newbyteorder("="))
    )
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_files_are_read(tmp_path, content, zarr_format, compression):
    path = tmp_path / "vol.zarr.zip"
    with ZipStore(path, mode="w", compression=compression) as store:
        group = zarr.create_group(store, zarr_format=zarr_format)
        axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
        scale = [{"type": "scale", "scale": [5.0, 5.0, 5.0]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        entry = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        group.attrs.update(
            {"multiscales": entry} if zarr_format == 2 else {"ome": {"multiscales": entry}}
        )
        write_to = group.create_array("0", shape=SHAPE, chunks=CHUNK, dtype="uint16")
        write_to[...] = content
    image = open_image(path)
    assert image.voxel_size == (5.0, 5.0, 5.0)
    np.testing.assert_array_equal(image.levels[0][:], content)
    np.testing.assert_array_equal(open_array(path / "0")[3:5], content[3:5])
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(VolumeError, match="zip"):
        open_image(tmp_path / "no.zip")


def change(file, **entries):
    described = json.loads(file.read_text())
    file.write_text(json.dumps({**described, **entries}))


@pytest.mark.parametrize("place", ["filters", "compressor"])
@pytest.mark.parametrize("name", ["pickle", "json2", "msgpack2", "vlen-bytes", "zfpy", "nonsense"])
def test_codecs_that_run_programs_or_are_not_known_are_refused(tmp_path, content, place, name):
    path = write(tmp_path / "a", content)
    codec = {"id": name, "protocol": 5}
    change(path / ".zarray", **{place: [codec] if place == "filters" else codec})
    with pytest.raises(VolumeError, match=r"codec|zfpy"):
        open_array(path)


LONG = "|S200000000"


@pytest.mark.parametrize(
    "codec",
    [
        {"id": "astype", "encode_dtype": "|u1", "decode_dtype": LONG},
        {"id": "delta", "dtype": LONG, "astype": "|u1"},
        {"id": "fixedscaleoffset", "scale": 1, "offset": 0, "dtype": LONG, "astype": "|u1"},
        {"id": "quantize", "digits": 1, "dtype": "|V200000000", "astype": "<f4"},
        {"id": "astype", "encode_dtype": "|u1", "decode_dtype": "|O"},
    ],
)
def test_filters_that_make_long_text_of_a_number_are_refused(tmp_path, content, codec):
    path = write(tmp_path / "a", content)
    change(path / ".zarray", filters=[codec])
    with pytest.raises(VolumeError, match=r"expected numbers|not a Zarr array"):
        open_array(path)
    path = write(tmp_path / "b", content, zarr_format=3, compressors=None)
    codecs = [{"name": f"numcodecs.{codec.pop('id')}", "configuration": codec}, {"name": "bytes"}]
    change(path / "zarr.json", codecs=codecs)
    with pytest.raises(VolumeError, match=r"expected numbers|not a Zarr array"):
        open_array(path)


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_that_took_the_place_of_another_is_read(tmp_path, content, kind, zarr_format):
    path = tmp_path / ("a.zip" if kind == "zip" else "a")

    def put(values, **settings):
        if kind == "folder":
            write(path, values, overwrite=True, zarr_format=zarr_format, **settings)
            return
        path.unlink(missing_ok=True)
        with ZipStore(path, mode="w") as store:
            write(store, values, zarr_format=zarr_format, **settings)

    put(content, fill_value=3)
    first = open_array(path)
    np.testing.assert_array_equal(first[:], content)
    put(content + 1, fill_value=9, chunks=(3, 5, 5))
    np.testing.assert_array_equal(open_array(path)[:], content + 1)
    np.testing.assert_array_equal(open_image(path).levels[0][:], content + 1)
    np.testing.assert_array_equal(first[:], content + 1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_zip_file_is_read_in_a_forked_child_and_its_parent(tmp_path, content):
    with ZipStore(tmp_path / "a.zip", mode="w") as store:
        write(store, content, compressors=None)
    array = open_array(tmp_path / "a.zip")
    np.testing.assert_array_equal(array[:], content)
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            good = False
            try:
                good = all(np.array_equal(array[:], content) for _ in range(20))
            finally:
                os._exit(not good)
    assert all(np.array_equal(array[:], content) for _ in range(20))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def test_what_is_no_box_is_refused(tmp_path, content):
    array = open_array(write(tmp_path / "a", content))
    for key in (slice(0, 9, 2), (slice(None, None, -1),), 0, (slice(None),) * 4, Ellipsis):
        with pytest.raises(ShapeError, match="slices without steps"):
            array[key]
    assert array[3:3].shape == (0, *SHAPE[1:])
    assert array[5:2, :-1].shape == (0, SHAPE[1] - 1, SHAPE[2])


@pytest.mark.parametrize(
    "name", ["numcodecs.pickle", "numcodecs.zfpy", "numcodecs.pcodec", "pickle"]
)
@pytest.mark.parametrize("sharded", [False, True])
def test_codecs_of_v3_that_are_not_known_are_refused(tmp_path, content, name, sharded):
    path = write(tmp_path / "a", content, zarr_format=3, compressors=ZstdCodec())
    codecs = [{"name": "bytes"}, {"name": name, "configuration": {}}]
    if sharded:
        inner = ShardingCodec(chunk_shape=CHUNK).to_dict()
        inner["configuration"] = {
            **json.loads(json.dumps(inner["configuration"], default=lambda c: c.to_dict())),
            "codecs": codecs,
        }
        codecs = [inner]
    change(path / "zarr.json", codecs=codecs)
    with pytest.raises(VolumeError, match=r"codec|not a Zarr array"):
        open_array(path)


def first_chunk(path):
    return next(
        p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith((".z", "z"))
    )


@pytest.mark.parametrize("codec", [numcodecs.Zlib(3), numcodecs.BZ2(3), numcodecs.LZMA()])
def test_a_damaged_chunk_is_named_in_own_words(tmp_path, content, codec):
    path = write(tmp_path / "a", content, compressors=codec)
    first_chunk(path).write_bytes(b"nothing of the kind")
    with pytest.raises(
        StorageError, match=r"cannot read .*a at 0:9,0:20,0:17: a chunk is damaged$"
    ):
        _ = open_array(path)[0:9]


@pytest.mark.parametrize(
    "changed", [{"data_type": "foo"}, {"chunk_grid": {"name": "x"}}, {"shape": 5}]
)
def test_damaged_descriptions_are_named_in_own_words(tmp_path, content, changed):
    path = write(tmp_path / "a", content, zarr_format=3)
    described = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(described | changed))
    with pytest.raises(VolumeError, match="read: what describes it is damaged, or of a kind that"):
        open_array(path)


BOMBS = {
    "zstd": lambda: zstd_bomb(1 << 30),
    "lz4": lambda: (2**31 - 1).to_bytes(4, "little") + numcodecs.LZ4().encode(bytes(1 << 27))[4:],
    "zlib": lambda: numcodecs.Zlib(9).encode(bytes(1 << 27)),
    "gzip": lambda: numcodecs.GZip(9).encode(bytes(1 << 27)),
    "bz2": lambda: numcodecs.BZ2(9).encode(bytes(1 << 27)),
    "lzma": lambda: numcodecs.LZMA(preset=0).encode(bytes(1 << 27)),
    "blosc": lambda: numcodecs.Blosc("zstd").encode(bytes(1 << 27)),
}
READ = """
import json, resource, sys
from pathlib import Path
from volseg.errors import StorageError
from volseg.storage.arrays import open_array
from volseg.storage.stores import Standing, what_stands_at
arrays = [open_array(Path(path)) for path in sys.argv[1:]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for array in arrays:
    try:
        array[:]
    except StorageError as error:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        print(json.dumps([str(error), grown]))
"""


def write_bomb(path, content, name, zarr_format):
    """Write an array whose first chunk unpacks to far more than it should."""
    if zarr_format == 2:
        write(path, content, compressors=numcodecs.get_codec({"id": name}))
    else:
        codec = {"zstd": ZstdCodec(), "gzip": GzipCodec(), "blosc": BloscCodec()}.get(name)
        numbered = {"lz4": v3.LZ4, "zlib": v3.Zlib, "bz2": v3.BZ2, "lzma": v3.LZMA}
        write(path, content, zarr_format=3, compressors=codec or numbered[name]())
    first_chunk(path).write_bytes(bomb(name))
    return path


@cache
def bomb(name):
    return BOMBS[name]()


@pytest.fixture(scope="module")
def read_bombs(tmp_path_factory, content):
    """Read them all: what is said of each, and the MB that it and those before it took.

    In a process of its own, whose memory can be looked at.
    """
    folder = tmp_path_factory.mktemp("bombs")
    kinds = [(name, version) for name in sorted(BOMBS) for version in (2, 3)]
    paths = [write_bomb(folder / f"{n}{v}", content, n, v) for n, v in kinds]
    bomb.cache_clear()
    command = [sys.executable, "-W", "ignore", "-c", READ, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(kinds, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", sorted(BOMBS))
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bomb_takes_no_memory(read_bombs, name, zarr_format):
    said, grown = read_bombs[name, zarr_format]
    assert grown <= 60, f"grew by {grown} MB"
    assert "cannot read" in said
    assert "bytes" in said


def test_a_frame_that_claims_terabytes_is_an_error(tmp_path, content):
    path = write(tmp_path / "a", content, zarr_format=3, compressors=ZstdCodec())
    lie = bytes.fromhex("28b52ffd") + b"\xe0" + (2**45).to_bytes(8, "little") + b"\x01\x00\x00"
    first_chunk(path).write_bytes(lie)
    with pytest.raises(StorageError, match="claims to hold"):
        open_array(path)[:]
    path = write(tmp_path / "b", content, compressors=numcodecs.Blosc())
    whole = bytearray(first_chunk(path).read_bytes())
    for most in (2**31 - 1, 10):
        whole[12:16] = most.to_bytes(4, "little")  # numcodecs reads as far as this says
        first_chunk(path).write_bytes(whole)
        with pytest.raises(StorageError, match="something else"):
            open_array(path)[:]


def test_a_bomb_in_a_zip_file(tmp_path, content):
    with ZipStore(tmp_path / "a.zip", mode="w", compression=zipfile.ZIP_DEFLATED) as store:
        zarr.create_array(store, shape=SHAPE, chunks=CHUNK, dtype="uint16", compressors=None)
    with zipfile.ZipFile(tmp_path / "a.zip", "a", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/0/0/0", bytes(1 << 28))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StorageError, match="has more than"):
        open_array(tmp_path / "a.zip")[:]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("shape", [2**62, 8, 8]),
        ("shape", [8, 8]),
        ("shape", [8, -8, 8]),
        ("shape", [0, 8, 8]),
        ("shape", [10**30, 8, 8]),
        ("chunks", [2**31, 2**20, 8]),
        ("chunks", [0, 8, 8]),
        ("chunks", [-4, 8, 8]),
        ("dtype", "|O"),
        ("dtype", "<U5"),
        ("dtype", [["a", "<u2"]]),
        ("dtype", "<M8[s]"),
        ("dtype", {"a": 1}),
        ("order", "X"),
        ("zarr_format", 7),
        ("fill_value", "nonsense"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path, content, entry, value):
    path = write(tmp_path / "a", content)
    change(path / ".zarray", **{entry: value})
    with pytest.raises(VolumeError, match=str(path)):
        open_array(path)


@pytest.mark.parametrize("shape", [[2**62, 4, 4], [4, 2**40, 4]])
def test_shapes_that_no_volume_has_are_refused(tmp_path, content, shape):
    path = write(tmp_path / "a", content, zarr_format=3, shards=(8, 16, 16))
    change(path / "zarr.json", shape=shape)
    with pytest.raises(VolumeError, match="claims the shape"):
        open_array(path)


def test_a_shard_of_too_many_chunks_is_refused(tmp_path, content):
    path = write(tmp_path / "a", content, zarr_format=3, shards=(8, 16, 16), chunks=(1, 1, 1))
    whole = {"name": "regular", "configuration": {"chunk_shape": [2**20, 2**20, 2**20]}}
    change(path / "zarr.json", chunk_grid=whole)
    with pytest.raises(VolumeError, match="chunks in a file"):
        open_array(path)


def test_a_flipped_bit_is_noticed_where_there_is_a_checksum(tmp_path, content):
    path = write(tmp_path / "a", content, zarr_format=3, compressors=[GzipCodec(), Crc32cCodec()])
    chunk = first_chunk(path)
    good = chunk.read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 4
        chunk.write_bytes(bad)
        with pytest.raises(StorageError):
            open_array(path)[:]


def test_what_is_cut_off_is_an_error(tmp_path, content):
    for name in ("zlib", "gzip", "bz2", "lzma", "lz4", "zstd", "blosc"):
        path = write(tmp_path / name, content, compressors=numcodecs.get_codec({"id": name}))
        chunk = first_chunk(path)
        good = chunk.read_bytes()
        for length in (0, 1, 5, 17, len(good) // 2, len(good) - 1):
            chunk.write_bytes(good[:length])
            with pytest.raises(StorageError, match="cannot read"):
                open_array(path)[:]
        shutil.rmtree(path)


def test_what_others_wrote_is_not_written_to(tmp_path, content):
    path = write(tmp_path / "a", content)
    array = open_array(path)
    with pytest.raises(StorageError, match="reads only"):
        array.write((slice(0, 9), slice(0, 20), slice(0, 17)), content)
    with pytest.raises((ValueError, NotImplementedError), match=r"read-only|reading"):
        array.zarr[0] = 0
    assert isinstance(array.zarr, zarr.Array)
    assert Path(path).is_dir()


def test_a_zip_file_is_converted(tmp_path, content, volseg):
    with ZipStore(tmp_path / "raw.zarr.zip", mode="w") as store:
        array = zarr.create_array(store, shape=SHAPE, chunks=CHUNK, dtype="uint16")
        array[...] = content
    done = volseg(
        "convert", tmp_path / "raw.zarr.zip", tmp_path / "v.zarr", "--voxel-size", "5,5,5"
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(open_image(tmp_path / "v.zarr").levels[0][:], content)


def test_what_stands_at_a_path(tmp_path, content):
    assert what_stands_at(tmp_path / "none") is Standing.NOTHING
    assert what_stands_at(tmp_path) is Standing.FOLDER
    assert what_stands_at(write(tmp_path / "two", content)) is Standing.ARRAY
    assert what_stands_at(write(tmp_path / "three", content, zarr_format=3)) is Standing.ARRAY
    zarr.create_group(tmp_path / "group", zarr_format=2)
    assert what_stands_at(tmp_path / "group") is Standing.GROUP
    (tmp_path / "group" / "zarr.json").write_text("{")
    assert what_stands_at(tmp_path / "group") is Standing.GROUP
    assert what_stands_at(tmp_path / "group" / "zarr.json") is Standing.FILE
