# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU facts of a node, put together. Private to the collection."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver,
    driver_libraries,
    driver_packages,
    fabric,
    gpu_devices,
    gpu_health,
    gpu_usage,
    kernel,
    nvml,
    pci,
    tegra,
)


def _silence() -> nvml.Answer:
    return nvml.Answer({}, [], [])


def _ask_wsl(sysroot: str, timeout: float) -> Callable[[], nvml.Answer]:
    """Windows brings the library; the node itself never has one of its own."""
    live = os.path.abspath(sysroot) == "/"
    if os.path.exists(os.path.join(sysroot, nvml.WSL_LIBRARY.lstrip("/"))):
        return nvml.start(nvml.WSL_LIBRARY, timeout) if live else _silence
    if not os.path.exists(os.path.join(sysroot, "dev/dxg")):
        return _silence  # the first version of WSL, which has no GPUs at all
    message = (
        "Windows shows a GPU (/dev/dxg) but gave no NVIDIA library (/usr/lib/wsl/lib/libnvidia-ml.so.1): it is another "
        "maker's GPU, or Windows has no NVIDIA driver. Install NVIDIA's driver in Windows, then run: wsl --shutdown"
    )
    return lambda: nvml.Answer({}, [], [{"code": "GF-WSL-NO-LIBRARY", "message": message}])


def _ask_nvml(sysroot: str, virtualization: str, library: str | None, timeout: float) -> Callable[[], nvml.Answer]:
    """Starts asking; the answer is fetched when everything else was read."""
    if library is not None:
        return nvml.start(library, timeout)
    live = os.path.abspath(sysroot) == "/"
    # A recorded node: this machine's GPUs are not its GPUs.
    answer = None if live else nvml.recorded(sysroot)
    if answer is not None:
        return lambda: answer
    if virtualization == "wsl":
        return _ask_wsl(sysroot, timeout)
    # NVML would load the kernel module where it is not loaded, and facts change nothing.
    return nvml.start(nvml.LIBRARY, timeout) if live and driver.loaded("/").version else _silence


def _packages(sysroot: str, scan: pci.PciScan, loaded: bool) -> dict[str, driver_packages.Package]:
    traces = bool(scan.gpus) or loaded or bool(glob.glob(os.path.join(sysroot, "var/lib/dkms/nvidia*")))
    return driver_packages.installed(sysroot, ask_rpm=traces or bool(driver_libraries.versions(sysroot)))


def _broken(runfile: dict[str, Any] | None) -> list[dict[str, str]]:
    if not runfile or not runfile["problems"]:
        return []
    message = f"NVIDIA's installer left a driver {runfile['version'] or ''} that is not whole: "
    return [{"code": "GF-RUNFILE-BROKEN", "message": message + "; ".join(runfile["problems"])}]


def collect(sysroot: str = "/", nvml_library: str | None = None, nvml_timeout: float = 5.0) -> dict[str, Any]:
    """The facts ``gpufleet_gpu``, every key always there.

    :param sysroot: everything is read below it; other than ``/`` it is a recorded node.
    :param nvml_library: ask this NVML, whatever ``sysroot`` is; ``None`` asks the system's, only on ``/``.
    :param nvml_timeout: seconds after which NVML is abandoned.
    """
    virtualization = kernel.virtualization(sysroot)
    asked = _ask_nvml(sysroot, virtualization, nvml_library, nvml_timeout)
    kernel_facts = kernel.facts(sysroot)
    scan = pci.scan(sysroot)
    board = tegra.facts(sysroot)
    is_loaded = driver.loaded(sysroot).version is not None
    packages = _packages(sysroot, scan, is_loaded)
    health = gpu_health.facts(sysroot, bool(scan.gpus) or is_loaded)
    answer = asked()
    # Only now: NVML's own process has the GPUs open while it is asked.
    processes = gpu_usage.look(sysroot, is_loaded)
    sources = gpu_devices.Sources(sysroot, virtualization, scan, answer, board)
    devices, misfits = gpu_devices.find(sources)
    node = driver.Node(sysroot, kernel_facts, virtualization, scan.gpus, packages, board is not None)
    driver_facts = driver.facts(node, answer.system)
    if any(error["code"] == "GF-NVML-MISMATCH" for error in answer.errors):
        driver_facts["mismatch"] = True
    pids = [process["pid"] for device in devices for process in device["processes"] or []]
    usable = sum(not device["passthrough"] for device in devices)
    services = None if virtualization in ("wsl", "container") else processes.services  # the host's are not to be seen
    return {
        "present": bool(devices),
        "count": len(devices),
        "usable": usable,
        "virtualization": virtualization,
        "tegra": board,
        "devices": devices,
        "driver": driver_facts,
        "fabric": fabric.facts(scan, virtualization, packages, services, driver_facts),
        "kernel": kernel_facts,
        "health": health,
        "persistence_daemon": None if services is None else gpu_usage.PERSISTENCE_DAEMON in services,
        "busy": gpu_usage.busy(sysroot, processes.holders, pids),
        "reboot_needed": driver.reboot_needed(driver_facts, 0 if board else usable, virtualization),
        "errors": [*answer.errors, *misfits, *_broken(driver_facts["runfile"])],
    }
