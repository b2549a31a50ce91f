"""Damage files on purpose: bytes of any kind, and formats whose structure is known.

Each mutator takes a source of chance and a file's content, and returns other content. The same
chance gives the same content, so that what was found can be found again.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutator = Callable[[random.Random, bytes], bytes]

HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, 10**30, -(2**63))
NESTED = "@nested@"
"""Stands for lists in lists, deeper than any parser follows; put in once the text is made."""
DEEP = 20_000
TEXTS = ("", "../../outside", "/etc/passwd", "a\0b", "x" * 100_000, "\ud800", "nan", "file:///etc")


def hostile(chance: random.Random) -> Any:
    """Choose a value that nobody expects."""
    numbers = (-1, 0, 1, 3, 0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"), *HUGE)
    others = (None, True, False, [], {}, [[]], {"a": {"b": []}}, [1, 2], [0, 0, 0], NESTED)
    return chance.choice(chance.choice((numbers, TEXTS, others)))


def flip(chance: random.Random, content: bytes) -> bytes:
    """Flip some bits."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 32)) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, content: bytes) -> bytes:
    """Cut off the end."""
    return content[: chance.randrange(len(content) + 1)]


def splice(chance: random.Random, content: bytes) -> bytes:
    """Repeat, remove or overwrite a part."""
    a, b = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    at = chance.randrange(len(content) + 1)
    part = content[a : min(b, a + 4096)]
    return chance.choice(
        (content[:at] + part + content[at:], content[:a] + content[b:], content[:at] + part)
    )


def overwrite(chance: random.Random, content: bytes) -> bytes:
    """Overwrite a number of some width, as those that say how long something is."""
    width = chance.choice((1, 2, 4, 8))
    if len(content) <= width:
        return content
    at = chance.randrange(min(len(content), chance.choice((64, 1024, 10**9))) - width + 1)
    value = chance.choice((0, 1, 255, 10**9, *HUGE)) % 256**width
    number = value.to_bytes(width, chance.choice(("little", "big")))
    return content[:at] + number + content[at + width :]


def digits(chance: random.Random, content: bytes) -> bytes:
    """Replace the digits of a number that is written in text."""
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return flip(chance, content)
    number = chance.choice(found)
    new = str(chance.choice((0, 9, 99999999, *HUGE))).encode()
    if chance.random() < 0.5:  # of the same length, so that nothing else moves
        new = (new * 20)[: number.end() - number.start()]
    return content[: number.start()] + new + content[number.end() :]


def any_bytes(chance: random.Random, content: bytes) -> bytes:
    """Damage content of any kind."""
    return chance.choice((flip, cut, splice, overwrite, digits))(chance, content)


def change_value(chance: random.Random, value: Any) -> Any:
    """Change something in nested lists and mappings, at any depth."""
    inner = list(value) if isinstance(value, dict) else range(len(value))
    if not inner:
        return hostile(chance)
    key, copy = chance.choice(list(inner)), value.copy()
    what = chance.random()
    if what < 0.1:
        del copy[key]
    elif what < 0.15 and isinstance(copy, dict):
        copy[chance.choice((*TEXTS[:4], key + "x"))] = copy.pop(key)
    elif what < 0.2 and isinstance(copy, list):
        copy.extend([copy[key]] * chance.choice((1, 3, 1000)))
    elif isinstance(copy[key], dict | list) and chance.random() < 0.9:
        copy[key] = change_value(chance, copy[key])
    else:
        copy[key] = hostile(chance)
    return copy


def _structured(chance: random.Random, value: Any, write: Callable[[Any], str]) -> bytes:
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        value = change_value(chance, value) if isinstance(value, dict | list) else value
    text = write(value).encode("utf-8", "surrogatepass")
    depth = chance.choice((100, DEEP))
    return text.replace(f'"{NESTED}"'.encode(), b"[" * depth + b"]" * depth)


def change_json(chance: random.Random, content: bytes) -> bytes:
    """Change a value of a JSON file, or now and then its bytes."""
    if chance.random() < 0.15:
        return any_bytes(chance, content)
    return _structured(chance, json.loads(content), json.dumps)


def change_lines(chance: random.Random, content: bytes) -> bytes:
    """Change one line of a file of JSON lines, repeat one, or damage bytes."""
    if chance.random() < 0.15:
        return any_bytes(chance, content)
    lines = content.splitlines()
    k = chance.randrange(len(lines))
    lines[k] = change_json(chance, lines[k])
    return b"\n".join([*lines, lines[k]]) + b"\n"


