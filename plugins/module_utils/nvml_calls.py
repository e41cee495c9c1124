# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML's functions and structures, through ctypes. Private to the collection.

Used only in the child process that nvml.py starts: any call here may hang or crash.
"""

from __future__ import annotations

import ctypes
from typing import Any

SUCCESS, NOT_SUPPORTED = 0, 3


class Memory(ctypes.Structure):
    """Bytes of memory."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class PciInfo(ctypes.Structure):
    """Where a GPU sits."""

    _fields_ = [
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    ]


class Process(ctypes.Structure):
    """A row of the process lists of versions 2 and 3, the ones in use since driver 460."""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class NvmlError(Exception):
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
            raise NvmlError(name, None) from None
        status = int(function(*arguments))
        if status != SUCCESS:
            raise NvmlError(name, status)

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
        except NvmlError:
            return None
        return buffer.value.decode("utf-8", "replace") or None

    def numbers(self, name: str, handle: ctypes.c_void_p, count: int = 1) -> list[int] | None:
        """Unsigned integers that the function writes through its last pointers."""
        values = [ctypes.c_uint() for _number in range(count)]
        try:
            self.call(name, handle, *[ctypes.byref(value) for value in values])
        except NvmlError:
            return None
        return [value.value for value in values]

    def number(self, name: str, handle: ctypes.c_void_p) -> int | None:
        """One unsigned integer."""
        values = self.numbers(name, handle)
        return values[0] if values else None

    def long(self, name: str, *arguments: Any) -> int | None:
        """One integer of 64 bits, written through a pointer given last."""
        value = ctypes.c_ulonglong()
        try:
            self.call(name, *arguments, ctypes.byref(value))
        except NvmlError:
            return None
        return int(value.value)

    def switch(self, name: str, handle: ctypes.c_void_p) -> bool | None:
        """The current one of a (current, pending) pair; a GPU that lacks the thing has it switched off."""
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        try:
            self.call(name, handle, ctypes.byref(current), ctypes.byref(pending))
        except NvmlError as error:
            return False if error.status == NOT_SUPPORTED else None
        return bool(current.value)
