# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA devices on the PCI bus, read from sysfs. Private to the collection.

Works before any driver is installed, and without rights: every file read is world-readable.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean_or_none

NVIDIA = "0x10de"
GPU_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers; sound, USB and bridges share NVIDIA's vendor id
NVSWITCH_CLASS = "0x0680"
# Drivers that hold a device for a virtual machine; VFIO's variants carry its name (nvgrace-gpu-vfio-pci).
_STUBS = ("pci-stub", "pciback", "xen-pciback")
_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


class Pcie(NamedTuple):
    """The state of a PCI Express link; None where the kernel does not say."""

    generation: int | None
    generation_max: int | None
    width: int | None
    width_max: int | None


class PciDevice(NamedTuple):
    """One PCI function of NVIDIA's."""

    address: str
    device_id: int
    driver: str | None
    numa_node: int | None
    pcie: Pcie

    @property
    def pci_id(self) -> str:
        """Vendor and device as lspci writes them."""
        return f"10de:{self.device_id:04x}"

    @property
    def passthrough(self) -> bool:
        """Whether the device is kept for a guest and so can't be used here."""
        return self.driver is not None and ("vfio" in self.driver or self.driver in _STUBS)


class PciScan(NamedTuple):
    """The GPUs in the order of the bus, and how many NVSwitches there are."""

    gpus: list[PciDevice]
    nvswitches: int


def read_text(path: str) -> str | None:
    """The stripped text of a small file, or None where it can't be read."""
    try:
        # A bus has hundreds of devices: without a buffer and a decoder a file is read in half the time.
        with open(path, "rb", buffering=0) as stream:
            return (stream.read() or b"").decode("utf-8", "replace").strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _generation(path: str) -> int | None:
    # "16.0 GT/s PCIe"; older kernels write "5 GT/s" and "2.5 GT/s"; "Unknown" where the slot does not say.
    words = (read_text(path) or "").split()
    try:
        return _GENERATIONS.get(f"{float(words[0]):.1f}") if words else None
    except ValueError:
        return None


def _link(folder: str) -> Pcie:
    return Pcie(
        _generation(os.path.join(folder, "current_link_speed")),
        _generation(os.path.join(folder, "max_link_speed")),
        _number(os.path.join(folder, "current_link_width")) or None,  # 0: the link is down or unknown
        _number(os.path.join(folder, "max_link_width")) or None,
    )


def _device(folder: str, address: str) -> PciDevice | None:
    try:
        device_id = int(read_text(os.path.join(folder, "device")) or "", 16)
    except ValueError:
        return None
    try:
        driver = clean_or_none(os.path.basename(os.readlink(os.path.join(folder, "driver"))))
    except OSError:
        driver = None  # no driver is bound
    numa_node = _number(os.path.join(folder, "numa_node"))
    if numa_node is not None and numa_node < 0:
        numa_node = None  # the firmware does not say
    return PciDevice(address, device_id, driver, numa_node, _link(folder))


def scan(sysroot: str = "/") -> PciScan:
    """Looks through ``<sysroot>/sys/bus/pci/devices``; a node without PCI has no GPU there."""
    base = os.path.join(sysroot, "sys/bus/pci/devices")
    try:
        addresses = sorted(os.listdir(base))
    except OSError:
        return PciScan([], 0)
    gpus: list[PciDevice] = []
    nvswitches = 0
    for address in addresses:
        folder = os.path.join(base, address)
        if read_text(os.path.join(folder, "vendor")) != NVIDIA:
            continue
        kind = (read_text(os.path.join(folder, "class")) or "")[:6]
        if kind == NVSWITCH_CLASS:
            nvswitches += 1
        elif kind in GPU_CLASSES:
            # A virtual function is a part of a GPU that the host hands out; in the guest it has no parent.
            part = os.path.lexists(os.path.join(folder, "physfn"))
            device = None if part else _device(folder, address)
            if device is not None:
                gpus.append(device)
    return PciScan(gpus, nvswitches)
