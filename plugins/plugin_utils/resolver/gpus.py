# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node's GPUs demand of a driver. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, once_per_node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, key

FLAVOURS = ("open", "proprietary")


def check(decision: Decision) -> None:
    """Notes on GPUs that are left out, and a conflict for those of which too little is known."""
    passed_on = [device["name"] for device in decision.facts["gpu"]["devices"] if device["passthrough"]]
    if passed_on:
        decision.warn(
            "GF-GPU-PASSTHROUGH",
            f"left to a virtual machine (bound to vfio-pci): {', '.join(passed_on)}; the plan does not count on them",
        )
    _check_fabric(decision)
    for device in decision.devices:
        if device["architecture"] is None or device["compute_capability"] is None:
            _unknown(decision, device)
    if any(device["mig"].get("enabled") and not device["mig"].get("instances") for device in decision.devices):
        decision.warn("GF-MIG-EMPTY", "MIG is on without any instance: CUDA sees no GPU there until one is made")


def _check_fabric(decision: Decision) -> None:
    gpu = decision.facts["gpu"]
    fabric, driver = gpu["fabric"], gpu["driver"]["loaded_version"] or gpu["driver"]["installed_version"]
    if driver is None or not (fabric.get("needed") or fabric.get("nvswitches")):
        return
    manager = fabric.get("manager_version")
    if fabric.get("manager_matches") is False or (manager is None and "manager_version" in fabric):
        have = f"the node has {manager}" if manager else "the node has none"
        decision.warn(
            "GF-FABRIC-MANAGER",
            f"GPUs behind NVSwitches need the fabric manager of exactly the driver's version, {driver}; {have}, and CUDA "
            "does not start without it",
        )


def has_fabric(decision: Decision) -> bool:
    """Whether the GPUs of the node compute only with a fabric manager."""
    fabric = decision.facts["gpu"]["fabric"]
    return bool(fabric.get("nvswitches") or fabric.get("needed"))


def hides_switches(decision: Decision) -> bool:
    """Whether the switches do not stand on the PCI bus: those of an HGX B200 or B300 hang on InfiniBand."""
    fabric = decision.facts["gpu"]["fabric"]
    return bool(fabric.get("needed") and not fabric.get("nvswitches"))


def _unknown(decision: Decision, device: Row) -> None:
    missing = "architecture" if device["architecture"] is None else "compute capability"
    decision.conflict(
        "GF-GPU-UNKNOWN",
        f"the {missing} of {device['name']} is not known",
        [f"PCI id {device['pci_id']} is not in the table of device ids, and no driver is loaded that would tell"],
        [
            "update the collection",
            "install the driver that fits the GPU and set nvidia_driver_version: none; with the driver loaded the GPU is known",
        ],
    )


def names(devices: list[Row]) -> str:
    """The names of the devices, each once."""
    return ", ".join(sorted({str(device["name"]) for device in devices}))


@once_per_node
def capabilities(decision: Decision) -> list[str]:
    """The compute capabilities of the GPUs, each once, lowest first."""
    found = {device["compute_capability"] for device in decision.devices if device["compute_capability"]}
    return sorted(found, key=key)


def flavours(decision: Decision, device: Row) -> tuple[str, ...]:
    """The flavours of kernel modules that can drive the device at all."""
    gpu = decision.catalog["gpu"]
    if device["architecture"] in gpu["proprietary_only"]["architectures"]:
        return ("proprietary",)
    if device["architecture"] in gpu["open_only"]["architectures"] or device["pci_id"] in gpu["open_only"]["pci_ids"]:
        return ("open",)
    return FLAVOURS


def branch_range(decision: Decision, device: Row) -> tuple[str, str | None]:
    """The first and the last driver branch for the device; the last is None where it is still driven."""
    gpu = decision.catalog["gpu"]
    rows = {row["compute_capability"]: row for row in gpu["compute_capabilities"]}
    row = rows.get(device["compute_capability"]) or _of_architecture(gpu, device)
    if row is None:
        return "0", None
    chip = next((each for each in gpu["chips"] if each["chip"] == device["chip"]), row)
    return str(chip["first_branch"]), row["last_branch"]


def _of_architecture(gpu: Row, device: Row) -> Row | None:
    rows = [row for row in gpu["compute_capabilities"] if row["architecture"] == device["architecture"]]
    return max(rows, key=lambda row: key(row["first_branch"]), default=None)


def kinds(decision: Decision) -> list[Row]:
    """The GPUs, one of each kind."""
    return list(_kinds(decision).values())


@once_per_node
def _kinds(decision: Decision) -> dict[str, Row]:
    return {
        f"{device['name']} {device['pci_id']} {device['compute_capability']}": device for device in decision.devices
    }


@once_per_node
def drives_all(decision: Decision, branch: str, flavour: str) -> bool:
    """Whether the kernel modules of this branch and flavour drive every GPU of the node."""
    row = next(row for row in decision.catalog["driver"]["branches"] if row["branch"] == branch)
    return all(drives(decision, row, flavour, device) for device in kinds(decision))


def drives(decision: Decision, branch: Row, flavour: str, device: Row) -> bool:
    """Whether the kernel modules of this branch and flavour drive the device."""
    first, last = branch_range(decision, device)
    return (
        device["architecture"] in branch[flavour]
        and flavour in flavours(decision, device)
        and at_least(branch["branch"], first)
        and (last is None or at_least(last, branch["branch"]))
    )


@once_per_node
def driving_all(decision: Decision) -> list[str]:
    """Every branch that drives all GPUs of the node, oldest first."""
    branches = [row["branch"] for row in decision.catalog["driver"]["branches"]]
    return [each for each in branches if any(drives_all(decision, each, flavour) for flavour in FLAVOURS)]


@once_per_node
def driving_each(decision: Decision) -> list[tuple[Row, list[str]]]:
    """Every kind of GPU of the node with the branches that drive it, oldest first."""
    branches = decision.catalog["driver"]["branches"]
    return [
        (device, [row["branch"] for row in branches if any(drives(decision, row, kind, device) for kind in FLAVOURS)])
        for device in kinds(decision)
    ]
