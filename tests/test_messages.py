"""No text of a library stands in a message: found by walking through the code."""

from __future__ import annotations

import ast
from pathlib import Path

from volseg import errors

SRC = Path(errors.__file__).parent
OWN = {name for name in vars(errors) if name.endswith("Error")}
KEPT = {
    # own words, which these raise as `ValueError` of Python's
    "storage/stores.py": "parse_json's",
    "sources/corrections.py": "parse_json's",
    "storage/cards.py": "the card's",
    "storage/ome.py": "read_levels'",
    "exchange/import_model.py": "the card's",
    "cli/options.py": "parse_sizes'",
    "stages/verify/relabel.py": "those of what is made again",
    "stages/verify/run.py": "those of what is made again",
    # what is no message to people, or of a fault of volseg's own, which is to be reported whole
    "engine/remote.py": "an error that travels, with its traceback",
    "engine/run.py": "a fault of volseg's own",
    "cli/session.py": "a fault of volseg's own",
    "stages/predict/tasks.py": "the size of what did not fit into memory",
    "storage/connections.py": "looked through, not shown",
    "stages/verify/sample.py": "shown of own errors alone",
}


def caught(handler: ast.ExceptHandler) -> set[str]:
    listed = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {getattr(e, "id", getattr(e, "attr", "?")) for e in listed}


def shown(handler: ast.ExceptHandler) -> list[int]:
    """List the lines that put the text of what was caught into other text, or raise it again."""
    put = [n.value for n in ast.walk(handler) if isinstance(n, ast.FormattedValue)]
    for node in ast.walk(handler):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            made = getattr(node.exc.func, "id", "").endswith("Error")
            put += node.exc.args if made else []
    found = []
    for value in put:
        inner = value.args[0] if isinstance(value, ast.Call) and value.args else value
        if isinstance(inner, ast.Name) and inner.id == handler.name:
            plain = value is inner or getattr(value.func, "id", "") in ("str", "repr")
            found += [value.lineno] * plain
    return found


def test_texts_of_libraries_stand_in_no_message():
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        name = path.relative_to(SRC).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            foreign = isinstance(node, ast.ExceptHandler) and node.name and not caught(node) <= OWN
            if foreign and (lines := shown(node)):
                found.setdefault(name, []).extend(lines)
    assert {k: v for k, v in found.items() if k not in KEPT} == {}
