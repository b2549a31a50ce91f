"""Put the reports of studies on one page of the documentation, with a few of their figures.

    python studies/seed_pages.py seeds

``seeds`` holds the folders of results: 000 to 004, as far as they were run. Of the others what the
page has is kept.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FIGURES = DOCS / "seed-tables.md", DOCS / "images" / "seeds"
SHOWN = {
    "000": ("figs-8-9-loss", "figs-10-12-masks"),
    "001": ("overlays",),
    "002": ("figs-1-to-10-and-13-masks", "fig-12-precision-recall-roc", "fractions"),
    "003": ("fig-3-comparison", "fig-4-fractions"),
    "004": ("figs-1-to-8-exploration", "figs-11-12-test", "whole-slice", "explanation"),
}
WIDEST = 900
HEAD = """\
# Tables of the five documents

What `studies/seed000.py` to `seed004.py` ([how](studies.md)) made at the budget of a laptop:
networks of an eighth of the published widths, minutes of training in place of hours. So these
numbers show that a table is made by one command, and which way settings push at so small a budget;
they are not what the networks reach. Published values stand beside ours. Other work shared the
machine, so seconds tell little. The machine is 2 cores of an AMD EPYC, without a GPU: document 004
was run on one with AVX2 alone, the others on one with bfloat16.
"""


def page_of(seed: str, folder: Path) -> str:
    """Take a report as a section of the page, and copy its figures."""
    text = (folder / "report.md").read_text(encoding="utf-8")
    text = re.sub(r"--data \S+ --output \S+?(?=[ `])", f"--data annotated --output {seed}", text)
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    found = []
    for name in SHOWN[seed]:
        if (folder / f"{name}.png").exists():
            with Image.open(folder / f"{name}.png") as opened:
                figure = opened.convert("RGB")
                figure.thumbnail((WIDEST, 2 * WIDEST))
                target = FIGURES / f"{seed}-{name}.png"
                figure.quantize(96).save(target, optimize=True)
            found.append(f"![{seed}, {name}](images/seeds/{target.name})\n")
    kept = [line for line in text.splitlines() if not line.startswith("![")]
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(kept))
    return body.replace("### Why", "\n".join([*found, "### Why"])).strip() + "\n"


def kept_parts() -> dict[str, str]:
    """Take the sections that the page has, by document."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = re.findall(
        r"^(## Document (\d+).*?\n)(?=^## Document|\Z)", text, re.MULTILINE | re.DOTALL
    )
    return {seed: part.strip() + "\n" for part, seed in found}


def main() -> None:
    """Write the page."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    parts = kept_parts()
    folders = {seed: Path(sys.argv[1]) / seed for seed in SHOWN}
    parts |= {k: page_of(k, f) for k, f in folders.items() if (f / "report.md").exists()}
    missing = [seed for seed in SHOWN if seed not in parts]
    noun = "document" if len(missing) == 1 else "documents"
    told = f"Of {noun} {', '.join(missing)} there is no run yet.\n" if missing else ""
    shown = [parts[seed] for seed in SHOWN if seed in parts]
    PAGE.write_text("\n".join([HEAD, *([told] if told else []), *shown]), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
