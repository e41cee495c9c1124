# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which environment is active, who may work on it, and what killed runs left. Private to the collection."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import contextmanager
from typing import Iterator

from ansible_collections.gpufleet.stack.plugins.module_utils import environment_history, process_use
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import (
    BUILDING,
    COMPLETE,
    DOOMED,
    Place,
    Wanted,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


@contextmanager
def alone(wanted: Place) -> Iterator[int]:
    """Hold the lock of the environment's name; answers its descriptor, which children of ours keep open as well."""
    path = os.path.join(os.path.dirname(wanted.link), ".lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wanted.lock_wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= deadline:
                    raise _busy(wanted, path) from error
                time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _busy(wanted: Place, path: str) -> GpufleetError:
    try:
        with open(path, encoding="ascii", errors="replace") as handle:
            holder = handle.read().strip() or "unknown"
    except OSError:
        holder = "unknown"
    return GpufleetError(
        "GF-BUSY",
        f"another run works on environment {wanted.name} (process {holder}); waited {wanted.lock_wait:g} s",
        "two runs at once on the same node, or a child of a killed run that still writes",
        "wait until that run has ended and run the playbook again",
    )


def clean_up(wanted: Wanted) -> None:
    """Remove what killed runs left. Only ever directories with our own mark, never what ``current`` leads to."""
    directory = os.path.dirname(wanted.link)
    current = os.path.realpath(wanted.link)
    for entry in list(os.scandir(directory)):
        if entry.name.startswith(DOOMED):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif not process_use.users_of([entry.path]):
                # One that was pruned while a process began to work from it stays until that has ended.
                shutil.rmtree(entry.path)
        elif entry.is_dir(follow_symlinks=False) and os.path.exists(os.path.join(entry.path, BUILDING)):
            if os.path.exists(os.path.join(entry.path, COMPLETE)):
                os.unlink(os.path.join(entry.path, BUILDING))
            elif os.path.realpath(entry.path) != current:
                remove(entry.path)


def remove(path: str) -> None:
    """Remove a directory; renamed first, so that a removal cut off half-way leaves nothing that looks whole."""
    doomed = os.path.join(os.path.dirname(path), DOOMED + os.path.basename(path))
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def switch(wanted: Wanted) -> None:
    """Let ``current`` lead to the environment, by one rename: there is no moment without it."""
    if leads_to(wanted.link, wanted.path):
        return
    environment_history.note(wanted.link, wanted.path)
    point(wanted.link, wanted.path)


def leads_to(link: str, path: str) -> bool:
    """Whether ``current`` is a link to this environment."""
    return os.path.islink(link) and os.path.realpath(link) == os.path.realpath(path)


def point(link: str, path: str) -> None:
    """Set ``current`` by one rename.

    :raises GpufleetError: GF-PATH-OCCUPIED
    """
    if os.path.exists(link) and not os.path.islink(link):
        raise GpufleetError(
            "GF-PATH-OCCUPIED",
            f"{link} is there and is not a link",
            "somebody put a directory or file where the link to the active environment belongs",
            f"move it away: mv {link} {link}.moved",
        )
    directory = os.path.dirname(link)
    temporary = os.path.join(directory, f"{DOOMED}link-{os.getpid()}")
    os.symlink(os.path.relpath(path, directory), temporary)
    os.replace(temporary, link)
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
