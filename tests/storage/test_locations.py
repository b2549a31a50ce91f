"""Places: what is a folder and what a URL, and how zarr-python is told of either."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from volseg.errors import ParameterError, VolumeError
from volseg.storage.connections import explain_failure, find_retries, s3_settings
from volseg.storage.locations import check_writable, parse_location, remote_scratch
from volseg.storage.remote import RemotePath, as_remote
from volseg.storage.stores import open_store
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
    assert parse_location(text).resolve() == Path(text).resolve()
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


def test_the_environment_says_how_to_connect(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert s3_settings() == {"region": "us-east-1"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000/")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    found = s3_settings()
    assert (found["endpoint"], found["region"]) == ("http://localhost:9000", "us-east-1")
    assert found["skip_signature"] is True
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert s3_settings()["region"] == "eu-north-1"


def test_credentials_come_from_the_environment_else_from_a_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n"
        "[other]\naws_access_key_id = d\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile other]\nregion = eu-west-1\n")
    found = s3_settings()
    assert (found["access_key_id"], found["secret_access_key"]) == ("a", "b%c")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert s3_settings() == {"region": "eu-west-1", "access_key_id": "d"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "e")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "f")
    assert (s3_settings()["access_key_id"], s3_settings()["secret_access_key"]) == ("e", "f")


@pytest.mark.parametrize("url", ["gs://bucket/a/b", "https://host:8080/a/b", "s3://bucket/a/b"])
def test_zarr_takes_the_stores(url):
    opened = open_store(parse_location(url))
    assert opened.path == "a/b"
    assert opened.store.read_only, "volseg alone writes what it creates"


def test_the_number_of_retries_is_a_number(monkeypatch):
    assert find_retries() == 5
    monkeypatch.setenv("VOLSEG_RETRIES", "2")
    assert find_retries() == 2
    monkeypatch.setenv("VOLSEG_RETRIES", "-1")
    with pytest.raises(ParameterError, match="VOLSEG_RETRIES is a whole number"):
        parse_location("gs://b/a").exists()


def test_without_obstore_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ParameterError, match=r"pip install 'volseg\[remote\]'"):
        parse_location("s3://a-bucket-of-its-own/a").exists()


def test_http_is_read_only():
    with pytest.raises(VolumeError, match="can only be read"):
        check_writable(parse_location("https://host/vol.zarr"))
    check_writable(parse_location("s3://bucket/vol.zarr"))
    check_writable(Path("vol.zarr"))


def test_scratch_of_a_url_lies_in_the_folder_that_is_named(tmp_path, monkeypatch):
    volume = RemotePath.at("s3", "bucket", "one.zarr")
    monkeypatch.setenv("VOLSEG_SCRATCH", str(tmp_path))
    first = remote_scratch(volume)
    assert first.parent == tmp_path
    assert remote_scratch(RemotePath.at("s3", "other", "one.zarr")) != first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert remote_scratch(volume) != first, "the same name elsewhere is another volume"
    assert scratch_path(tmp_path / "vol.zarr") == tmp_path / "vol.zarr" / ".volseg"
    monkeypatch.delenv("VOLSEG_SCRATCH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert remote_scratch(volume).parent == tmp_path / "cache" / "volseg"


def test_errors_say_what_to_do():
    refused = PermissionError("Client error with status 403 Forbidden: AccessDenied")
    assert "check the credentials" in explain_failure("bucket", refused)
    busy = RuntimeError("Generic S3 error: after 5 retries: HTTP status server error (503 Busy)")
    assert explain_failure("bucket", busy).endswith("(HTTP status 503)")
    form = "Error performing GET in 2ms\n elapsed: 2ms, retry_timeout: 1s, inner: {}"
    for inner, said in {
        "Http(HttpError { kind: Connect, source: dns error })": "does not answer; check the addr",
        "Http(HttpError { kind: Timeout })": "does not answer in time; check the address",
        "Generic { source: missing setting }": "a request to 'bucket' failed; check its name",
    }.items():
        assert said in explain_failure("bucket", RuntimeError(form.format(inner)))
