# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts as the resolver needs them: every key there, every type checked. Private to the collection.

Facts may come from a cache, another version of the collection or somebody's script, so nothing is taken for granted.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_ids

Row = dict[str, Any]
# Key, type and what stands for an unknown or missing value.
_GPU: dict[str, tuple[type, Any]] = {
    "virtualization": (str, "bare"),
    "devices": (list, []),
    "driver": (dict, {}),
    "fabric": (dict, {}),
    "kernel": (dict, {}),
    "tegra": (dict, None),
    "reboot_needed": (bool, False),
}
_DEVICE: dict[str, tuple[type, Any]] = {
    "pci_id": (str, None),
    "name": (str, None),
    "architecture": (str, None),
    "compute_capability": (str, None),
    "passthrough": (bool, False),
    "vgpu": (bool, False),
    "mig": (dict, {}),
}
_DRIVER: dict[str, tuple[type, Any]] = {
    "installed_version": (str, None),
    "loaded_version": (str, None),
    "flavour": (str, None),
    "source": (str, None),
    "cuda_version": (str, None),
    "competitor": (str, None),
    "dkms": (dict, None),
    "package": (dict, None),
    "runfile": (dict, None),
}
_NODE: dict[str, tuple[type, Any]] = {
    "distribution": (str, None),
    "version": (str, None),
    "architecture": (str, None),
    "glibc": (str, None),
    "pythons": (list, []),
    "root": (bool, True),
    "prefix": (dict, {}),
    "managed": (list, []),
    "kernels": (list, []),
}
_KERNEL: dict[str, tuple[type, Any]] = {"release": (str, ""), "headers": (bool, False), "image": (bool, False)}
_PYTHON: dict[str, tuple[type, Any]] = {"version": (str, None), "path": (str, None), "provider": (str, "installed")}


def read(facts: Any) -> tuple[Row, list[str]]:
    """The facts with every key, and what is wrong with them in words."""
    wrong: list[str] = []
    parts = facts if isinstance(facts, dict) else {}
    for part in ("gpu", "node"):
        if not isinstance(parts.get(part), dict):
            wrong.append(f"{part} is missing or no dictionary")
    if wrong:
        return {}, wrong
    gpu = _typed(parts["gpu"], _GPU, "gpu", wrong)
    gpu["driver"] = _typed(gpu["driver"], _DRIVER, "gpu.driver", wrong)
    if gpu["driver"]["runfile"] is not None:
        gpu["driver"]["runfile"] = {"version": None, "problems": [], **gpu["driver"]["runfile"]}
    gpu["devices"] = [_device(each, f"gpu.devices[{number}]", wrong) for number, each in enumerate(gpu["devices"])]
    gpu["kernel"] = {"release": None, "secure_boot": None, **gpu["kernel"]}
    node = _typed(parts["node"], _NODE, "node", wrong)
    node["pythons"] = [_python(each, f"node.pythons[{number}]", wrong) for number, each in enumerate(node["pythons"])]
    node["kernels"] = [
        _typed(each, _KERNEL, f"node.kernels[{number}]", wrong) for number, each in enumerate(node["kernels"])
    ]
    node["prefix"] = {"path": None, "writable": True, **node["prefix"]}
    return {"gpu": gpu, "node": node}, wrong


def _typed(row: Any, expected: dict[str, tuple[type, Any]], where: str, wrong: list[str]) -> Row:
    if not isinstance(row, dict):
        wrong.append(f"{where} is no dictionary")
        row = {}
    typed: Row = {}
    for name, (kind, missing) in expected.items():
        value = row.get(name)
        if value is not None and not isinstance(value, kind):
            wrong.append(f"{where}.{name} is {value!r:.60}, not {_KINDS[kind]}")
            value = None
        typed[name] = missing if value is None else value
    return typed


_KINDS = {str: "text", bool: "true or false", list: "a list", dict: "a dictionary"}


def _device(row: Any, where: str, wrong: list[str]) -> Row:
    device = _typed(row, _DEVICE, where, wrong)
    chip = gpu_ids.lookup(_device_id(device["pci_id"]))
    device["chip"] = chip.chip if chip else None
    if chip:
        device["architecture"] = device["architecture"] or chip.architecture
        device["compute_capability"] = device["compute_capability"] or chip.compute_capability
    device["architecture"] = device["architecture"] or gpu_ids.architecture_of(device["compute_capability"])
    device["name"] = device["name"] or device["pci_id"] or "a GPU without a name"
    return device


def _device_id(pci_id: str | None) -> int:
    try:
        return int((pci_id or "").rpartition(":")[2], 16)
    except ValueError:
        return -1  # no device has it


def _python(row: Any, where: str, wrong: list[str]) -> Row:
    if isinstance(row, str):
        row = {"version": row, "path": f"/usr/bin/python{row}"}
    python = _typed(row, _PYTHON, where, wrong)
    if python["version"] is None:
        wrong.append(f"{where} has no version")
        python["version"] = "0"
    return python
