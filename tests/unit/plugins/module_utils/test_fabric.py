# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where CUDA needs the fabric manager, and whether it is there."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import fabric, pci
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import Package

MANAGER = {"nvidia-fabricmanager-580": Package("nvidia-fabricmanager-580", "580.95.05-1", False, "")}
DRIVER = {"loaded_version": "580.95.05", "installed_version": "580.105.08"}


def scan(device_id: int, count: int = 8, nvswitches: int = 0, driver: str | None = "nvidia") -> pci.PciScan:
    link = pci.Pcie(None, None, None, None)
    gpus = [pci.PciDevice(f"0000:{bus:02x}:00.0", device_id, driver, None, link) for bus in range(count)]
    return pci.PciScan(gpus, nvswitches)


def facts(found: pci.PciScan, virtualization: str = "bare", driver: dict[str, Any] | None = None) -> dict[str, Any]:
    return fabric.facts(found, virtualization, MANAGER, {"nv-fabricmanage"}, driver or DRIVER)


@pytest.mark.parametrize(
    ("found", "virtualization", "needed"),
    [
        (scan(0x2330, nvswitches=4), "bare", True),
        (scan(0x2330, nvswitches=4, driver="vfio-pci"), "bare", False),
        (scan(0x2330), "bare", False),
        (scan(0x2901), "bare", True),
        (scan(0x3182), "bare", True),
        (scan(0x2901, count=1), "bare", False),
        (scan(0x2901), "vm", None),
        (scan(0xFFF0), "bare", None),
        (scan(0, count=0), "bare", False),
    ],
)
def test_needed(found: pci.PciScan, virtualization: str, needed: bool | None) -> None:
    assert facts(found, virtualization)["needed"] is needed


def test_it_has_to_be_of_the_loaded_drivers_version() -> None:
    found = facts(scan(0x2330, nvswitches=4))
    assert found == {
        "nvswitches": 4,
        "needed": True,
        "manager_version": "580.95.05",
        "manager_active": True,
        "manager_matches": True,
    }
    other = {"loaded_version": None, "installed_version": "580.105.08"}
    assert facts(scan(0x2330, nvswitches=4), driver=other)["manager_matches"] is False


def test_without_a_manager() -> None:
    nothing = {"loaded_version": None, "installed_version": None}
    missing = fabric.facts(scan(0x2330, nvswitches=4), "bare", {}, set(), nothing)
    assert (missing["manager_version"], missing["manager_active"], missing["manager_matches"]) == (None, False, None)
    assert fabric.facts(scan(0x20F1), "bare", {}, set(), nothing)["manager_active"] is None
    assert fabric.facts(scan(0x2901), "bare", {}, None, nothing)["manager_active"] is None
