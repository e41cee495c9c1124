# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dynamic loader's cache, /etc/ld.so.cache, read as the loader does. Private to the collection."""

from __future__ import annotations

import struct

_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0"
_HEADER = struct.Struct("<20sII20x")
_ENTRY = struct.Struct("<iIIIQ")
_ELF_LIBC6 = 3
# The second byte of an entry's flags: of 64 bits on x86, Arm and POWER. CUDA's libraries are 64-bit ones.
_64_BITS = (0x0300, 0x0A00, 0x0500)
_MAX_BYTES = 64 * 1024 * 1024


def _start(data: bytes) -> int:
    """Where the cache of today's format begins: glibc before 2.32 wrote an old one in front of it."""
    if not data.startswith(_OLD_MAGIC):
        return 0
    (count,) = struct.unpack_from("<I", data, 12)
    return int((16 + 12 * count + 7) // 8 * 8)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "replace")


def entries(data: bytes) -> list[tuple[str, str]]:
    """Library name and path of each 64-bit library, the one that the loader prefers first; empty for a damaged cache.

    :param data: the file's content.
    """
    try:
        start = _start(data)
        magic, count, _strings = _HEADER.unpack_from(data, start)
        if magic != _MAGIC:
            return []
        rows = (_ENTRY.unpack_from(data, start + _HEADER.size + index * _ENTRY.size) for index in range(count))
        return [
            (_text(data, start + name), _text(data, start + path))
            for flags, name, path, _os, capabilities in rows
            # Variants for certain processors stand beside a plain one, which is there for all.
            if flags & 0xFF == _ELF_LIBC6 and flags & 0xFF00 in _64_BITS and not capabilities
        ]
    except (struct.error, ValueError):
        return []  # cut off, or a text without end


def read(path: str) -> list[tuple[str, str]] | None:
    """The entries of the cache file, or None where it can't be read."""
    try:
        with open(path, "rb") as stream:
            return entries(stream.read(_MAX_BYTES))
    except OSError:
        return None


def build(libraries: list[tuple[str, str]]) -> bytes:
    """A cache of 64-bit x86 libraries in today's format, for records of nodes and for tests."""
    texts, rows = b"", []
    base = _HEADER.size + len(libraries) * _ENTRY.size
    for name, path in libraries:
        places = []
        for text in (name, path):
            places.append(base + len(texts))
            texts += text.encode() + b"\0"
        rows.append(_ENTRY.pack(_ELF_LIBC6 | 0x0300, *places, 0, 0))
    return _HEADER.pack(_MAGIC, len(libraries), len(texts)) + b"".join(rows) + texts
