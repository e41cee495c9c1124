# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes work from a directory, and which use a GPU. Private to the collection."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import gpu
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""  # it ended meanwhile, or is a thread of the kernel


def _paths_of(process: str) -> set[str]:
    """Everything that a process has to do with: program, words of its command, libraries, working directory.

    The program of an environment's Python is the system's; only its first word, and what it imports, tell where it
    works from. A link in a word (``current``) is followed.
    """
    words = [word for word in _read(os.path.join(process, "cmdline")).split("\0") if word.startswith("/")]
    paths = {os.path.join(os.path.realpath(os.path.dirname(word)), os.path.basename(word)) for word in words}
    for line in _read(os.path.join(process, "maps")).splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            paths.add(fields[5])
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


def refuse_trees_in_use(directories: Iterable[str], proc: str = "/proc") -> None:
    """Stop before anything is removed where a process works from one of the directories.

    :raises GpufleetError: GF-ENVIRONMENT-IN-USE, with every directory and process by name.
    """
    users = users_of(directories, proc)
    if users:
        named = "; ".join(f"{directory} by {', '.join(processes)}" for directory, processes in sorted(users.items()))
        raise GpufleetError(
            "GF-ENVIRONMENT-IN-USE",
            f"in use: {named}",
            "jobs or shells on the node run from it",
            "wait for them to end or drain the node, then run remove.yml again; nothing was changed",
        )


def refuse_busy_gpus(gpu_sysroot: str) -> None:
    """Stop before anything is removed where processes use a GPU through the loaded driver.

    :raises GpufleetError: GF-GPU-BUSY.
    """
    facts = gpu.collect(sysroot=gpu_sysroot)
    if facts["driver"]["loaded_version"] is None or not facts["busy"]:
        return
    names = ", ".join(f"{process['name'] or '?'} ({process['pid']})" for process in facts["busy"])
    raise GpufleetError(
        "GF-GPU-BUSY",
        f"processes use the GPU, so its driver is not removed: {names}",
        "jobs are running on the node",
        "wait for them or drain the node, then run remove.yml again; nothing was changed",
    )
