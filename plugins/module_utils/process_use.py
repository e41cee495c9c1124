# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes work from a directory. Private to the collection."""

from __future__ import annotations

import os
from collections.abc import Iterable


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""  # it ended meanwhile, or is a thread of the kernel


def _paths_of(process: str) -> set[str]:
    """Everything that a process has to do with: program, words of its command, libraries, working directory, environment.

    The program of an environment's Python is the system's; only its first word, and what it imports, tell where it
    works from. A link in a word (``current``) is followed.
    """
    words = [word for word in _read(os.path.join(process, "cmdline")).split("\0") if word.startswith("/")]
    paths = {os.path.join(os.path.realpath(os.path.dirname(word)), os.path.basename(word)) for word in words}
    for line in _read(os.path.join(process, "maps")).splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            paths.add(fields[5])
    for setting in _read(os.path.join(process, "environ")).split("\0"):
        # An activated environment: its Python is called by its name alone, and may have loaded nothing yet.
        if setting.startswith("VIRTUAL_ENV=/"):
            paths.add(os.path.realpath(setting.partition("=")[2]))
    for name in ("cwd", "exe"):
        try:
            paths.add(os.readlink(os.path.join(process, name)))
        except OSError:
            continue
    return paths


def _ancestors(proc: str) -> set[str]:
    """This process and those that started it: the run itself is nobody's work."""
    found, pid = set(), str(os.getpid())
    while pid not in ("", "0") and pid not in found:
        found.add(pid)
        # The name in brackets may hold blanks.
        fields = _read(os.path.join(proc, pid, "stat")).rpartition(")")[2].split()
        pid = fields[1] if len(fields) > 1 else ""
    return found


def users_of(directories: Iterable[str], proc: str = "/proc") -> dict[str, list[str]]:
    """``{directory: ["name (pid)"]}`` of the directories that processes work from."""
    real = {directory: os.path.realpath(directory) + "/" for directory in directories}
    users: dict[str, list[str]] = {}
    own = _ancestors(proc)
    pids = sorted((name for name in os.listdir(proc) if name.isdigit()), key=int) if real else []
    for pid in pids:
        if pid in own:
            continue
        process = os.path.join(proc, pid)
        paths = _paths_of(process)
        for directory, inside in real.items():
            if any((path + "/").startswith(inside) for path in paths):
                users.setdefault(directory, []).append(f"{_read(os.path.join(process, 'comm')).strip() or '?'} ({pid})")
    return users
