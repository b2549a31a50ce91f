"""Volumes on object storage: the same bytes as in a folder, and clear words when a server fails.

A real S3 server runs as a process of its own (moto's). Requests go through a proxy that can answer
with errors in its place.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import obstore
import pytest
import tifffile
import zarr

from toy_elsewhere import write_elsewhere
from volseg.geometry.grid import full_roi
from volseg.storage.connections import connect
from volseg.storage.locations import parse_location
from volseg.storage.stores import open_store
from volseg.storage.volumes import open_image

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("moto") is None, reason="moto is not installed: no S3 server to test"
)
BUCKET = "volumes"
CHANGING = {"volume", "table", "slices", "seconds", "truth", "prediction"}
"""What a report says of the place, or of the time."""
DENIED = b"<Error><Code>SignatureDoesNotMatch</Code><Message>wrong key</Message></Error>"


class Faults:
    """What the proxy does before it passes requests on.

    Attributes
    ----------
    answers : statuses for the next requests; a negative one is seconds of silence first.
    always : status of all requests to paths that hold this text.
    """

    def __init__(self):
        self.answers: list[float] = []
        self.always: tuple[str, int] | None = None
        self.asked = 0

    def next(self, path):
        self.asked += 1
        if self.always is not None:
            text, status = self.always
            return status if text in path else None
        return self.answers.pop(0) if self.answers else None


def proxy_to(port, faults):
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.next(self.path)
            if fault is not None and fault < 0:
                time.sleep(-fault)
            elif fault is not None:
                return self.reply(int(fault), {}, DENIED if fault == 403 else b"")
            with closing(HTTPConnection("127.0.0.1", port)) as onward:
                onward.request(self.command, self.path, body, dict(self.headers))
                found = onward.getresponse()
                return self.reply(found.status, dict(found.getheaders()), found.read())

        def reply(self, status, headers, body):
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_):
            pass

    return Proxy


class Ranges(SimpleHTTPRequestHandler):
    """Sends files, and parts of files."""

    def do_GET(self):
        asked = self.headers.get("Range")
        path = self.translate_path(self.path)
        if asked is None or not os.path.isfile(path):
            return super().do_GET()
        with open(path, "rb") as file:
            content = file.read()
        first, last = asked.removeprefix("bytes=").split("-")
        start = int(first) if first else len(content) - int(last)
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        return self.wfile.write(content[start:stop])

    def log_message(self, *_):
        pass


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def moto():
    """The port of an S3 server with one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            for _ in range(300):
                with socket.socket() as attempt:
                    if attempt.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            url = f"http://127.0.0.1:{port}/{BUCKET}"
            with urllib.request.urlopen(urllib.request.Request(url, method="PUT")):
                yield port
        finally:
            process.terminate()


@pytest.fixture
def faults(moto, tmp_path, monkeypatch):
    """What goes wrong between volseg and the server: nothing, unless a test says so."""
    planned = Faults()
    with serving(proxy_to(moto, planned)) as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "VOLSEG_SCRATCH": str(tmp_path / "scratch"),
        }.items():
            monkeypatch.setenv(name, value)
        yield planned


@pytest.fixture
def stack(tmp_path, crop):
    path = tmp_path / "stack.tif"
    raw = tifffile.imread(crop / "raw.tif")[:6, :40, :40]
    tifffile.imwrite(path, raw, photometric="minisblack")
    return path


@pytest.fixture
def place(faults, tmp_path):
    """A place of its own for each test."""
    return f"s3://{BUCKET}/{tmp_path.name}/vol.zarr"


def run(volseg, *arguments, status=0):
    result = volseg(*arguments)
    assert result.exit_code == status, result.output
    return result


def objects_below(place):
    remote = parse_location(place)
    found = obstore.list(connect(remote.scheme, remote.bucket), f"{remote.key}/").collect()
    names = [entry["path"].removeprefix(f"{remote.key}/") for entry in found]
    return {name: (remote / name).read_bytes() for name in names}


