# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for another apt or dpkg to end. Private to the collection.

apt itself waits for dpkg's lock only (DPkg::Lock::Timeout); the locks of its lists and of its archive fail at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import Callable

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/lib/apt/lists/lock",
    "var/cache/apt/archives/lock",
)
STEP = 2.0  # seconds between two looks


def held(root: str = "/") -> str | None:
    """The first lock that some process holds, or None."""
    for lock in LOCKS:
        path = os.path.join(root, lock)
        if os.path.exists(path) and _is_held(path):
            return path
    return None


def _is_held(path: str) -> bool:
    with open(path, "r+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return True
            raise
    return False


def holder(path: str, proc: str = "/proc") -> str:
    """Who holds a lock, in words: the kernel's list names locks by inode."""
    inode = str(os.stat(path).st_ino)
    try:
        with open(os.path.join(proc, "locks"), encoding="utf-8") as stream:
            rows = [line.split() for line in stream]
        process = next(row[4] for row in rows if len(row) > 5 and row[5].rsplit(":", 1)[-1] == inode)
        with open(os.path.join(proc, process, "cmdline"), encoding="utf-8", errors="replace") as stream:
            return f"process {process} ({stream.read().replace(chr(0), ' ').strip()})"
    except (OSError, StopIteration):
        return "a process that cannot be seen from here"


def wait(seconds: float, root: str = "/", sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until nobody holds a lock.

    :param seconds: the longest wait.
    :raises GpufleetError: GF-APT-LOCKED
    """
    end = time.monotonic() + seconds
    path = held(root)
    while path is not None:
        if time.monotonic() >= end:
            raise GpufleetError(
                "GF-APT-LOCKED",
                f"another package manager is at work: {holder(path)} has held {path} for more than {seconds:g} s",
                "unattended upgrades, or an apt or dpkg that waits for an answer in some terminal",
                "let it end (ps, journalctl -u apt-daily-upgrade), then run the playbook again",
            )
        sleep(STEP)
        path = held(root)
