# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for another dnf to end. Private to the collection.

dnf itself waits for another one without an end; its locks are files with the number of the process that holds them.
"""

from __future__ import annotations

import os
import time
from typing import Callable

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

LOCKS = (
    "var/lib/dnf/rpmdb_lock.pid",
    "var/cache/dnf/metadata_lock.pid",
    "var/cache/dnf/download_lock.pid",
)
STEP = 2.0  # seconds between two looks


def held(root: str = "/") -> str | None:
    """The first lock whose process lives, or None. A file that a dead process left is no lock, for dnf neither."""
    for lock in LOCKS:
        path = os.path.join(root, lock)
        if _command(_owner(path), root) is not None:
            return path
    return None


def _owner(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _command(process: str, root: str) -> str | None:
    """The command line of a living process, None where there is no such process."""
    if not process.isdigit():
        return None
    try:
        with open(os.path.join(root, "proc", process, "cmdline"), encoding="utf-8", errors="replace") as stream:
            return stream.read().replace("\0", " ").strip()
    except OSError:
        return None


def wait(seconds: float, root: str = "/", sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until nobody holds a lock.

    :param seconds: the longest wait.
    :raises GpufleetError: GF-DNF-LOCKED
    """
    end = time.monotonic() + seconds
    path = held(root)
    while path is not None:
        if time.monotonic() >= end:
            process = _owner(path)
            raise GpufleetError(
                "GF-DNF-LOCKED",
                f"another package manager is at work: process {process} ({_command(process, root) or 'ended just now'}) "
                f"has held {path} for more than {seconds:g} s",
                "dnf-automatic, PackageKit, or a dnf that waits for an answer in some terminal",
                "let it end (ps, journalctl -u dnf-automatic), then run the playbook again",
            )
        sleep(STEP)
        path = held(root)