def change_yaml(chance: random.Random, content: bytes) -> bytes:
    """Change a value of a YAML file, name a tag, or damage bytes."""
    import yaml

    what = chance.random()
    if what < 0.1:
        return any_bytes(chance, content)
    if what < 0.15:
        return content + b"\nx: !!python/object/apply:os.mkdir ['outside']\n"
    if what < 0.2:  # each line refers to the one before ten times
        rows = (f"b{k}: &b{k} [{', '.join([f'*b{k - 1}'] * 10)}]\n" for k in range(1, 12))
        return content + b"\nb0: &b0 [1]\n" + "".join(rows).encode()
    return _structured(chance, yaml.safe_load(content), json.dumps)


def change_toml(chance: random.Random, content: bytes) -> bytes:
    """Change a value of a TOML file, or damage bytes."""
    if chance.random() < 0.2:
        return any_bytes(chance, content)
    from volseg.storage.recipes import format_toml

    try:
        return _structured(chance, tomllib.loads(content.decode()), format_toml)
    except (AttributeError, TypeError):  # what TOML has no words for
        return digits(chance, content)


def change_tiff(chance: random.Random, content: bytes) -> bytes:
    """Change an entry of a directory of a little-endian TIFF, let directories loop, or any byte."""
    if chance.random() < 0.4:
        return any_bytes(chance, content)
    big = content[2] == 43
    where, entry, number = (8, 20, "<Q") if big else (4, 12, "<I")
    head = struct.calcsize("<Q" if big else "<H")
    changed, size = bytearray(content), struct.calcsize(number)
    (at,) = struct.unpack_from(number, content, where)
    links, entries = [where], []
    while 0 < at < len(content) - head and len(links) < 50:
        (count,) = struct.unpack_from("<Q" if big else "<H", content, at)
        entries += [at + head + k * entry for k in range(count)]
        links.append(at + head + count * entry)
        (at,) = struct.unpack_from(number, content, links[-1])
    limit = 256**size
    if chance.random() < 0.15:
        back = struct.unpack_from(number, content, chance.choice(links))[0]
        struct.pack_into(number, changed, chance.choice(links), back)
        return bytes(changed)
    for _ in range(chance.choice((1, 1, 3))):
        at = chance.choice(entries)
        value = chance.choice((0, 1, 7, 65535, 10**9, *HUGE, chance.randrange(len(content))))
        if chance.random() < 0.3:
            struct.pack_into("<H", changed, at + 2, chance.randrange(20))
        place = chance.choice((4, entry - size))
        struct.pack_into(number, changed, at + place, value % limit)
    return bytes(changed)


def change_png(chance: random.Random, content: bytes) -> bytes:
    """Change the header of a PNG, with a checksum that fits, or any byte."""
    if chance.random() < 0.6:
        return any_bytes(chance, content)
    header = bytearray(content[12:29])
    width, height = (chance.choice((0, 1, 20, 24, 10**6, 2**31 - 1, 2**32 - 1)) for _ in range(2))
    if chance.random() < 0.7:
        struct.pack_into(">II", header, 4, width, height)
    else:
        header[chance.randrange(12, 17)] = chance.randrange(20)
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def change_safetensors(chance: random.Random, content: bytes) -> bytes:
    """Change the header of a safetensors file, which is JSON, or any byte."""
    if chance.random() < 0.3:
        return any_bytes(chance, content)
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    known = [k for k in metadata if metadata[k].startswith("{")]
    if known and chance.random() < 0.6:  # text that is JSON itself
        key = chance.choice(known)
        metadata[key] = change_json(chance, metadata[key].encode()).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = _structured(chance, header, json.dumps)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def change_zip(chance: random.Random, content: bytes) -> bytes:
    """Damage a zip, or the content or the name of a file in it."""
    if chance.random() < 0.5:
        return any_bytes(chance, content)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        names = old.namelist()
        chosen = chance.choice(names)
        for name in names:
            entry, changed = old.read(name), name
            if name == chosen and chance.random() < 0.8:
                entry = any_bytes(chance, entry)
            elif name == chosen:
                changed = chance.choice(("../../outside", "/etc/passwd", f"a/../../{name}", "a:b"))
            method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            new.writestr(changed, entry, method)
    return packed.getvalue()
