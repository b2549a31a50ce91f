"""How TensorStore reaches folders and object storage: connections, retries, and what errors mean.

Connections are set by the environment variables that other programs for object storage know, so a
volume's URL and the environment say all that there is to say.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from volseg.errors import ParameterError

if TYPE_CHECKING:
    import tensorstore as ts

DRIVERS = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}
"""TensorStore's name for what stands behind each scheme."""
RETRIES = 5
FIRST_DELAY, LONGEST_DELAY = "500ms", "8s"
"""Of the waits between tries, which double: about 16 s and 5 retries until a request has failed."""
QUIET = {
    "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "10",
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "20",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
}
"""Seconds until a server that says nothing counts as gone; the environment may say otherwise."""
USUAL_REGION = "us-east-1"
DENIED = re.compile(
    r"PERMISSION_DENIED|UNAUTHENTICATED|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|http_response_code='40[13]'"
)


def remote_spec(scheme: str, root: str, key: str) -> dict[str, Any]:
    """Describe a place on object storage to TensorStore.

    Parameters
    ----------
    scheme : one of `DRIVERS`
    root : bucket, or host and port
    key : names joined by ``/``; empty for the root itself

    Returns
    -------
    dict
        JSON-like. Requests that fail for a while are repeated, up to `RETRIES` times or as often
        as VOLSEG_RETRIES says, with waits that grow.

    Raises
    ------
    ParameterError
        If VOLSEG_RETRIES is no such number.
    """
    for name, seconds in QUIET.items():
        os.environ.setdefault(name, seconds)
    driver, below = DRIVERS[scheme], f"{key}/" if key else ""
    retries = {
        "max_retries": _retries(),
        "initial_delay": FIRST_DELAY,
        "max_delay": LONGEST_DELAY,
    }
    if driver == "http":
        base = f"{scheme}://{root}/"
        return {"driver": driver, "base_url": base, "path": below, "http_request_retries": retries}
    spec = {"driver": driver, "bucket": root, "path": below}
    if driver == "gcs":
        return {**spec, "gcs_request_retries": retries}
    return {**spec, "s3_request_retries": retries, **_s3_connection()}


def _retries() -> int:
    text = os.environ.get("VOLSEG_RETRIES", str(RETRIES))
    if not text.isdecimal() or int(text) < 1:
        raise ParameterError(f"VOLSEG_RETRIES is a whole number from 1 on, found {text!r}")
    return int(text)


def _s3_connection() -> dict[str, Any]:
    found = os.environ
    connection: dict[str, Any] = {}
    endpoint = found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL")
    region = found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION")
    if endpoint:
        connection |= {"endpoint": endpoint.rstrip("/"), "aws_region": region or USUAL_REGION}
    elif region:
        connection["aws_region"] = region
    if found.get("AWS_NO_SIGN_REQUEST", "").lower() in {"1", "yes", "true"}:
        connection["aws_credentials"] = {"type": "anonymous"}
    elif found.get("AWS_ACCESS_KEY_ID"):
        # else files in the home folder are looked for first, and reported as missing
        connection["aws_credentials"] = {"type": "environment"}
    return connection


def open_store(spec: dict[str, Any]) -> ts.KvStore:
    """Open a place once per process, by what `remote_spec` says."""
    return _opened(json.dumps(spec, sort_keys=True))


@lru_cache(maxsize=256)
def _opened(spec: str) -> ts.KvStore:
    import tensorstore as ts

    return ts.KvStore.open(json.loads(spec)).result()


def is_refused(error: BaseException) -> bool:
    """Tell an error that no repetition mends: no such bucket, or no permission."""
    return bool(DENIED.search(str(error))) or "NoSuchBucket" in str(error)


def explain(root: str, error: BaseException) -> str:
    """Say why a request to a bucket or host failed, and what to do."""
    said, text = str(error).split(" [", 1)[0], str(error)
    if "NoSuchBucket" in text:
        return f"there is no bucket {root!r}; check its name, and AWS_ENDPOINT_URL"
    if DENIED.search(text):
        return (
            f"the server refused access to {root!r} ({said}); check the credentials, such as "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they permit"
        )
    if "Requested byte range" in text:
        return (
            f"{root} sends whole files where parts are asked for, and volumes are read in parts; "
            f"use a web server that knows range requests, or copy the volume"
        )
    status = re.search(r"http_response_code='(\d+)'", text)
    return f"{said} (HTTP status {status[1]})" if status else said
