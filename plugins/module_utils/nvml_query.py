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

SUCCESS, NOT_SUPPORTED = 0, 3
_ERROR_CODES = {4: "GF-NVML-PERMISSION", 9: "GF-NVML-NO-DRIVER", 15: "GF-NVML-GPU-LOST", 18: "GF-NVML-MISMATCH"}
_UNCORRECTED, _AGGREGATE = 1, 1
_MIB = 1024 * 1024


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _PciInfo(ctypes.Structure):
    _fields_ = [
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    ]


class _Process(ctypes.Structure):
    """A row of the process lists of versions 2 and 3, the ones in use since driver 460."""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class _NvmlError(Exception):
    """A call that did not succeed; ``status`` is NVML's number, None where the library lacks the function."""

    def __init__(self, name: str, status: int | None) -> None:
        super().__init__(name)
        self.name = name
        self.status = status


class Nvml:
    """A thin layer over the library: calls that raise, and getters that answer None instead."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that answers nothing but its status."""
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise _NvmlError(name, None) from None
        status = int(function(*arguments))
        if status != SUCCESS:
            raise _NvmlError(name, status)

    def error_text(self, status: int | None) -> str:
        """What NVML itself says about a status."""
        try:
            function = self._library.nvmlErrorString
        except AttributeError:
            return f"status {status}"
        function.restype = ctypes.c_char_p
        text = function(ctypes.c_int(status or 0))
        return f"{text.decode('utf-8', 'replace') if text else 'unknown'} (status {status})"

    def text(self, name: str, *arguments: Any) -> str | None:
        """A string that the function writes to a buffer given last."""
        buffer = ctypes.create_string_buffer(128)
        try:
            self.call(name, *arguments, buffer, ctypes.c_uint(len(buffer)))
        except _NvmlError:
            return None
        return buffer.value.decode("utf-8", "replace") or None

    def numbers(self, name: str, handle: ctypes.c_void_p, count: int = 1) -> list[int] | None:
        """Unsigned integers that the function writes through its last pointers."""
        values = [ctypes.c_uint() for _number in range(count)]
        try:
            self.call(name, handle, *[ctypes.byref(value) for value in values])
        except _NvmlError:
            return None
        return [value.value for value in values]

    def number(self, name: str, handle: ctypes.c_void_p) -> int | None:
        """One unsigned integer."""
        values = self.numbers(name, handle)
        return values[0] if values else None

    def switch(self, name: str, handle: ctypes.c_void_p) -> bool | None:
        """The current one of a (current, pending) pair; a GPU that lacks the thing has it switched off."""
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        try:
            self.call(name, handle, ctypes.byref(current), ctypes.byref(pending))
        except _NvmlError as error:
            return False if error.status == NOT_SUPPORTED else None
        return bool(current.value)


def _memory_mib(nvml: Nvml, handle: ctypes.c_void_p) -> int | None:
    memory = _Memory()
    try:
        nvml.call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    except _NvmlError:
        return None
    return int(memory.total) // _MIB


def _processes(nvml: Nvml, handle: ctypes.c_void_p) -> list[dict[str, int]] | None:
    found: dict[int, dict[str, int]] = {}
    answered = False
    for kind in ("Compute", "Graphics"):
        for version in ("_v3", "_v2"):
            rows = (_Process * 256)()
            count = ctypes.c_uint(len(rows))
            try:
                nvml.call(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle, ctypes.byref(count), rows)
            except _NvmlError:
                continue
            answered = True
            found.update({row.pid: {"pid": row.pid} for row in rows[: count.value]})
            break
    return [found[pid] for pid in sorted(found)] if answered else None


def _mig(nvml: Nvml, handle: ctypes.c_void_p) -> dict[str, Any]:
    enabled = nvml.switch("nvmlDeviceGetMigMode", handle)
    instances = []
    for index in range((nvml.number("nvmlDeviceGetMaxMigDeviceCount", handle) or 0) if enabled else 0):
        instance = ctypes.c_void_p()
        try:
            nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", handle, ctypes.c_uint(index), ctypes.byref(instance))
        except _NvmlError:
            continue  # a slot that holds no instance
        instances.append(
            {
                "uuid": nvml.text("nvmlDeviceGetUUID", instance),
                "name": nvml.text("nvmlDeviceGetName", instance),
                "memory_mib": _memory_mib(nvml, instance),
            }
        )
    return {"enabled": enabled, "instances": instances}


def _ecc(nvml: Nvml, handle: ctypes.c_void_p) -> dict[str, Any]:
    enabled = nvml.switch("nvmlDeviceGetEccMode", handle)
    uncorrected = ctypes.c_ulonglong()
    try:
        nvml.call(
            "nvmlDeviceGetTotalEccErrors",
            handle,
            ctypes.c_uint(_UNCORRECTED),
            ctypes.c_uint(_AGGREGATE),
            ctypes.byref(uncorrected),
        )
    except _NvmlError:
        return {"enabled": enabled, "uncorrected": None}
    return {"enabled": enabled, "uncorrected": int(uncorrected.value)}


def _device(nvml: Nvml, index: int) -> dict[str, Any]:
    handle = ctypes.c_void_p()
    nvml.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    info = _PciInfo()
    nvml.call("nvmlDeviceGetPciInfo_v3", handle, ctypes.byref(info))
    capability = nvml.numbers("nvmlDeviceGetCudaComputeCapability", handle, 2)
    return {
        "index": index,
        # As sysfs writes it; a GPU is always function 0 of its device.
        "pci_address": f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0",
        "pci_device_id": info.pci_device_id >> 16,
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
        "processes": _processes(nvml, handle),
    }


def _error(nvml: Nvml, error: _NvmlError, where: str) -> dict[str, Any]:
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
    except _NvmlError as error:
        yield _error(nvml, error, "NVML does not start")
        return
    cuda, count = ctypes.c_int(), ctypes.c_uint()
    # A library older than CUDA 10.1 lacks it; the table of driver branches answers instead.
    with contextlib.suppress(_NvmlError):
        nvml.call("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda))
    number = cuda.value
    yield {
        "kind": "system",
        "driver_version": nvml.text("nvmlSystemGetDriverVersion"),
        "cuda_version": f"{number // 1000}.{number % 1000 // 10}" if number else None,
    }
    try:
        nvml.call("nvmlDeviceGetCount_v2", ctypes.byref(count))
    except _NvmlError as error:
        yield _error(nvml, error, "NVML does not count its GPUs")
    for index in range(count.value):
        try:
            yield {"kind": "device", **_device(nvml, index)}
        except _NvmlError as error:
            yield _error(nvml, error, f"GPU {index}")
