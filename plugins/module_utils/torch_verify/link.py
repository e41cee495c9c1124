# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCIe link of a GPU while data go over it: an idle one sleeps at generation 1. Private to the collection."""

from __future__ import annotations

import ctypes
import os
import re
import time
from typing import Any

from . import devices
from .expectations import Expectations
from .libraries import mapped_files
from .outcomes import outcome, skipped

PCI = "/sys/bus/pci/devices"
COPY_BYTES = 64 * 2**20
LOAD_SECONDS = 0.5
FILES = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")


def runtime_library(maps: str) -> str | None:
    """The CUDA runtime that this torch has loaded."""
    return next((path for path in mapped_files(maps) if re.search(r"/libcudart[-.]", path)), None)


def pci_address(index: int) -> str | None:
    """Where a GPU sits, as the kernel writes it: 0000:3b:00.0."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        library = runtime_library(maps.read())
    if library is None:
        return None
    text = ctypes.create_string_buffer(32)
    code = ctypes.CDLL(library).cudaDeviceGetPCIBusId(text, ctypes.c_int(32), ctypes.c_int(index))
    return text.value.decode("ascii", "replace").lower() if code == 0 else None


def read(address: str, name: str) -> float | None:
    """A number at the head of one of the kernel's files; None where it says nothing of the link."""
    try:
        # The address is a link into the tree of busses, where the slot is the directory above.
        folder = os.path.realpath(os.path.join(PCI, address))
        with open(os.path.join(folder, name), encoding="ascii", errors="replace") as file:
            match = re.match(r"[\d.]+", file.read())
    except OSError:
        return None
    return float(match[0]) if match else None


def under_load(torch: Any, device: Any, address: str) -> dict[str, float | None]:
    """The best that the link showed while data went over it."""
    host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    best: dict[str, float | None] = dict.fromkeys(FILES)
    started = time.monotonic()
    while time.monotonic() - started < LOAD_SECONDS:
        for _copy in range(8):
            there.copy_(host, non_blocking=True)
        for name in FILES:
            now = read(address, name)
            best[name] = now if best[name] is None else max(best[name], now or 0.0)  # type: ignore[type-var]
        torch.cuda.synchronize(device)
    return best


def check_gpu_link(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """A link with fewer lanes than GPU and slot both have: a riser, dirt, or a setting of the firmware.

    The speed is only told: firmware may limit it on purpose, and the node's equals show where it does not.
    """
    address = pci_address(index)
    if address is None:
        return skipped(None, "the PCI address of this GPU could not be found")
    found = under_load(torch, devices.cuda_device(torch, index), address)
    possible = [width for width in (found["max_link_width"], read(address, "../max_link_width")) if width]
    measured = {"pci_address": address, **found}
    if found["current_link_width"] is None or not possible:
        return skipped(measured, "the kernel says nothing of this GPU's link, as in most virtual machines")
    message = f"the PCIe link has {found['current_link_width']:g} lanes under load, GPU and slot have {min(possible):g}"
    return outcome(found["current_link_width"] >= min(possible), measured, {"lanes": min(possible)}, message)
