# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The questions put to NVML, through ctypes. Private to the collection.

Runs only in the child process that nvml.py starts: any call here may hang or crash. What is learnt is handed out
record by record, so that what was known before a hang is not lost.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.nvml_calls import Memory, Nvml, NvmlError, PciInfo, Process

# No machine has more; a library that counts more is broken, and asking on would take for ever.
MOST_GPUS = 64
_MOST_INSTANCES = 16
_ERROR_CODES = {4: "GF-NVML-PERMISSION", 9: "GF-NVML-NO-DRIVER", 15: "GF-NVML-GPU-LOST", 18: "GF-NVML-MISMATCH"}
_CORRECTED, _UNCORRECTED, _AGGREGATE = 0, 1, 1
_MIB = 1024 * 1024


def _memory_mib(nvml: Nvml, handle: ctypes.c_void_p) -> int | None:
    memory = Memory()
    try:
        nvml.call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    except NvmlError:
        return None
    return int(memory.total) // _MIB


def _processes(nvml: Nvml, handle: ctypes.c_void_p) -> list[dict[str, int]] | None:
    found: dict[int, dict[str, int]] = {}
    answered = False
    for kind in ("Compute", "Graphics"):
        for version in ("_v3", "_v2"):
            rows = (Process * 256)()
            count = ctypes.c_uint(len(rows))
            try:
                nvml.call(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle, ctypes.byref(count), rows)
            except NvmlError:
                continue
            answered = True
            found.update({row.pid: {"pid": row.pid} for row in rows[: count.value]})
            break
    return [found[pid] for pid in sorted(found)] if answered else None


def _mig(nvml: Nvml, handle: ctypes.c_void_p) -> dict[str, Any]:
    enabled = nvml.switch("nvmlDeviceGetMigMode", handle)
    instances = []
    for index in range(
        min(nvml.number("nvmlDeviceGetMaxMigDeviceCount", handle) or 0, _MOST_INSTANCES) if enabled else 0
    ):
        instance = ctypes.c_void_p()
        try:
            nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", handle, ctypes.c_uint(index), ctypes.byref(instance))
        except NvmlError:
            continue  # a slot that holds no instance
        instances.append(
            {
                "uuid": nvml.text("nvmlDeviceGetUUID", instance),
                "name": nvml.text("nvmlDeviceGetName", instance),
                "memory_mib": _memory_mib(nvml, instance),
            }
        )
    return {"enabled": enabled, "instances": instances}


def _total_errors(nvml: Nvml, handle: ctypes.c_void_p, kind: int) -> int | None:
    return nvml.long("nvmlDeviceGetTotalEccErrors", handle, ctypes.c_uint(kind), ctypes.c_uint(_AGGREGATE))


def _ecc(nvml: Nvml, handle: ctypes.c_void_p) -> dict[str, Any]:
    rows = nvml.numbers("nvmlDeviceGetRemappedRows", handle, 4)
    names = ("correctable", "uncorrectable", "pending", "failure")
    remapped: dict[str, Any] | None = dict(zip(names, rows)) if rows else None
    if remapped:
        remapped.update(pending=bool(remapped["pending"]), failure=bool(remapped["failure"]))
    return {
        "enabled": nvml.switch("nvmlDeviceGetEccMode", handle),
        "uncorrected": _total_errors(nvml, handle, _UNCORRECTED),
        "corrected": _total_errors(nvml, handle, _CORRECTED),
        "remapped_rows": remapped,
    }


def _place(nvml: Nvml, handle: ctypes.c_void_p) -> dict[str, Any]:
    info = PciInfo()
    try:
        nvml.call("nvmlDeviceGetPciInfo_v3", handle, ctypes.byref(info))
    except NvmlError:
        return {"pci_address": None, "pci_device_id": None}  # the GPU of a Jetson is on no bus
    # As sysfs writes it; a GPU is always function 0 of its device.
    address = f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"
    return {"pci_address": address, "pci_device_id": info.pci_device_id >> 16}


def _device(nvml: Nvml, index: int) -> dict[str, Any]:
    handle = ctypes.c_void_p()
    nvml.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    capability = nvml.numbers("nvmlDeviceGetCudaComputeCapability", handle, 2)
    persistence = nvml.number("nvmlDeviceGetPersistenceMode", handle)
    return {
        "index": index,
        **_place(nvml, handle),
        "name": nvml.text("nvmlDeviceGetName", handle),
        "uuid": nvml.text("nvmlDeviceGetUUID", handle),
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        "memory_mib": _memory_mib(nvml, handle),
        "mig": _mig(nvml, handle),
        "ecc": _ecc(nvml, handle),
        "pcie": {
            "generation": nvml.number("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            "generation_max": nvml.number("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            "width": nvml.number("nvmlDeviceGetCurrPcieLinkWidth", handle),
            "width_max": nvml.number("nvmlDeviceGetMaxPcieLinkWidth", handle),
        },
        "persistence": None if persistence is None else bool(persistence),
        "virtualization_mode": nvml.number("nvmlDeviceGetVirtualizationMode", handle),
        "processes": _processes(nvml, handle),
    }


def _error(nvml: Nvml, error: NvmlError, where: str) -> dict[str, Any]:
    code = _ERROR_CODES.get(error.status or 0, "GF-NVML-ERROR")
    return {"kind": "error", "code": code, "message": f"{where}: {error.name}: {nvml.error_text(error.status)}"}


def records(path: str) -> Iterator[dict[str, Any]]:
    """Everything NVML knows, as records of the kinds ``system``, ``device`` and ``error``."""
    try:
        nvml = Nvml(path)
    except OSError as error:
        yield {"kind": "error", "code": "GF-NVML-MISSING", "message": f"NVML can't be loaded: {error}"}
        return
    try:
        nvml.call("nvmlInit_v2")
    except NvmlError as error:
        yield _error(nvml, error, "NVML does not start")
        return
    cuda, count = ctypes.c_int(), ctypes.c_uint()
    # A library older than CUDA 10.1 lacks it; the table of driver branches answers instead.
    with contextlib.suppress(NvmlError):
        nvml.call("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda))
    number = cuda.value
    yield {
        "kind": "system",
        "driver_version": nvml.text("nvmlSystemGetDriverVersion"),
        "cuda_version": f"{number // 1000}.{number % 1000 // 10}" if number else None,
    }
    try:
        nvml.call("nvmlDeviceGetCount_v2", ctypes.byref(count))
    except NvmlError as error:
        yield _error(nvml, error, "NVML does not count its GPUs")
    if count.value > MOST_GPUS:
        message = f"NVML counts {count.value} GPUs; only the first {MOST_GPUS} were looked at"
        yield {"kind": "error", "code": "GF-NVML-ABSURD", "message": message}
    for index in range(min(count.value, MOST_GPUS)):
        try:
            yield {"kind": "device", **_device(nvml, index)}
        except NvmlError as error:
            yield _error(nvml, error, f"GPU {index}")
