"""Docstrings with their options, which functions get when they are loaded (decision 0053)."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import griffe


class Options(griffe.Extension):
    """Take the docstring of a public function from the function itself."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace what stands in the source."""
        if func.docstring is None or not func.path.startswith("api.") or func.name[0] == "_":
            return
        if any("takes" in str(decorator.value) for decorator in func.decorators):
            loaded = getattr(import_module(f"volseg.{func.module.path}"), func.name)
            func.docstring.value = inspect.cleandoc(loaded.__doc__)
