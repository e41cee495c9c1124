# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA kernel module of a kernel: version, licence and signature out of its file. Private to the collection."""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

_MODULE_FILE = re.compile(
    r"^(\S*/)?nvidia(-current(-open)?|-open|-tesla(-\d+)?|-legacy-\d+xx)?\.ko(\.(gz|xz|zst))?$",
)
_SIGNATURE = b"~Module signature appended~\n"
_SMALL = 1024 * 1024


class ModuleFile(NamedTuple):
    """What a module's file says; None is unknown."""

    version: str | None
    flavour: str | None
    signed: bool | None


NOTHING = ModuleFile(None, None, None)


def flavour_of_license(text: str) -> str | None:
    """NVIDIA's own licence is the proprietary modules', any other the open ones'."""
    if not text:
        return None
    return "proprietary" if text == "NVIDIA" else "open"


def _section(stream: BinaryIO, wanted: bytes) -> bytes:
    """A section of a 64-bit ELF file; the module has 60 MB and more, its .modinfo some hundred bytes."""
    header = stream.read(64)
    if header[:5] != b"\x7fELF\x02" or len(header) < 64:
        return b""
    order = "<" if header[5] == 1 else ">"
    (offset,) = struct.unpack_from(order + "Q", header, 40)
    size, count, names_index = struct.unpack_from(order + "HHH", header, 58)
    if size != 64 or names_index >= count:
        return b""
    stream.seek(offset)
    table = stream.read(size * count)
    # name, type, flags, address, offset, size: the rest of a row is not needed.
    rows = [struct.unpack_from(order + "IIQQQQ", table, size * number) for number in range(len(table) // size)]
    if names_index >= len(rows):
        return b""
    stream.seek(rows[names_index][4])
    names = stream.read(min(rows[names_index][5], _SMALL))
    for row in rows:
        if names[row[0] : names.find(b"\0", row[0])] == wanted:
            stream.seek(row[4])
            return stream.read(min(row[5], _SMALL))
    return b""


def inspect(path: str) -> ModuleFile:
    """What an uncompressed module says of itself; unpacking a compressed one takes seconds, so it says nothing."""
    if not path.endswith(".ko"):
        return NOTHING
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - len(_SIGNATURE)))
            signed = stream.read() == _SIGNATURE
            stream.seek(0)
            information = b"\0" + (_section(stream, b".modinfo") or _whole(stream, size))
    except (OSError, ValueError, struct.error, OverflowError):
        return NOTHING  # unreadable, or its headers lie
    version = re.search(rb"\0version=(\d{3}\.[\d.]+)\0", information)
    licence = re.search(rb"\0license=([^\0]+)\0", information)
    return ModuleFile(
        version.group(1).decode() if version else None,
        flavour_of_license(licence.group(1).decode("utf-8", "replace") if licence else ""),
        signed,
    )


def _whole(stream: BinaryIO, size: int) -> bytes:
    """The whole of a small file: a recorded node may keep no more of a module than its .modinfo."""
    stream.seek(0)
    return stream.read() if size <= _SMALL else b""


def of_kernel(sysroot: str, release: str | None) -> ModuleFile:
    """The module that a kernel would load, as depmod last wrote it down."""
    if not release:
        return NOTHING
    base = os.path.join(sysroot, "lib/modules", release)
    listed = read_text(os.path.join(base, "modules.dep")) or ""
    for line in listed.splitlines() if "nvidia" in listed else ():
        path = line.split(":", 1)[0]
        if _MODULE_FILE.match(path):
            return inspect(os.path.join(base, path))
    return NOTHING