def files_below(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
    return {name: content for name, content in found.items() if not name.startswith(".volseg")}


def convert(volseg, stack, place, *more, status=0):
    return run(volseg, "convert", stack, place, "--voxel-size", "5,5,5", *more, status=status)


def dateless(shown: dict) -> dict:
    """Leave out the dates of results, which object storage and web servers do not tell."""
    for kind in ("probabilities", "labels"):
        for result in shown[kind].values():
            result.pop("date", None)
    return shown


def test_everything_equals_a_local_run_to_the_byte(
    volseg, stack, place, toy_model, tmp_path, faults
):
    folder = tmp_path / "vol.zarr"
    found = {}
    for volume in (folder, place):
        convert(volseg, stack, volume)
        segment = ("--model", toy_model, "--threshold", "0.3", "--min-size", "3")
        faults.asked = 0
        noted = run(volseg, "segment", volume, *segment).stderr
        assert faults.asked < 150, "each request takes its time, however small the volume"
        assert ("ledger and scratch" in noted) == (volume == place)
        stats = run(volseg, "stats", volume, "--json").stdout
        checked = run(volseg, "verify", volume, "--model", toy_model).stdout
        compared = run(volseg, "evaluate", volume, "--truth", "mitochondria", "--json").stdout
        shown = dateless(json.loads(run(volseg, "info", volume, "--json").stdout))
        assert "is intact: raw, probabilities/mitochondria, labels/mitochondria" in checked
        described = json.loads(stats)[0]
        found[volume] = (
            {k: v for k, v in described.items() if k not in CHANGING},
            {
                k: v
                for k, v in json.loads(compared.replace(str(volume), "")).items()
                if k not in CHANGING
            },
            shown,
        )
    assert found[folder] == found[place]
    assert found[place][0]["objects"] > 0
    assert found[place][2]["tables"] == ["mitochondria", "mitochondria-slices"]
    assert files_below(folder) == objects_below(place)
    assert not any(".volseg" in name for name in objects_below(place)), "scratch stays here"


@pytest.mark.parametrize("name", ["a.zarr", "a.precomputed", "a.tif", "a.h5"])
def test_exports_equal_local_ones_to_the_byte(volseg, stack, place, tmp_path, name):
    convert(volseg, stack, tmp_path / "vol.zarr")
    target = place.replace("vol.zarr", name)
    run(volseg, "export", tmp_path / "vol.zarr", "raw", "--output", tmp_path / name)
    run(volseg, "export", tmp_path / "vol.zarr", "raw", "--output", target)
    if name in ("a.tif", "a.h5"):
        assert parse_location(target).read_bytes() == (tmp_path / name).read_bytes()
    else:
        assert objects_below(target) == files_below(tmp_path / name)
    run(volseg, "export", tmp_path / "vol.zarr", "raw", "--output", target, status=2)
    run(volseg, "export", tmp_path / "vol.zarr", "raw", "--output", target, "--overwrite")


def test_a_copy_in_place_is_read_by_zarr_v2_alone_and_removed(volseg, stack, place):
    convert(volseg, stack, place)
    before = objects_below(place)
    run(volseg, "export", place, "raw", "--in-place")
    group = zarr.open_group(open_store(parse_location(place)), mode="r", zarr_format=2)
    (multiscale,) = group.attrs["multiscales"]
    assert multiscale["version"] == "0.4"
    expected = open_image(parse_location(place)).levels[0][:]
    np.testing.assert_array_equal(group[multiscale["datasets"][0]["path"]][...], expected)
    after = objects_below(place)
    assert {k: after[k] for k in before} == before
    assert "/.copying" not in "".join(after)
    assert (
        "has a copy as Zarr v2"
        in run(volseg, "export", place, "raw", "--in-place", status=2).stderr
    )
    run(volseg, "export", place, "raw", "--in-place", "--remove")
    assert objects_below(place) == before


@pytest.mark.parametrize("name", ["a.zarr", "a.precomputed"])
def test_an_export_that_failed_goes_on_where_it_was(volseg, place, tmp_path, monkeypatch, name):
    from volseg.exchange.volumes import precomputed, zarr_v2

    raw = np.random.default_rng(1).integers(1, 255, (4, 150, 150), np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", raw, photometric="minisblack")
    convert(volseg, tmp_path / "s.tif", tmp_path / "vol.zarr")
    module = zarr_v2 if name == "a.zarr" else precomputed
    monkeypatch.setattr(module, "BLOCK", (64, 128, 128))
    real, seen, broken = module.CopyBlock.__call__, [], True

    def copy(task, block):
        if broken and block.index == (0, 1, 1):
            raise OSError(28, "No space left on device")
        seen.append(block.index)
        real(task, block)

    monkeypatch.setattr(module.CopyBlock, "__call__", copy)
    target = place.replace("vol.zarr", name)
    command = ("export", tmp_path / "vol.zarr", "raw", "--workers", 1, "--output")
    said = run(volseg, *command, target, status=1).stderr
    assert "is incomplete; the same command does what is missing" in said
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("VOLSEG_SCRATCH", str(tmp_path / "other"))
        assert "begun elsewhere; give --overwrite" in run(volseg, *command, target, status=2).stderr
    broken, first = False, len(seen)
    assert first == 3
    run(volseg, *command, target)
    assert seen[first] == (0, 1, 1)
    run(volseg, *command, tmp_path / name)
    assert objects_below(target) == files_below(tmp_path / name)


def test_a_volume_is_replaced_only_on_request(volseg, stack, place):
    convert(volseg, stack, place)
    before = objects_below(place)
    assert "give --overwrite" in convert(volseg, stack, place, status=2).stderr
    assert objects_below(place) == before
    convert(volseg, stack, place, "--overwrite")
    assert objects_below(place) == before


def test_a_killed_conversion_is_not_opened_and_can_be_repeated(volseg, stack, place):
    convert(volseg, stack, place)
    path = parse_location(place) / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["volseg"] = {"complete": False}
    path.write_bytes(json.dumps(metadata).encode())
    assert "its conversion has not ended" in run(volseg, "info", place, status=2).stderr
    convert(volseg, stack, place)
    run(volseg, "info", place)


def test_tables_and_labels_may_lie_elsewhere(volseg, stack, place, tmp_path):
    convert(volseg, stack, place)
    labels = tmp_path / "labels.tif"
    marked = np.zeros((6, 40, 40), np.uint16)
    marked[1:4, 5:20, 5:20] = 3
    marked[2:5, 25:30, 25:30] = 7
    tifffile.imwrite(labels, marked, photometric="minisblack")
    table = place.replace("vol.zarr", "objects.csv")
    run(volseg, "stats", place, "--labels", labels, "--output", table)
    _, *rows = parse_location(table).read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["3", "7"]


def test_what_lies_behind_http_is_read(volseg, stack, tmp_path, faults, toy_model):
    folder = tmp_path / "vol.zarr"
    convert(volseg, stack, folder)
    run(volseg, "segment", folder, "--model", toy_model, "--threshold", "0.3")

    def handler(*arguments):
        return Ranges(*arguments, directory=str(tmp_path))

    with serving(handler) as url:
        volume = f"{url}/vol.zarr"
        here, there = (
            dateless(json.loads(run(volseg, "info", v, "--json").stdout)) for v in (folder, volume)
        )
        assert here == there
        assert "is intact" in run(volseg, "verify", volume, "--quick").stdout
        run(volseg, "evaluate", volume, "--truth", f"{volume}/labels/mitochondria")
        for command in (("stats", volume), ("convert", stack, f"{url}/new.zarr")):
            assert "can only be read" in run(volseg, *command, status=2).stderr
        refused = run(volseg, "segment", volume, "--model", toy_model, "--name", "m", status=2)
        assert "can only be read" in refused.stderr


def test_volumes_of_others_are_used_where_they_lie(volseg, stack, place, toy_model, tmp_path):
    folder = write_elsewhere(tmp_path / "vol.zarr", tifffile.imread(stack), "0.4")
    for name, content in files_below(folder).items():
        (parse_location(place) / name).write_bytes(content)
    for volume in (folder, place):
        run(volseg, "segment", volume, "--model", toy_model, "--threshold", "0.3")
    assert files_below(folder) == objects_below(place)
    for volume in (folder, place):
        run(volseg, "convert", volume, tmp_path / "copy.zarr", "--overwrite")
        copied = open_image(tmp_path / "copy.zarr").levels[0]
        np.testing.assert_array_equal(copied[full_roi(copied.shape)], tifffile.imread(stack))
    refused = run(volseg, "convert", place, place, "--overwrite", status=2)
    assert "is written elsewhere" in refused.stderr


def test_a_web_server_that_sends_whole_files_is_named(volseg, stack, tmp_path):
    convert(volseg, stack, tmp_path / "vol.zarr")

    class Whole(Ranges):
        do_GET = SimpleHTTPRequestHandler.do_GET  # noqa: N815

    with serving(lambda *a: Whole(*a, directory=str(tmp_path))) as url:
        elsewhere = f"{url}/vol.zarr"
        run(volseg, "info", elsewhere)
        labels = ("--labels", elsewhere, "--truth", elsewhere)
        said = run(volseg, "evaluate", elsewhere, *labels, status=1).stderr
    assert "web server that knows range requests" in said


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "answers",
    [[500, 503], pytest.param([503, 429, 500], marks=SLOW), pytest.param([-1.5, 503], marks=SLOW)],
)
def test_errors_that_pass_are_waited_for(volseg, stack, place, faults, answers):
    convert(volseg, stack, place)
    before = objects_below(place)
    faults.answers = list(answers)
    run(volseg, "info", place)
    faults.answers = list(answers)
    convert(volseg, stack, place, "--overwrite")
    assert not faults.answers
    assert objects_below(place) == before


def test_a_server_that_stays_ill_ends_in_a_clear_failure(volseg, stack, place, faults, monkeypatch):
    monkeypatch.setenv("VOLSEG_RETRIES", "2")
    faults.always = ("/c/", 503)
    begun = time.monotonic()
    said = convert(volseg, stack, place, status=1).stderr
    assert time.monotonic() - begun < 60
    assert f"cannot write {place}/" in said
    assert "503" in said
    faults.always = None
    assert objects_below(place) == {}, "what failed leaves nothing"


@pytest.mark.slow
def test_chunks_that_cannot_be_read_are_named(volseg, stack, place, faults, monkeypatch, tmp_path):
    convert(volseg, stack, place)
    labels = tmp_path / "labels.tif"
    tifffile.imwrite(labels, np.ones((6, 40, 40), np.uint8), photometric="minisblack")
    monkeypatch.setenv("VOLSEG_RETRIES", "1")
    faults.always = ("/0/c/", 500)
    said = run(volseg, "stats", place, "--labels", labels, status=1).stderr
    assert f"cannot read {place}/0 at 0:" in said
    faults.always = None
    assert not (parse_location(place) / "tables").is_dir(), "nothing is reported as done"


def test_missing_buckets_and_wrong_keys_are_named(volseg, stack, place, faults):
    elsewhere = "s3://nobodys-bucket/vol.zarr"
    for command in (("info", elsewhere), ("convert", stack, elsewhere)):
        said = run(volseg, *command, status=2).stderr
        assert "there is no bucket 'nobodys-bucket'" in said
    assert f"there is nothing at {place}" in run(volseg, "info", place, status=2).stderr
    faults.always = ("", 403)
    for command in (("info", place), ("convert", stack, place)):
        said = run(volseg, *command, status=2).stderr
        assert "the server refused access" in said
        assert "check the credentials" in said


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on_from_its_scratch(
    volseg, stack, place, toy_model, faults, monkeypatch
):
    convert(volseg, stack, place)
    command = ("segment", place, "--model", toy_model, "--threshold", "0.3")
    monkeypatch.setenv("VOLSEG_RETRIES", "1")
    faults.always = ("/labels/mitochondria/0/c/", 503)
    assert "cannot write" in run(volseg, *command, status=1).stderr
    faults.always = None
    assert "incomplete" in run(volseg, "info", place).stdout
    run(volseg, *command)
    run(volseg, "verify", place, "--quick")


@pytest.mark.slow
def test_a_run_does_not_go_on_from_the_scratch_of_another(
    volseg, stack, place, toy_model, faults, tmp_path, monkeypatch
):
    convert(volseg, stack, place)
    command = ("segment", place, "--model", toy_model, "--threshold", "0.3")
    monkeypatch.setenv("VOLSEG_RETRIES", "1")

    def end_in(part, scratch):
        monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path / scratch))
        faults.always = (f"/{part}/mitochondria/0/c/", 503)
        found = run(volseg, *command, status=1).stderr
        faults.always = None
        return found

    assert "cannot write" in end_in("probabilities", "one")
    begun = objects_below(place)
    monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path / "two"))
    said = run(volseg, *command, status=2).stderr
    assert "was begun by a run whose scratch is not" in said
    assert objects_below(place) == begun
    # the first scratch still tells the truth until somebody else begins anew
    assert "cannot write" in end_in("labels", "one")
    monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path / "two"))
    assert "was begun by a run whose scratch is not" in run(volseg, *command, status=2).stderr
    run(volseg, *command, "--overwrite")
    whole = objects_below(place)
    assert all(json.loads(v)["attributes"] for k, v in whole.items() if k.endswith("ia/zarr.json"))
    parse_location(f"{place}/labels/mitochondria").remove_tree()
    monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path / "one"))
    run(volseg, *command)
    assert objects_below(place) == whole
    run(volseg, "verify", place, "--quick")


@pytest.mark.slow
@pytest.mark.parametrize("array", ["probabilities", "labels"])
def test_damage_is_found_and_repaired(volseg, stack, place, toy_model, array):
    convert(volseg, stack, place)
    command = ("segment", place, "--model", toy_model, "--threshold", "0.3")
    run(volseg, *command)
    whole = objects_below(place)
    shard = f"{array}/mitochondria/0/c/0/0/0"
    (parse_location(place) / shard).write_bytes(whole[shard][:-9])
    assert (
        shard.removesuffix("/c/0/0/0") in run(volseg, "verify", place, "--quick", status=1).stdout
    )
    assert "1 damaged file(s)" in run(volseg, *command, "--repair").stderr
    assert objects_below(place) == whole
    run(volseg, "verify", place, "--quick")


@pytest.mark.slow
def test_scratch_is_said_on_the_command_line(
    volseg, stack, place, toy_model, tmp_path, monkeypatch
):
    convert(volseg, stack, place)
    chosen = tmp_path / "chosen"
    monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path / "other"))  # restored after the test
    command = ("segment", place, "--model", toy_model, "--scratch", chosen)
    assert str(chosen) in run(volseg, *command).stderr
    assert any(chosen.iterdir())
    shutil.rmtree(chosen)
