"""Places: what is a folder and what a URL, and how TensorStore is told of either."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import tensorstore as ts

from volseg.errors import ParameterError, VolumeError
from volseg.storage.kvstores import explain
from volseg.storage.locations import (
    as_remote,
    check_writable,
    kvstore_spec,
    parse_location,
    remote_scratch,
)
from volseg.storage.remote import RemotePath
from volseg.storage.volumes import scratch_path


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("URL", "URL_S3"):
        monkeypatch.delenv(f"AWS_ENDPOINT_{name}", raising=False)
    for name in ("REGION", "DEFAULT_REGION", "NO_SIGN_REQUEST", "ACCESS_KEY_ID"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("VOLSEG_RETRIES", raising=False)


@pytest.mark.parametrize("text", ["vol.zarr", "/data/vol.zarr", "../a:b/vol.zarr", "s3:vol"])
def test_whatever_is_no_url_is_a_path(text):
    assert parse_location(text) == Path(text)
    assert as_remote(parse_location(text)) is None


def test_a_url_descends_like_a_path():
    volume = parse_location("S3://bucket/brains//one.zarr/")
    assert str(volume) == "s3://bucket/brains/one.zarr"
    table = volume / "tables" / "m.parquet"
    assert (table.name, table.stem, table.suffix) == ("m.parquet", "m", ".parquet")
    assert table.parent.parent == volume
    assert volume.joinpath("c", "0", "1") == volume / "c/0/1"
    assert volume.with_name("two.zarr") == parse_location("s3://bucket/brains/two.zarr")
    assert pickle.loads(pickle.dumps(table)) == table  # noqa: S301 - our own
    assert hash(table) == hash(volume / "tables" / "m.parquet")


@pytest.mark.parametrize("escape", ["../two.zarr", "/other", "0/../../two.zarr", "../one.zarr2"])
def test_what_leads_out_of_a_volume_is_not_relative_to_it(escape):
    volume = parse_location("s3://bucket/brains/one.zarr")
    assert (volume / "labels/../0").resolve().is_relative_to(volume)
    assert not (volume / escape).resolve().is_relative_to(volume)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/vol.zarr", "begins with ftp://"),
        ("s3:///vol.zarr", "expected s3://NAME/path"),
        ("https://host/vol.zarr?token=1", "without \\? or #"),
    ],
)
def test_other_urls_are_refused(text, said):
    with pytest.raises(ParameterError, match=said):
        parse_location(text)


def test_a_remote_path_is_never_taken_for_a_file_here():
    with pytest.raises(TypeError):
        open(parse_location("s3://bucket/key"))  # noqa: SIM115


def test_specs_name_bucket_and_folder(monkeypatch):
    assert kvstore_spec(Path("a/b")) == {"driver": "file", "path": "a/b"}
    spec = kvstore_spec(parse_location("s3://bucket/a/b"))
    assert (spec["driver"], spec["bucket"], spec["path"]) == ("s3", "bucket", "a/b/")
    assert spec["s3_request_retries"]["max_retries"] == 5
    assert "endpoint" not in spec
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000/")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    spec = kvstore_spec(parse_location("s3://bucket/a/b"))
    assert (spec["endpoint"], spec["aws_region"]) == ("http://localhost:9000", "us-east-1")
    assert spec["aws_credentials"] == {"type": "anonymous"}
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert kvstore_spec(parse_location("s3://bucket/a"))["aws_region"] == "eu-north-1"


@pytest.mark.parametrize("url", ["gs://bucket/a/b", "https://host:8080/a/b", "s3://bucket/a/b"])
def test_tensorstore_knows_the_specs(url):
    opened = ts.KvStore.Spec(kvstore_spec(parse_location(url)))
    assert opened.path.endswith("a/b/")


def test_the_number_of_retries_is_a_number(monkeypatch):
    monkeypatch.setenv("VOLSEG_RETRIES", "2")
    assert kvstore_spec(parse_location("gs://b/a"))["gcs_request_retries"]["max_retries"] == 2
    monkeypatch.setenv("VOLSEG_RETRIES", "-1")
    with pytest.raises(ParameterError, match="VOLSEG_RETRIES is a whole number"):
        kvstore_spec(parse_location("gs://b/a"))


def test_http_is_read_only():
    with pytest.raises(VolumeError, match="can only be read"):
        check_writable(parse_location("https://host/vol.zarr"))
    check_writable(parse_location("s3://bucket/vol.zarr"))
    check_writable(Path("vol.zarr"))


def test_scratch_of_a_url_lies_in_the_folder_that_is_named(tmp_path, monkeypatch):
    volume = RemotePath("s3", "bucket", "one.zarr")
    monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path))
    first = remote_scratch(volume)
    assert first.parent == tmp_path
    assert remote_scratch(RemotePath("s3", "other", "one.zarr")) != first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert remote_scratch(volume) != first, "the same name elsewhere is another volume"
    assert scratch_path(tmp_path / "vol.zarr") == tmp_path / "vol.zarr" / ".volseg"
    monkeypatch.delenv("VOLSEG_SCRATCH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert remote_scratch(volume).parent == tmp_path / "cache" / "volseg"


def test_errors_say_what_to_do():
    refused = ValueError("PERMISSION_DENIED: no [http_response_code='403']")
    assert "check the credentials" in explain("bucket", refused)
    busy = ValueError("ABORTED: All 5 retry attempts failed: [http_response_code='503'] [body='']")
    assert explain("bucket", busy).endswith("(HTTP status 503)")
