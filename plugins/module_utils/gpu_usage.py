# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes use a GPU now, and which of the driver's services run. Private to the collection."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean_or_none
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

PERSISTENCE_DAEMON = "nvidia-persiste"
# The driver's own services and NVIDIA's monitoring hold the devices all the time; they are no one's work.
# The kernel cuts a process name to 15 letters.
_SERVICES = {PERSISTENCE_DAEMON, "nv-fabricmanage", "nvidia-powerd", "nv-hostengine", "dcgm-exporter", "nvidia-smi"}


class Processes(NamedTuple):
    """Who holds a device of NVIDIA's, and which services run; None where processes can't be seen at all."""

    holders: list[int]
    services: frozenset[str] | None


def name_of(sysroot: str, pid: int) -> str | None:
    """The name of a process, as its own maker set it, made fit to be shown."""
    return clean_or_none(read_text(os.path.join(sysroot, "proc", str(pid), "comm")))


def _holds(folder: str) -> bool | None:
    """Whether a process has a device of NVIDIA's open; None where it does not let us look."""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        for descriptor in os.listdir(directory):
            try:
                if os.readlink(descriptor, dir_fd=directory).startswith("/dev/nvidia"):
                    return True
            except OSError:
                continue  # closed meanwhile
    except OSError:
        return None  # it ended meanwhile
    finally:
        os.close(directory)
    return False


def look(sysroot: str, driver_loaded: bool) -> Processes:
    """One walk over all processes; root sees everybody's open files, others only their own."""
    try:
        pids = sorted(int(name) for name in os.listdir(os.path.join(sysroot, "proc")) if name.isdigit())
    except OSError:
        pids = []
    if not pids:
        return Processes([], None)
    holders, services = [], set()
    for pid in pids if driver_loaded else ():
        held = _holds(os.path.join(sysroot, "proc", str(pid), "fd"))
        if held:
            holders.append(pid)
        # A service of the driver holds its devices; only of one that hides its files the name has to be asked.
        if held is not False:
            name = name_of(sysroot, pid)
            if name in _SERVICES:
                services.add(name)
    return Processes(holders, frozenset(name for name in services if name))


def with_names(sysroot: str, processes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """NVML's processes with their names; a process of another PID namespace has none here."""
    return [{"pid": process["pid"], "name": name_of(sysroot, process["pid"])} for process in processes]


def busy(sysroot: str, holders: Iterable[int], known: Iterable[int]) -> list[dict[str, Any]]:
    """Everybody's work on the GPUs: what NVML named, and who has a device open."""
    pids = {*known, *holders} - {os.getpid()}
    found = [{"pid": pid, "name": name_of(sysroot, pid)} for pid in sorted(pids)]
    return [process for process in found if process["name"] not in _SERVICES]
