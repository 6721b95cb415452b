"""Mutations of files: of their bytes, of the leaves of their JSON, and of what lies inside their containers."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

Draws = random.Random
HERE = "\x00here"  # where text is put that json would not write
NUMBERS = (0, -1, 1, 2, 7, 255, 65_537, 2**31 - 1, 2**31, 2**62, 10**30, 0.5, -0.0, 1e-300, 1e300)
TEXTS = (
    "",
    "\x00",
    "\x1b[2Jgone",
    "x" * 5000,
    "../../escaped",
    "/tmp/rdd-edge-escaped",
    "é",
    "🙂",
    "epsilon",
    "linear",
)
RAW = ("NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', "[" * 5000, "9" * 5000)
WORDS = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")


def mutated(content: bytes, draws: Draws, value: Any = None) -> bytes:
    """One to three mutations of a file, by what it seems to be.  value: for a leaf of a JSON document."""
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        kind = _kind(content)
        content = (kind if draws.random() < 0.6 else _bytes)(content, draws, value)
    return content


def _kind(content: bytes) -> Any:
    if content[:1] in (b"{", b"["):
        return _json
    if content[8:9] == b"{":
        return _safetensors
    if content[:2] == b"\x1f\x8b":
        return _gzip
    if content[:2] == b"PK":
        return _zip
    if content[:4] == b"\x89PNG":
        return _png
    return _pickle if content[:1] == b"\x80" else _bytes


def _bytes(content: bytes, draws: Draws, value: Any = None) -> bytes:
    changed, at = bytearray(content), draws.randrange(len(content) + 1)
    count, action = draws.choice((1, 2, 4, 8, 64)), draws.randrange(8)
    if action == 0 and content:
        changed[at % len(content)] ^= 1 << draws.randrange(8)
    elif action == 1:
        changed[at : at + count] = draws.randbytes(count)
    elif action == 2:
        del changed[at:]
    elif action == 3:
        changed[at:at] = draws.randbytes(count)
    elif action == 4:
        del changed[at : at + count]
    elif action == 5:
        changed[at:at] = changed[draws.randrange(len(content) + 1) :][: 8 * count]
    elif action == 6:
        changed[at : at + count] = bytes(count)
    else:
        changed[at : at + 4] = draws.choice(WORDS)
    return bytes(changed)


def _json(content: bytes, draws: Draws, value: Any = None) -> bytes:
    """A leaf, a key or a part of a document replaced, removed or doubled."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, draws)
    places = list(_places(document))
    if not places:
        return _bytes(content, draws)
    parent, key = draws.choice(places)
    action = draws.randrange(8)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, dict):
        parent["unknown" if draws.random() < 0.5 else key + key] = parent[key]
    elif action == 2:
        parent[key] = [parent[key]] * draws.choice((0, 1, 2, 2000))
    elif action == 3:
        parent[key] = draws.choice(TEXTS)
    elif action == 4:
        parent[key] = value
    elif action == 5:
        parent[key] = HERE
    elif action == 6 and isinstance(parent, dict):
        return json.dumps(document).replace(f'"{key}":', f'"{key}": 1, "{key}":', 1).encode()
    else:
        parent[key] = draws.choice((*NUMBERS, True, None, {}, []))
    return json.dumps(document).replace(json.dumps(HERE), draws.choice(RAW)).encode()


def _places(value: Any) -> Any:
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def _safetensors(content: bytes, draws: Draws, value: Any = None) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = _json(content[8 : 8 + size], draws, value)
    body = content[8 + size :] if draws.random() < 0.5 else _bytes(content[8 + size :], draws)
    return len(header).to_bytes(8, "little") + header + body


def _gzip(content: bytes, draws: Draws, value: Any = None) -> bytes:
    try:
        return gzip.compress(_bytes(gzip.decompress(content), draws), 1, mtime=0)
    except (OSError, EOFError, zlib.error):
        return _bytes(content, draws)


def _zip(content: bytes, draws: Draws, value: Any = None) -> bytes:
    """An entry changed, with its checksum, and compressed or not."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return _bytes(content, draws)
    name = draws.choice(list(entries) or ["x"])
    entries[name] = draws.choice((mutated, _bytes))(entries.get(name, b""), draws)
    if draws.random() < 0.2:
        entries.pop(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draws.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, entry in entries.items():
            archive.writestr(zipfile.ZipInfo(name), entry)
    return buffer.getvalue()


def _png(content: bytes, draws: Draws, value: Any = None) -> bytes:
    """Another size or depth in the header, with its checksum."""
    header = bytearray(content[12:29])
    at = draws.choice((4, 8, 12))
    number = draws.choice((0, 1, 2, 8, 16, 200, 9_000, 13_000, 2**31))
    header[at : at + 4] = struct.pack(">I", number) if at < 12 else draws.randbytes(4)
    return content[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + content[33:]


def _pickle(content: bytes, draws: Draws, value: Any = None) -> bytes:
    """Opcodes with large arguments, calls and references put in."""
    parts = (b"r" + struct.pack("<I", draws.choice((0, 7, 2**28, 2**31))), b"R", b"b", b"0", b"2", b"(", b"t", b"}",
             b"]" + b"2a" * 20, b"X\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"cnumpy\nload\n", b"cbuiltins\neval\n",
             b"I99999999999999999999\n", b"\x8b\xff\xff\xff\x7f", b"K\x05\x85R")  # fmt: skip
    at = draws.randrange(len(content) + 1)
    return content[:at] + draws.choice(parts) + content[at:]
