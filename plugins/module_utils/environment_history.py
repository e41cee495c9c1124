# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which environments of a name were active last, and which of them may go. Private to the collection."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import process_use
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_files import added_packages
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import (
    COMPLETE,
    DOOMED,
    HISTORY,
    Wanted,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.mounts import SHARED, file_system


class Pruned(NamedTuple):
    """The environments that went, and of each that was to go and stayed the reason."""

    gone: list[str]
    kept: dict[str, str]


def note(link: str, path: str) -> None:
    """Write down that an environment becomes active now; before it does, so that a run that is killed forgets none."""
    directory, name = os.path.dirname(link), os.path.basename(path)
    names = [each for each in _noted(directory) if each != name] + [name]
    names = [each for each in names if os.path.isdir(os.path.join(directory, each))]
    temporary = os.path.join(directory, f"{DOOMED}history-{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as handle:
        handle.write("".join(f"{each}\n" for each in names))
    os.replace(temporary, os.path.join(directory, HISTORY))


def _noted(directory: str) -> list[str]:
    try:
        with open(os.path.join(directory, HISTORY), encoding="utf-8", errors="replace") as handle:
            return handle.read().splitlines()
    except OSError:
        return []


def surplus(wanted: Wanted) -> list[str]:
    """The finished environments beyond those that stay: the wanted one, and of the others the last ones that were active."""
    directory = os.path.dirname(wanted.link)
    noted = {name: number for number, name in enumerate(_noted(directory))}
    others = []
    for entry in os.scandir(directory) if os.path.isdir(directory) else ():
        complete = os.path.join(entry.path, COMPLETE)
        finished = entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and os.path.exists(complete)
        if finished and os.path.realpath(entry.path) != os.path.realpath(wanted.path):
            others.append((noted.get(entry.name, -1), os.stat(complete).st_mtime, entry.path))
    others.sort(reverse=True)
    return [path for _number, _time, path in others[max(wanted.keep - 1, 0) :]]


def prune(wanted: Wanted, proc: str = "/proc", check_mode: bool = False) -> Pruned:
    """Remove the environments beyond those that stay. None that a process works from, and nothing that a user added."""
    pruned = Pruned([], {})
    for path in surplus(wanted):
        why = _reason_to_stay(path, wanted, proc)
        if why is None and not check_mode:
            why = _take_away(path, proc)
        if why is None:
            pruned.gone.append(path)
        else:
            pruned.kept[path] = why
    return pruned


def _reason_to_stay(path: str, wanted: Wanted, proc: str) -> str | None:
    if os.path.realpath(wanted.link) == os.path.realpath(path) and not os.path.isdir(wanted.path):
        return "it is active"
    kind = file_system(path)
    if kind in SHARED:
        return f"other nodes may use it ({kind})"
    added = added_packages(path)
    if added:
        return f"{', '.join(added)} added since"
    return _used(path, proc)


def _used(path: str, proc: str) -> str | None:
    users = process_use.users_of([path], proc)
    return f"in use by {', '.join(users[path])}" if users else None


def _take_away(path: str, proc: str) -> str | None:
    """Out of sight first: a process that began meanwhile is seen then, and nothing new can begin."""
    doomed = os.path.join(os.path.dirname(path), DOOMED + os.path.basename(path))
    os.rename(path, doomed)
    why = _used(doomed, proc)
    if why is not None:
        os.rename(doomed, path)
        return why
    shutil.rmtree(doomed)
    return None
