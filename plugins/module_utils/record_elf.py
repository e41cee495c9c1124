# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node needs to hold of a large ELF file: one section of its text. Private to the collection."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_ROW = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC, _X86_64 = 3, 62
_PROGBITS, _STRTAB = 1, 3


def build(name: str, content: bytes) -> bytes:
    """A 64-bit ELF file that has this section and nothing to run."""
    names = b"\0" + name.encode() + b"\0"
    rows_at = _HEADER.size
    names_at = rows_at + 3 * _ROW.size
    header = _HEADER.pack(b"\x7fELF\2\1\1", _DYNAMIC, _X86_64, 1, 0, 0, rows_at, 0, _HEADER.size, 0, 0, _ROW.size, 3, 1)
    nothing = bytes(_ROW.size)
    texts = _ROW.pack(0, _STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0)
    section = _ROW.pack(1, _PROGBITS, 0, 0, names_at + len(names), len(content), 0, 0, 1, 0)
    return header + nothing + texts + section + names + content
