# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a GPU now, with user and devices, and the wait until nobody does. Private to the collection.

Nothing here ends a process: jobs are waited for, or the driver is left as it is.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import driver_state, gpu_usage, kernel, nvml
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

# Hold the devices without doing anybody's work; the kernel cuts a name to 15 letters.
SERVICES = {
    gpu_usage.PERSISTENCE_DAEMON: "keeps the driver initialised",
    "nv-fabricmanage": "runs the NVSwitches",
    "nvidia-imex": "shares memory between nodes",
    "nvlsm": "runs the NVSwitches' subnet",
    "nvidia-powerd": "shares out power",
    "nv-hostengine": "is DCGM, which monitors",
    "dcgm-exporter": "passes on DCGM's figures",
}
# Looks at a GPU, whoever calls it.
LOOKERS = {"nvidia-smi": "only looks"}
# Users' ids begin here: a job does not become a service by taking a service's name.
FIRST_USER = 1000
INTERVAL = 5.0
_MOST_NAMED = 8


class Look(NamedTuple):
    """One look: everybody's work, the services that were passed over with the reason, and what can't be seen."""

    users: list[dict[str, Any]]
    services: list[dict[str, Any]]
    unseen: int
    errors: list[dict[str, str]]


def _uid(root: str, pid: int) -> int | None:
    match = re.search(r"^Uid:\s+(\d+)", read_text(os.path.join(root, "proc", str(pid), "status")) or "", re.MULTILINE)
    return int(match[1]) if match else None


def _user(root: str, uid: int | None) -> str | None:
    if uid is None:
        return None
    if os.path.abspath(root) == "/":
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)  # the user of a container
    for line in (read_text(os.path.join(root, "etc/passwd")) or "").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(uid):
            return clean(fields[0])
    return str(uid)


def _is_gpu(root: str, target: str) -> bool:
    """Whether an open file is a device of an NVIDIA GPU: its own, or one of the display's (/dev/dri)."""
    if target.startswith("/dev/nvidia"):
        return True
    if not target.startswith("/dev/dri/"):
        return False
    return read_text(os.path.join(root, "sys/class/drm", os.path.basename(target), "device/vendor")) == "0x10de"


def _devices(root: str, pid: int) -> set[str] | None:
    """The devices that a process has open; None where it hides them from us."""
    found = set()
    folder = os.path.join(root, "proc", str(pid), "fd")
    try:
        descriptors = os.listdir(folder)
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EPERM) else set()  # else it ended meanwhile
    for descriptor in descriptors:
        try:
            target = os.readlink(os.path.join(folder, descriptor))
        except OSError:
            continue  # closed meanwhile
        if _is_gpu(root, target):
            found.add(clean(target))
    return found


def _reason(name: str | None, uid: int | None) -> str | None:
    """Why a process counts as nobody's work; None where it is somebody's."""
    if name in LOOKERS:
        return LOOKERS[name]
    return SERVICES.get(name or "") if uid is not None and uid < FIRST_USER else None


def _ask(root: str, library: str | None) -> nvml.Answer:
    if library is not None:
        return nvml.ask(library)
    live = os.path.abspath(root) == "/"
    if not live:
        return nvml.recorded(root) or nvml.Answer({}, [], [])
    # NVML would load a module that is not loaded, and this only looks.
    return nvml.ask() if driver_state.loaded_modules("/")["version"] else nvml.Answer({}, [], [])


def _known_to_nvml(root: str, answer: nvml.Answer) -> set[int]:
    pids = {process["pid"] for device in answer.devices for process in device["processes"] or []}
    # In a container NVML names processes that can't be seen here; elsewhere such a process has just ended.
    if kernel.virtualization(root) == "container":
        return pids
    return {pid for pid in pids if os.path.isdir(os.path.join(root, "proc", str(pid)))}


def look(root: str = "/", library: str | None = None) -> Look:
    """One walk over all processes, after NVML was asked: its own process has the GPUs open meanwhile."""
    answer = _ask(root, library)
    known = _known_to_nvml(root, answer)
    try:
        pids = {int(name) for name in os.listdir(os.path.join(root, "proc")) if name.isdigit()}
    except OSError:
        pids = set()
    users, services, unseen = [], [], 0
    for pid in sorted((pids | known) - {os.getpid()}):
        devices = _devices(root, pid)
        if devices is None and pid not in known:
            unseen += 1
        if not devices and pid not in known:
            continue
        name, uid = gpu_usage.name_of(root, pid), _uid(root, pid)
        row = {"pid": pid, "name": name, "user": _user(root, uid), "devices": sorted(devices or ())}
        reason = _reason(name, uid)
        if reason is None:
            users.append(row)
        else:
            services.append({**row, "reason": reason})
    return Look(users, services, unseen, answer.errors)


def named(processes: Iterable[dict[str, Any]]) -> str:
    """Processes for a message: ``python (4711) of alice on /dev/nvidia0``."""
    rows = list(processes)
    texts = []
    for row in rows[:_MOST_NAMED]:
        text = f"{row['name'] or '?'} ({row['pid']})" + (f" of {row['user']}" if row["user"] else "")
        texts.append(text + (f" on {', '.join(row['devices'])}" if row["devices"] else ""))
    more = len(rows) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


def wait(
    minutes: float,
    see: Callable[[], Look],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Look, float]:
    """Look until nobody uses a GPU or the time is over: the last look, and the seconds that were waited."""
    start = clock()
    while True:
        seen = see()
        passed = clock() - start
        left = minutes * 60 - passed
        if not seen.users or left <= 0:
            return seen, passed
        sleep(min(INTERVAL, left))


def require_idle(seen: Look, waited: float = 0.0) -> None:
    """Whether the driver may be touched.

    :raises GpufleetError: GF-GPU-BUSY where a process uses a GPU, GF-GPU-UNSEEN where that can't be told.
    """
    if seen.users:
        after = f" after {waited / 60:.0f} minutes of waiting" if waited >= 60 else ""
        raise GpufleetError(
            "GF-GPU-BUSY",
            f"processes use the GPU{after}, so its driver is not touched: {named(seen.users)}",
            "jobs are running on the node, or a desktop is open on the GPU",
            "wait for them or drain the node, then run this play again, or give them time: nvidia_driver_wait_idle "
            "(minutes); nothing was changed",
        )
    if seen.unseen:
        raise GpufleetError(
            "GF-GPU-UNSEEN",
            f"{seen.unseen} processes hide their open files, so nobody can say whether the GPU is in use",
            "this ran without root's rights, or in a container that may not look at the others' processes",
            "run the play with become: true (ansible-playbook --become); nothing was changed",
        )
