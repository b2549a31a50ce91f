"""Hooks of the documentation site: figures that it draws itself, and links that leave docs/.

Pages are written for the repository's web page, too, where a link may lead to any file; the site
has those of docs/ alone. So a link that leaves docs/ becomes the name of the file.
"""

from __future__ import annotations

import os
import posixpath
import re
import runpy
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]*)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Take links away whose target is no page of the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def keep(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[2]))
        return f"{found[1]} (`{target[3:]}`)" if target.startswith("../") else found[0]

    return LINK.sub(keep, markdown)


def on_post_build(*, config: Any, **_: Any) -> None:
    """Draw the figures of the explanation anew, in place of those that the repository holds."""
    if os.environ.get("VOLSEG_DOCS_FIGURES") != "0":
        script = Path(config.docs_dir) / "figures" / "draw.py"
        runpy.run_path(str(script))["draw"](Path(config.site_dir) / "images" / "drawn")
