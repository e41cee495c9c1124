# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's log says about the GPUs: NVIDIA's Xid errors. Private to the collection.

On the node itself the kernel is asked for its ring buffer in one call; /dev/kmsg would have to be read record by
record. Of a recorded node the log files are read. Never more than the last MiB.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean_or_none

LOG_FILES = ("var/log/dmesg", "var/log/kern.log")
LIMIT = 1024 * 1024
_MOST_ROWS = 64
_READ_ALL = 3
# "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus."
_XID = re.compile(
    rb"NVRM: Xid \((?:PCI:)?([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.[0-7])?\): (\d{1,4})(?:, ([^\n]*))?"
)


def kernel_log(limit: int = LIMIT) -> bytes | None:
    """The end of the kernel's ring buffer; None without the right to read it."""
    try:
        call = ctypes.CDLL(None).klogctl
    except (OSError, AttributeError):
        return None  # not Linux's C library
    buffer = ctypes.create_string_buffer(limit)
    length = int(call(ctypes.c_int(_READ_ALL), buffer, ctypes.c_int(limit)))
    return ctypes.string_at(buffer, length) if length >= 0 else None


def _file_end(path: str, limit: int = LIMIT) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - limit))
            return stream.read(limit)
    except OSError:
        return None


def xids(log: bytes) -> list[dict[str, Any]]:
    """Each kind of error on each GPU once, with how often it came and its last message."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for match in _XID.finditer(log):
        address = match.group(1).decode().lower() + ".0"
        key = (int(match.group(2)), address)
        if key not in found and len(found) >= _MOST_ROWS:
            continue
        row = found.setdefault(key, {"code": key[0], "pci_address": address, "message": None, "count": 0})
        row["count"] += 1
        row["message"] = clean_or_none((match.group(3) or b"").decode("utf-8", "replace"), 200)
    return [found[key] for key in sorted(found)]


def facts(sysroot: str, wanted: bool) -> dict[str, Any]:
    """The ``health`` part of the facts; ``wanted`` is whether the node has anything that could write an Xid."""
    if not wanted:
        return {"xid": None, "source": None}
    if os.path.abspath(sysroot) == "/":
        log = kernel_log()
        return {"xid": None if log is None else xids(log), "source": None if log is None else "kernel"}
    for path in LOG_FILES:
        log = _file_end(os.path.join(sysroot, path))
        if log is not None:
            return {"xid": xids(log), "source": path}
    return {"xid": None, "source": None}
