"""A cluster of tests: its scheduler listens to this machine alone, and has no dashboard."""

from __future__ import annotations

from typing import Any

QUIET: dict[str, Any] = {
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
}
"""For `distributed.LocalCluster`; Dask's dashboard takes seconds to import."""
