# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest reader of ELF files that finds a section. Private to the collection.

A library of torch's is up to a gigabyte, of which one section of less than a megabyte holds the texts: its headers say
where, and nothing else is read from the disk.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

_MAX_SECTIONS = 4096  # the largest libraries have some forty
_MAX_ROW = 256
_MAX_NAMES = 1 << 20


class _Layout(NamedTuple):
    """Where the parts stand in the header, and the fields of a row in the table of sections."""

    table_at: int
    table_format: str
    counts_at: int
    row: str  # name, type, flags, address, offset, size


_LAYOUTS = {1: _Layout(0x20, "I", 0x2E, "IIIIII"), 2: _Layout(0x28, "Q", 0x3A, "IIQQQQ")}  # of 32 bits, of 64


def _at(stream: BinaryIO, offset: int, size: int) -> bytes:
    if offset > stream.seek(0, 2):
        raise ValueError("this leads out of the file")
    stream.seek(offset)
    return stream.read(size)


def section(path: str, name: str, limit: int = 64 * 1024 * 1024) -> bytes | None:
    """The content of a section, or None where the file is no ELF file, is damaged, or has no such section.

    :param limit: a section that claims to be longer is not believed.
    :raises OSError: the file can't be read.
    """
    with open(path, "rb") as stream:
        try:
            return _section(stream, name.encode(), limit)
        except (struct.error, ValueError, OverflowError):
            return None  # cut off, or its numbers lead out of the file


def _section(stream: BinaryIO, name: bytes, limit: int) -> bytes | None:
    header = _at(stream, 0, 64)
    if header[:4] != b"\x7fELF" or header[4] not in _LAYOUTS or header[5] not in (1, 2):
        return None
    layout, order = _LAYOUTS[header[4]], "<" if header[5] == 1 else ">"
    (table,) = struct.unpack_from(order + layout.table_format, header, layout.table_at)
    size, count, names_index = struct.unpack_from(order + "HHH", header, layout.counts_at)
    row = struct.Struct(order + layout.row)
    if count > _MAX_SECTIONS or names_index >= count or not row.size <= size <= _MAX_ROW:
        return None
    rows = _at(stream, table, size * count)
    places = [
        (fields[0], fields[4], fields[5]) for fields in (row.unpack_from(rows, index * size) for index in range(count))
    ]
    _name, start, length = places[names_index]
    names = _at(stream, start, min(length, _MAX_NAMES))
    for name_at, start, length in places:
        if names[name_at : name_at + len(name) + 1] == name + b"\0":
            content = _at(stream, start, length) if length <= limit else b""
            return content if len(content) == length and length else None
    return None
