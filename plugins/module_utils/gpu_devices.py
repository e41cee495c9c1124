# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One list of GPUs out of what NVML, the PCI bus, /proc and the device tree say. Private to the collection.

NVML knows most, the PCI bus knows before any driver is there; a GPU that NVML does not show (lost, hung, bound to
another driver) is still listed, as the bus sees it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_ids, gpu_proc, gpu_usage, nvml, pci, tegra
from ansible_collections.gpufleet.stack.plugins.module_utils.nvml_check import absurd

_NO_LINK = pci.Pcie(None, None, None, None)
# "GRID A100-40C", "NVIDIA A40-48Q", "NVIDIA H100-1-10C", "GRID A100-1-5CME": what a guest calls its share of a GPU.
_VGPU_NAME = re.compile(r"-(\d+-)?\d+[ABCQ](ME|GFX)?$")
_VGPU_GUEST = 2


class Sources(NamedTuple):
    """Where the facts about GPUs come from."""

    sysroot: str
    virtualization: str
    scan: pci.PciScan
    answer: nvml.Answer
    tegra: dict[str, Any] | None


def _unknown(index: int | None) -> dict[str, Any]:
    """A GPU of which nothing is known; every other one is this with its values filled in."""
    return {
        "index": index,
        "pci_address": None,
        "pci_id": None,
        "name": None,
        "chip": None,
        "architecture": None,
        "compute_capability": None,
        "memory_mib": None,
        "uuid": None,
        "numa_node": None,
        "kernel_driver": None,
        "passthrough": False,
        "vgpu": None,
        "persistence": None,
        "mig": {"enabled": None, "instances": []},
        "ecc": {"enabled": None, "uncorrected": None, "corrected": None, "remapped_rows": None},
        "pcie": dict(_NO_LINK._asdict()),
        "processes": None,
        "detected_by": None,
    }


def _chip_facts(chip: gpu_ids.Chip | None) -> dict[str, Any]:
    if chip is None:
        return {}
    return {"chip": chip.chip, "architecture": chip.architecture, "compute_capability": chip.compute_capability}


def _from_pci(device: pci.PciDevice, index: int | None, names: gpu_ids.Names, sysroot: str) -> dict[str, Any]:
    facts = _unknown(index)
    facts.update(
        pci_address=device.address,
        pci_id=device.pci_id,
        name=names.of(device.device_id),
        numa_node=device.numa_node,
        kernel_driver=device.driver,
        passthrough=device.passthrough,
        pcie=dict(device.pcie._asdict()),
        detected_by="pci",
        **_chip_facts(names.chip(device.device_id)),
    )
    shown = gpu_proc.about(sysroot, device.address)
    facts.update({key: value for key, value in shown.items() if value is not None})
    return facts


def _from_device_tree(found: dict[str, Any]) -> dict[str, Any]:
    chip = gpu_ids.chip_facts(tegra.CHIPS.get(found["soc"], ""))
    facts = _unknown(0)
    facts.update(detected_by="devicetree", vgpu=False, **_chip_facts(chip))
    facts["name"] = f"NVIDIA {chip.chip if chip else 'GPU'} ({found['soc'].capitalize()})"
    return facts


def _is_vgpu(record: dict[str, Any]) -> bool | None:
    if record["virtualization_mode"] is not None:
        return bool(record["virtualization_mode"] == _VGPU_GUEST)
    return True if _VGPU_NAME.search(record["name"] or "") else None


def _with_nvml(facts: dict[str, Any], record: dict[str, Any], sysroot: str) -> dict[str, Any]:
    """The facts of a GPU with what NVML knows better."""
    facts["index"] = record["index"]
    for key in ("name", "compute_capability", "memory_mib", "uuid", "persistence"):
        facts[key] = record[key] if record[key] is not None else facts[key]
    facts["architecture"] = facts["architecture"] or gpu_ids.architecture_of(facts["compute_capability"])
    facts["vgpu"] = _is_vgpu(record)
    if record["mig"]["enabled"] is not None:
        facts["mig"] = record["mig"]
    facts["ecc"] = record["ecc"]
    for key, value in record["pcie"].items():
        facts["pcie"][key] = value if value is not None else facts["pcie"][key]
    if record["processes"] is not None:
        facts["processes"] = gpu_usage.with_names(sysroot, record["processes"])
    facts["detected_by"] = "nvml"
    return facts


def _off_bus(record: dict[str, Any], names: gpu_ids.Names, sysroot: str) -> dict[str, Any]:
    """A GPU that only NVML shows, as in WSL."""
    device_id = record["pci_device_id"]
    if not device_id:
        return {**_unknown(record["index"]), "pci_address": record["pci_address"]}
    device = pci.PciDevice(record["pci_address"] or "", device_id, None, None, _NO_LINK)
    return {**_from_pci(device, record["index"], names, sysroot), "pci_address": record["pci_address"]}


def find(sources: Sources) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The GPUs, in NVML's order where it numbers them, and what does not fit together."""
    sysroot, found, errors = sources.sysroot, [], []
    names = gpu_ids.Names(sysroot)
    on_bus = {device.address: device for device in sources.scan.gpus}
    on_board = _from_device_tree(sources.tegra) if sources.tegra else None
    if on_board and any(
        gpu_ids.lookup(gpu.device_id) == gpu_ids.chip_facts(on_board["chip"]) for gpu in on_bus.values()
    ):
        on_board = None  # Thor's own GPU stands on a PCI bus
    for record in sources.answer.devices:
        address = record["pci_address"]
        if address in on_bus:
            facts = _from_pci(on_bus.pop(address), record["index"], names, sysroot)
        elif address is None and on_board is not None:
            facts, on_board = on_board, None
        else:
            if sources.scan.gpus:
                where = f"at {address}, where the PCI bus has none" if address else "without a PCI address"
                errors.append(absurd(f"NVML shows GPU {record['index']} {where}"))
                if address is None:
                    continue  # one of those that the bus shows
            facts = _off_bus(record, names, sysroot)
        found.append(_with_nvml(facts, record, sysroot))
    numbered = bool(found)
    found += [on_board] if on_board else []
    for device in on_bus.values():
        # Where NVML numbers the GPUs, one that it leaves out has no number.
        found.append(_from_pci(device, None if numbered else len(found), names, sysroot))
    return found, errors
