"""Connections to object storage by obstore: credentials, retries, and what errors mean.

Connections are set by the environment variables that other programs for object storage know, so a
volume's URL and the environment say all that there is to say.
"""

from __future__ import annotations

import configparser
import json
import os
import re
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import ParameterError, require

if TYPE_CHECKING:
    from obstore.store import GCSStore, HTTPStore, S3Store

SCHEMES = ("s3", "gs", "http", "https")
RETRIES = 5
FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=0.5), timedelta(seconds=8)
"""Of the waits between tries, which double."""
PATIENCE = timedelta(minutes=3)
"""From the first try of a request to the beginning of the last."""
QUIET = timedelta(seconds=20)
"""Until a server that says nothing counts as gone."""
CONNECTING = timedelta(seconds=10)
LONGEST_REQUEST = timedelta(hours=1)
USUAL_REGION = "us-east-1"
DENIED = re.compile(
    r"PermissionDenied|Unauthenticated|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|status code: 40[13]|status: 40[13]"
)
CODE = re.compile(r"<Code>(\w{1,60})</Code>")
LATE = re.compile(r"kind: Timeout|TimedOut|TimeoutError|timed out")
UNANSWERED = re.compile(r"kind: (?:Connect|Request|Interrupted)\b|Connection\w*Error|dns error")
STATUS = re.compile(r"\b(?:status(?: code)?:?|HTTP status [a-z]+ error \() *(\d{3})")


def find_retries() -> int:
    """Read how often a failed request is repeated: 5 times, or what VOLSEG_RETRIES says."""
    text = os.environ.get("VOLSEG_RETRIES", str(RETRIES))
    if not text.isdecimal() or int(text) < 1:
        raise ParameterError(f"VOLSEG_RETRIES is a whole number from 1 on, found {text!r}")
    return int(text)


def connect(scheme: str, root: str) -> S3Store | GCSStore | HTTPStore:
    """Connect to a bucket or a host, once per process and environment.

    Parameters
    ----------
    root : bucket, or host and port
    """
    settings = s3_settings() if scheme == "s3" else {}
    return _connected(scheme, root, json.dumps(settings, sort_keys=True), find_retries())


@lru_cache(maxsize=64)
def _connected(
    scheme: str, root: str, settings: str, retries: int
) -> S3Store | GCSStore | HTTPStore:
    words = f"{scheme}://{root} lies on object storage, which needs obstore"
    require("obstore", "remote", words)
    from obstore import store

    backoff: Any = {"init_backoff": FIRST_DELAY, "max_backoff": LONGEST_DELAY, "base": 2}
    options: dict[str, Any] = {
        "client_options": {
            "timeout": LONGEST_REQUEST,
            "connect_timeout": CONNECTING,
            "read_timeout": QUIET,
            "allow_http": True,
        },
        "retry_config": {"max_retries": retries, "retry_timeout": PATIENCE, "backoff": backoff},
    }
    if scheme == "s3":
        return store.S3Store(root, config=json.loads(settings), **options)
    if scheme == "gs":
        return store.GCSStore(root, **options)
    return store.HTTPStore.from_url(f"{scheme}://{root}/", **options)


def s3_settings() -> dict[str, Any]:
    """Read the environment, and the user's files for Amazon's programs, as obstore takes them."""
    found, profile = os.environ, _profile()
    endpoint = found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL")
    region = found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION") or profile.get("region")
    settings: dict[str, Any] = {"region": region or USUAL_REGION}
    if endpoint:
        settings["endpoint"] = endpoint.rstrip("/")
    if found.get("AWS_NO_SIGN_REQUEST", "").lower() in {"1", "yes", "true"}:
        settings["skip_signature"] = True
    elif not found.get("AWS_ACCESS_KEY_ID"):
        names = ("access_key_id", "secret_access_key", "session_token")
        settings |= {n: profile[f"aws_{n}"] for n in names if f"aws_{n}" in profile}
    else:
        names = ("access_key_id", "secret_access_key", "session_token")
        settings |= {n: found[f"AWS_{n.upper()}"] for n in names if f"AWS_{n.upper()}" in found}
    return settings


def _profile() -> dict[str, str]:
    """Read the profile that AWS_PROFILE names, else `default`, from the files in ``~/.aws``."""
    name = os.environ.get("AWS_PROFILE", "default")
    folder = Path.home() / ".aws"
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials"
    settings = os.environ.get("AWS_CONFIG_FILE") or folder / "config"
    found: dict[str, str] = {}
    for file, section in ((settings, f"profile {name}"), (settings, name), (credentials, name)):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        if parser.has_section(section):
            found |= dict(parser.items(section))
    return found


def is_refused(error: BaseException) -> bool:
    """Tell an error that no repetition mends: no such bucket, or no permission."""
    return bool(DENIED.search(_text(error))) or "NoSuchBucket" in str(error)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def explain_failure(root: str, error: BaseException) -> str:
    """Say why a request to a bucket or host failed, and what to do."""
    text = _text(error)
    status, named = STATUS.search(text), CODE.search(text)
    code = f" ({named[1]})" if named else ""
    if "NoSuchBucket" in text:
        return f"there is no bucket {root!r}; check its name, and AWS_ENDPOINT_URL"
    if DENIED.search(text):
        return (
            f"the server refused access to {root!r}{code}; check the credentials, such as "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they permit"
        )
    if "Range request not supported" in text or "non-partial response" in text:
        return (
            f"{root} sends whole files where parts are asked for, and volumes are read in parts; "
            f"use a web server that knows range requests, or copy the volume"
        )
    if status is not None:
        return (
            f"the server of {root!r} does not do what it is asked{code} (HTTP status {status[1]})"
        )
    late = " in time" if LATE.search(text) else ""
    if late or UNANSWERED.search(text):
        return f"the server of {root!r} does not answer{late}; check the address and the network"
    return f"a request to {root!r} failed; check its name, and the environment's settings for it"
