# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU facts of a node, put together. Private to the collection.

NVML knows most, the PCI bus knows before any driver is there; a GPU that NVML does not show (lost, hung, bound to
another driver) is still listed, as the bus sees it.
"""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import driver, gpu_ids, gpu_usage, kernel, nvml, pci


def _from_pci(device: pci.PciDevice, index: int | None, names: gpu_ids.Names) -> dict[str, Any]:
    chip = gpu_ids.lookup(device.device_id)
    return {
        "index": index,
        "pci_address": device.address,
        "pci_id": device.pci_id,
        "name": names.of(device.device_id),
        "architecture": chip.architecture if chip else None,
        "compute_capability": chip.compute_capability if chip else None,
        "memory_mib": None,
        "uuid": None,
        "numa_node": device.numa_node,
        "mig": {"enabled": None, "instances": []},
        "ecc": {"enabled": None, "uncorrected": None},
        "pcie": dict(device.pcie._asdict()),
        "processes": None,
        "detected_by": "pci",
    }


def _from_nvml(record: dict[str, Any], device: pci.PciDevice, names: gpu_ids.Names, sysroot: str) -> dict[str, Any]:
    facts = _from_pci(device, record["index"], names)
    for key in ("name", "compute_capability", "memory_mib", "uuid"):
        facts[key] = record[key] if record[key] is not None else facts[key]
    facts["architecture"] = facts["architecture"] or gpu_ids.architecture_of(facts["compute_capability"])
    facts["mig"], facts["ecc"] = record["mig"], record["ecc"]
    for key, value in record["pcie"].items():
        facts["pcie"][key] = value if value is not None else facts["pcie"][key]
    if record["processes"] is not None:
        facts["processes"] = gpu_usage.with_names(sysroot, record["processes"])
    facts["detected_by"] = "nvml"
    return facts


def _devices(scan: pci.PciScan, answer: nvml.Answer, sysroot: str) -> list[dict[str, Any]]:
    names = gpu_ids.Names(sysroot)
    on_bus = {device.address: device for device in scan.gpus}
    found = []
    for record in answer.devices:
        address = record["pci_address"]
        # WSL shows its GPUs through NVML alone.
        nowhere = pci.PciDevice(address, record["pci_device_id"], None, None, pci.Pcie(None, None, None, None))
        found.append(_from_nvml(record, on_bus.pop(address, nowhere), names, sysroot))
    # Where NVML numbers the GPUs, one that it leaves out has no number.
    rest = enumerate(on_bus.values())
    return found + [_from_pci(device, None if found else index, names) for index, device in rest]


def _ask_nvml(sysroot: str, virtualization: str, library: str | None, timeout: float) -> nvml.Answer:
    if library is not None:
        return nvml.ask(library, timeout)
    silent = nvml.Answer({}, [], [])
    if os.path.abspath(sysroot) != "/":
        return silent  # a recorded node: this machine's GPUs are not its GPUs
    if virtualization == "wsl":
        return nvml.ask(nvml.WSL_LIBRARY if os.path.exists(nvml.WSL_LIBRARY) else nvml.LIBRARY, timeout)
    # NVML would load the kernel module where it is not loaded, and facts change nothing.
    return nvml.ask(nvml.LIBRARY, timeout) if driver.loaded("/").version else silent


def collect(sysroot: str = "/", nvml_library: str | None = None, nvml_timeout: float = 5.0) -> dict[str, Any]:
    """The facts ``gpufleet_gpu``, every key always there.

    :param sysroot: everything is read below it; other than ``/`` it is a recorded node.
    :param nvml_library: ask this NVML, whatever ``sysroot`` is; ``None`` asks the system's, only on ``/``.
    :param nvml_timeout: seconds after which NVML is abandoned.
    """
    virtualization = kernel.virtualization(sysroot)
    kernel_facts = kernel.facts(sysroot)
    scan = pci.scan(sysroot)
    answer = _ask_nvml(sysroot, virtualization, nvml_library, nvml_timeout)
    devices = _devices(scan, answer, sysroot)
    driver_facts = driver.facts(sysroot, kernel_facts["release"], virtualization, scan.gpus, answer.system)
    if any(error["code"] == "GF-NVML-MISMATCH" for error in answer.errors):
        driver_facts["mismatch"] = True
    pids = [process["pid"] for device in devices for process in device["processes"] or []]
    return {
        "present": bool(devices),
        "count": len(devices),
        "virtualization": virtualization,
        "devices": devices,
        "driver": driver_facts,
        "fabric": gpu_usage.fabric(sysroot, scan.nvswitches),
        "kernel": kernel_facts,
        "busy": gpu_usage.busy(sysroot, driver_facts["loaded_version"] is not None, pids),
        "reboot_needed": driver.reboot_needed(driver_facts, len(devices), virtualization),
        "errors": answer.errors,
    }
