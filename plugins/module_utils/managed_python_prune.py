# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Managed interpreters that no environment is made from any more. Private to the collection.

They go with the last environment that was made from them: what a user made from one of these has lost its torch with it.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import time
from contextlib import contextmanager
from typing import Iterable, Iterator

from ansible_collections.gpufleet.stack.plugins.module_utils import process_use
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import COMPLETE
from ansible_collections.gpufleet.stack.plugins.module_utils.managed_python import OLD
from ansible_collections.gpufleet.stack.plugins.module_utils.mounts import SHARED, file_system

# Another run may have brought it a moment ago, for an environment that it is about to build.
FRESH_SECONDS = 3600


def surplus(prefix: str, interpreters: Iterable[str], without: Iterable[str] = ()) -> list[str]:
    """The directories of interpreters that came with us, that the plan does not name and no environment is made from.

    :param interpreters: those of the plan, with their full path.
    :param without: environments that do not count, since they are to go.
    """
    used = {os.path.realpath(os.path.dirname(path)) for path in interpreters} | _homes(prefix, set(without))
    found = []
    for complete in sorted(glob.glob(os.path.join(glob.escape(prefix), "python", "*", COMPLETE))):
        path = os.path.dirname(complete)
        fresh = time.time() - os.stat(complete).st_mtime < FRESH_SECONDS
        below = os.path.realpath(path) + os.sep
        if not (fresh or path.endswith(OLD) or any(each.startswith(below) for each in used)):
            found.append(path)
    return found


def prune(
    prefix: str, interpreters: Iterable[str], without: Iterable[str] = (), proc: str = "/proc", check_mode: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Remove them, but for those that a process runs or that other nodes may use.

    :returns: the directories that went, and of each that stays the reason.
    """
    gone: list[str] = []
    kept: dict[str, str] = {}
    for path in surplus(prefix, interpreters, without):
        why = _reason_to_stay(path, proc)
        if why is not None:
            kept[path] = why
            continue
        if not check_mode:
            with _alone(path) as mine:
                if not mine or path not in surplus(prefix, interpreters, without):
                    continue
                # Half of one is complete for nobody, and makes way when the interpreter is wanted again.
                os.unlink(os.path.join(path, COMPLETE))
                shutil.rmtree(path)
        gone.append(path)
    return gone, kept


def _homes(prefix: str, without: set[str]) -> set[str]:
    """The directories of the interpreters that environments are made from; of those too that were never finished."""
    homes = set()
    for folder in glob.glob(os.path.join(glob.escape(prefix), "envs", "*")):
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            if entry.path in without:
                continue
            try:
                with open(os.path.join(entry.path, "pyvenv.cfg"), encoding="utf-8") as handle:
                    lines = [line.partition("=") for line in handle]
            except OSError:
                continue
            homes |= {os.path.realpath(value.strip()) for name, _sign, value in lines if name.strip() == "home"}
    return homes


def _reason_to_stay(path: str, proc: str) -> str | None:
    kind = file_system(path)
    if kind in SHARED:
        return f"other nodes may use it ({kind})"
    users = process_use.users_of([path], proc)
    return f"in use by {', '.join(users[path])}" if users else None


@contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Whether no other run brings interpreters now (``managed_python``); one that does is not waited for."""
    with open(os.path.join(os.path.dirname(path), ".lock"), "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
