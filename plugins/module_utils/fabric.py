# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVSwitches, and the fabric manager without which CUDA does not start on such a node. Private to the collection."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_ids
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import Package, upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import PciScan

# The kernel cuts a process name to 15 letters.
MANAGER = "nv-fabricmanage"
# HGX B200 and B300: their switches are reached over InfiniBand and do not stand on the PCI bus as NVSwitches.
_HIDDEN_SWITCHES = (0x2901, 0x3182)


def _needed(scan: PciScan, virtualization: str) -> bool | None:
    usable = [gpu for gpu in scan.gpus if not gpu.passthrough]
    if scan.nvswitches and usable:
        return True
    if sum(gpu.device_id in _HIDDEN_SWITCHES for gpu in usable) > 1:
        # A guest may have the GPUs while the manager runs in another one, with the switches.
        return None if virtualization == "vm" else True
    # A GPU that no table knows may be the next of that kind.
    return None if any(gpu_ids.lookup(gpu.device_id) is None for gpu in usable) else False


def facts(
    scan: PciScan,
    virtualization: str,
    known: dict[str, Package],
    services: Collection[str] | None,
    driver: dict[str, Any],
) -> dict[str, Any]:
    """The ``fabric`` part of the facts.

    :param known: the driver's packages; ``services``: names of running processes, None where nobody could tell.
    """
    names = sorted(name for name in known if name.startswith("nvidia-fabricmanager"))
    # NVIDIA's newest repositories have one package for all branches, the others one a branch: "-dev" is a header.
    versions = [upstream(known[name].version) for name in names if "-dev" not in name]
    version = next((found for found in versions if found), None)
    needed = _needed(scan, virtualization)
    of_driver = driver["loaded_version"] or driver["installed_version"]
    watched = bool(needed or version or scan.nvswitches) and services is not None
    return {
        "nvswitches": scan.nvswitches,
        "needed": needed,
        "manager_version": version,
        "manager_active": MANAGER in (services or ()) if watched else None,
        "manager_matches": version == of_driver if version and of_driver else None,
    }
