"""A file is there wholly or not at all, and on the disk before anybody counts on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import volseg
from volseg.errors import ShapeError, StorageError
from volseg.geometry.grid import Grid
from volseg.storage.arrays import ArraySpec, create_array
from volseg.storage.chunks import LZ4, ZSTD
from volseg.storage.files import drafting, replacing, write_file
from volseg.storage.shards import encode_chunks, write_shard

TORN = """
import os, sys
from pathlib import Path
from volseg.storage.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


def test_a_kill_leaves_what_was_there_and_what_it_left_is_removed(tmp_path):
    path = tmp_path / "folder" / "a.json"
    write_file(path, b"old")
    done = subprocess.run([sys.executable, "-c", TORN, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(path.parent.iterdir())) == 2, "a draft is left beside it"
    write_file(path, b"ne", b"w")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def failing(error):
    yield b"half"
    raise error


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    write_file(path, b"old")
    for error in (KeyError("a"), OSError(28, "No space left on device")):
        with pytest.raises((KeyError, StorageError)), replacing(path) as file:
            file.writelines(failing(error))
        assert path.read_bytes() == b"old"
    with pytest.raises(StorageError, match=f"cannot write {path}: No space"), drafting(path) as to:
        to.write_bytes(b"".join(failing(OSError(28, "No space left on device"))))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_file(tmp_path / "file" / "a", b"")


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the disk, in turn."""
    asked = []
    sync, replace = os.fsync, os.replace

    def noted_sync(file):
        asked.append(("sync", os.readlink(f"/proc/self/fd/{file}")))
        sync(file)

    def noted_replace(source, target):
        asked.append(("replace", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return asked


def test_content_is_on_the_disk_before_its_name_and_then_the_name(tmp_path, calls):
    path = tmp_path / "new" / "deep" / "a"
    write_file(path, b"content")
    folders = [("sync", str(tmp_path)), ("sync", str(tmp_path / "new"))]
    assert calls[:2] == folders, "new folders have names too"
    draft, replaced, folder = calls[2:]
    assert draft[0] == "sync"
    assert draft[1].startswith(f"{path.parent}/.a.")
    assert replaced == ("replace", str(path))
    assert folder == ("sync", str(path.parent))
    calls.clear()
    write_file(path, b"scratch", durable=False)
    assert calls == [("replace", str(path))]


def test_a_shard_is_on_the_disk_when_that_is_said(tmp_path, calls):
    array = create_array(tmp_path / "a", ArraySpec((4, 4, 4), "uint8", (4, 4, 4), (4, 4, 4)))
    calls.clear()
    block = np.ones((4, 4, 4), np.uint8)
    write_shard(array, (0, 0, 0), encode_chunks(block, array, (0, 0, 0)))()
    shard = tmp_path / "a" / "c" / "0" / "0" / "0"
    assert calls[-2:] == [("replace", str(shard)), ("sync", str(shard.parent))]


def test_many_writers_of_one_file_never_mix(tmp_path):
    path, contents = tmp_path / "a", [bytes([k]) * 100_000 for k in range(6)]
    enough = threading.Event()

    def write(content):
        while not enough.is_set():
            write_file(path, content, durable=False)

    threads = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    try:
        while not path.exists():
            time.sleep(0.001)
        assert all(path.read_bytes() in contents for _ in range(50))
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("compression", [ZSTD, LZ4])
@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_shards_are_the_same_on_every_write_and_by_every_way(tmp_path, compression, dtype):
    spec = ArraySpec((70, 300, 200), dtype, (32, 64, 64), (64, 256, 256), compression)
    rng = np.random.default_rng(0)
    whole = (rng.integers(0, 9, spec.shape) * (rng.random(spec.shape) < 0.5)).astype(dtype)
    whole[:32, :64, :64] = 0
    found = []
    for name in "abcd":
        array = create_array(tmp_path / name, spec)
        if name == "d":
            for shard in Grid(spec.shape, spec.shard).blocks():
                chunks = encode_chunks(whole[shard.core], array, (0, 0, 0))
                write_shard(array, shard.index, chunks)()
        else:
            array.write(tuple(slice(0, n) for n in spec.shape), whole)
        files = sorted(p for p in (tmp_path / name / "c").rglob("*") if p.is_file())
        found.append([(p.relative_to(tmp_path / name), p.read_bytes()) for p in files])
    assert len(found[0]) == 4
    assert all(f == found[0] for f in found)


def test_a_shard_has_one_writer(tmp_path):
    array = create_array(tmp_path / "a", ArraySpec((20, 16, 16), "uint8", (4, 8, 8), (8, 16, 16)))
    half = np.ones((4, 16, 16), np.uint8)
    for start in (0, 4, 16):
        box = (slice(start, start + 4), slice(0, 16), slice(0, 16))
        if start == 16:
            array.write(box, half)
            continue
        with pytest.raises(ShapeError, match="each shard has one writer"):
            array.write(box, half)
    assert not array[:16].any()


def test_files_are_put_in_place_in_one_module_alone():
    allowed = {"storage/files.py", "storage/ledger.py", "storage/targets.py"}
    source = Path(volseg.__file__).parent
    for file in source.rglob("*.py"):
        text = file.read_text()
        name = file.relative_to(source).as_posix()
        if name not in allowed:
            for word in ("os.replace", "fsync", ".tmp"):
                assert word not in text, f"{name} puts files in place itself: {word}"
