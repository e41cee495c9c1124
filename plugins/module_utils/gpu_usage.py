# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes use a GPU now, and whether the fabric manager runs. Private to the collection."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import packages
from ansible_collections.gpufleet.stack.plugins.module_utils.driver import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

# The driver's own services and NVIDIA's monitoring hold the devices all the time; they are no one's work.
# The kernel cuts a process name to 15 letters.
_SERVICES = {"nvidia-persiste", "nv-fabricmanage", "nvidia-powerd", "nv-hostengine", "dcgm-exporter", "nvidia-smi"}
_MANAGER = "nv-fabricmanage"


def _pids(sysroot: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(os.path.join(sysroot, "proc")) if name.isdigit())
    except OSError:
        return []


def _name(sysroot: str, pid: int) -> str | None:
    return read_text(os.path.join(sysroot, "proc", str(pid), "comm"))


def _holders(sysroot: str) -> Iterator[int]:
    """Processes that hold a device file of NVIDIA's open; root sees everybody's, others only their own."""
    for pid in _pids(sysroot):
        folder = os.path.join(sysroot, "proc", str(pid), "fd")
        try:
            descriptors = os.listdir(folder)
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
        for descriptor in descriptors:
            try:
                if os.readlink(os.path.join(folder, descriptor)).startswith("/dev/nvidia"):
                    yield pid
                    break
            except OSError:
                continue  # closed meanwhile


def with_names(sysroot: str, processes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """NVML's processes with their names; a process of another PID namespace has none here."""
    return [{"pid": process["pid"], "name": _name(sysroot, process["pid"])} for process in processes]


def busy(sysroot: str, driver_loaded: bool, known: Iterable[int]) -> list[dict[str, Any]]:
    """Everybody's work on the GPUs: what NVML named, and who has a device open."""
    pids = set(known)
    if driver_loaded:
        pids.update(_holders(sysroot))
    pids.discard(os.getpid())
    found = [{"pid": pid, "name": _name(sysroot, pid)} for pid in sorted(pids)]
    return [process for process in found if process["name"] not in _SERVICES]


def fabric(sysroot: str, nvswitches: int) -> dict[str, Any]:
    """NVSwitches on the PCI bus, and the manager that such a node can't compute without."""
    if not nvswitches:
        return {"nvswitches": 0, "manager_version": None, "manager_active": None}
    found = packages.installed_versions(None, sysroot)
    versions = [upstream(found[name]) for name in sorted(found) if name.startswith("nvidia-fabricmanager")]
    return {
        "nvswitches": nvswitches,
        "manager_version": next((version for version in versions if version), None),
        "manager_active": any(_name(sysroot, pid) == _MANAGER for pid in _pids(sysroot)),
    }
