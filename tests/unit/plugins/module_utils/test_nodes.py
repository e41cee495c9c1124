# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every recorded node under tests/fixtures/nodes gives the facts expected of it.

expected.json is written by compose.py, so it only shows what changed. What each node is there to show is written by
hand in SHOWS: a wrong fact cannot bless itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda, gpu, node

NODES = Path(__file__).resolve().parents[3] / "fixtures" / "nodes"
RECORDED = sorted(path.parent for path in NODES.glob("*/expected.json"))
# Path of a fact, and its value.
SHOWS: dict[str, dict[str, Any]] = {
    "a100-mig": {
        "gpu.devices.0.mig.enabled": True,
        "gpu.devices.0.mig.instances.1.memory_mib": 19968,
        "gpu.devices.1.mig.enabled": False,
    },
    "a100-x16-nvswitch": {
        "gpu.count": 16,
        "gpu.fabric.nvswitches": 6,
        "gpu.fabric.needed": True,
        "gpu.devices.15.numa_node": 1,
    },
    "alma10-rtx5090": {
        "gpu.devices.0.compute_capability": "12.0",
        "node.distribution": "AlmaLinux",
        "node.version": "10.0",
    },
    "amazon2023-l4": {"node.distribution": "Amazon", "gpu.virtualization": "vm", "gpu.devices.0.name": "NVIDIA L4"},
    "b200-x8": {
        "gpu.count": 8,
        "gpu.driver.flavour": "open",
        "gpu.kernel.secure_boot": True,
        "gpu.fabric.needed": True,
    },
    "b300-x8-fabric-behind": {
        "gpu.devices.7.compute_capability": "10.3",
        "gpu.fabric.nvswitches": 0,
        "gpu.fabric.needed": True,
        "gpu.fabric.manager_version": "580.82.07",
        "gpu.fabric.manager_matches": False,
        "gpu.fabric.manager_active": True,
    },
    "debian11-gtx680": {
        "gpu.devices.0.architecture": "Kepler",
        "gpu.devices.0.compute_capability": "3.0",
        "node.glibc": "2.31",
    },
    "debian12-a100": {
        "gpu.devices.0.name": "NVIDIA A100 PCIe 40GB",
        "gpu.driver.installed_version": None,
        "gpu.present": True,
    },
    "debian12-none": {"gpu.present": False, "gpu.count": 0, "node.distribution": "Debian"},
    "dkms-old-kernel": {
        "gpu.driver.dkms.state": "added",
        "gpu.driver.loaded_version": None,
        "gpu.reboot_needed": True,
        "gpu.kernel.headers": False,
    },
    "gb10-spark": {"gpu.devices.0.compute_capability": "12.1", "node.architecture": "aarch64", "gpu.tegra": None},
    "grace-hopper": {
        "gpu.devices.0.pci_id": "10de:2342",
        "gpu.driver.flavour": "open",
        "node.architecture": "aarch64",
        "gpu.driver.source": "nvidia",
    },
    "h100-x8-nvswitch": {
        "gpu.count": 8,
        "gpu.fabric.nvswitches": 4,
        "gpu.fabric.manager_matches": True,
        "gpu.driver.held": True,
    },
    "jetson-orin": {
        "gpu.tegra.soc": "tegra234",
        "gpu.tegra.l4t_version": "36.4.3",
        "gpu.devices.0.compute_capability": "8.7",
        "gpu.driver.source": "l4t",
    },
    "k80": {"gpu.devices.0.compute_capability": "3.7", "gpu.driver.mismatch": True, "gpu.reboot_needed": True},
    "mismatch-after-upgrade": {
        "gpu.driver.loaded_version": "535.183.01",
        "gpu.driver.installed_version": "535.216.03",
        "gpu.driver.mismatch": True,
        "gpu.driver.library_version": "535.216.03",
        "gpu.errors.0.code": "GF-NVML-MISMATCH",
        "gpu.reboot_needed": True,
    },
    "mixed-v100-a100-h100": {
        "gpu.count": 5,
        "gpu.devices.0.architecture": "Volta",
        "gpu.devices.2.architecture": "Hopper",
    },
    "mixed-v100-b200": {"gpu.devices.0.architecture": "Volta", "gpu.devices.1.architecture": "Blackwell"},
    "nouveau-bound": {"gpu.driver.competitor": "nouveau", "gpu.devices.0.kernel_driver": "nouveau", "gpu.count": 1},
    "nova-core-bound": {"gpu.driver.competitor": "nova_core", "gpu.devices.0.kernel_driver": "nova_core"},
    "old-and-new-cudnn": {
        "cuda.cudnn.0.version": "8.9.7",
        "cuda.cudnn.0.cuda_major": 11,
        "cuda.cudnn.1.version": "9.10.2",
        "cuda.cudnn.1.cuda_major": 12,
    },
    "passthrough-host": {
        "gpu.count": 2,
        "gpu.usable": 1,
        "gpu.devices.0.passthrough": True,
        "gpu.devices.1.passthrough": False,
    },
    "rhel8-p100-x4": {
        "node.distribution": "RedHat",
        "node.glibc": "2.28",
        "gpu.driver.flavour": "proprietary",
        "gpu.driver.source": "nvidia",
        "gpu.count": 4,
    },
    "rhel8-v100-x2": {
        "node.distribution": "RedHat",
        "gpu.driver.installed_version": None,
        "gpu.kernel.release": "4.18.0-553.el8_10.x86_64",
        "gpu.devices.1.architecture": "Volta",
    },
    "rocky9-l40s-x4": {
        "node.distribution": "Rocky",
        "node.package_manager": "dnf",
        "gpu.devices.3.name": "NVIDIA L40S",
    },
    "secure-boot-unsigned": {
        "gpu.kernel.secure_boot": True,
        "gpu.driver.module_signed": False,
        "gpu.driver.loads_under_secure_boot": False,
    },
    "shadowed-torch": {
        "cuda.torch.0.arch_list.6": "9.0",
        "cuda.torch.0.cudnn": "9.1.0.70",
        "cuda.shadowed.0.library": "libcudnn.so.9",
        "cuda.environment.set_by.0": "/etc/profile.d/cuda.sh",
        "cuda.environment.ld_library_path.0": "/usr/local/cuda-12.4/lib64",
    },
    "sles15-runfile": {
        "gpu.driver.source": "runfile",
        "gpu.driver.loaded_version": "550.54.15",
        "gpu.driver.runfile": {"version": "550.54.15", "problems": []},
        "node.package_manager": "zypper",
    },
    "two-toolkits": {
        "cuda.toolkits.0.version": "11.8.0",
        "cuda.toolkits.0.default": False,
        "cuda.toolkits.1.version": "12.4.1",
        "cuda.toolkits.1.default": True,
    },
    "ubuntu20-k40-x2": {"gpu.devices.1.compute_capability": "3.5", "gpu.devices.1.name": "NVIDIA Tesla K40m"},
    "ubuntu20-m60-x2": {"gpu.devices.0.architecture": "Maxwell", "gpu.devices.0.compute_capability": "5.2"},
    "ubuntu24-rtx4090": {"gpu.count": 1, "gpu.devices.0.architecture": "Ada", "node.version": "24.04"},
    "unknown-gpu": {
        "gpu.count": 1,
        "gpu.devices.0.architecture": None,
        "gpu.devices.0.compute_capability": None,
        "gpu.devices.0.pci_id": "10de:3fff",
    },
    "v100-x2": {"gpu.virtualization": "vm", "gpu.devices.0.numa_node": None, "gpu.kernel.headers": True},
    "vgpu-guest": {"gpu.devices.0.vgpu": True, "gpu.devices.0.name": "NVIDIA A40-48Q", "gpu.virtualization": "vm"},
    "vm-t4": {
        "gpu.virtualization": "vm",
        "gpu.devices.0.architecture": "Turing",
        "gpu.devices.0.name": "NVIDIA Tesla T4",
    },
    "wsl2": {"gpu.virtualization": "wsl", "gpu.present": False},
    "wsl2-rtx4090": {
        "gpu.virtualization": "wsl",
        "gpu.driver.source": "windows",
        "gpu.driver.cuda_version": "12.4",
        "gpu.devices.0.memory_mib": 24564,
    },
    "xid-and-ecc": {
        "gpu.health.xid.0.code": 48,
        "gpu.health.xid.0.count": 2,
        "gpu.health.xid.1.code": 79,
        "gpu.health.xid.1.pci_address": "0000:11:00.0",
        "gpu.devices.0.ecc.uncorrected": 2,
        "gpu.devices.0.ecc.remapped_rows.pending": True,
    },
}


def collect(root: Path) -> dict[str, Any]:
    """All facts of a recorded node."""
    return {
        "gpu": gpu.collect(sysroot=str(root)),
        "cuda": cuda.collect(sysroot=str(root)),
        "node": node.collect(sysroot=str(root)),
    }


def fact(facts: Any, path: str) -> Any:
    """The fact at a path such as ``gpu.devices.0.name``."""
    for part in path.split("."):
        facts = facts[int(part)] if isinstance(facts, list) else facts[part]
    return facts


def test_there_are_recorded_nodes() -> None:
    assert len(RECORDED) >= 30
    assert {path.name for path in RECORDED} == set(SHOWS)


@pytest.mark.parametrize("root", RECORDED, ids=lambda path: path.name)
def test_a_node_shows_what_it_is_there_for(root: Path) -> None:
    facts = collect(root)
    assert {path: fact(facts, path) for path in SHOWS[root.name]} == SHOWS[root.name]


@pytest.mark.parametrize("root", RECORDED, ids=lambda path: path.name)
def test_a_nodes_facts_are_as_they_were(root: Path) -> None:
    facts = collect(root)
    assert facts == json.loads((root / "expected.json").read_text())
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("root", RECORDED, ids=lambda path: path.name)
def test_every_node_has_the_same_keys(root: Path) -> None:
    bare = collect(NODES / "debian12-none")
    facts = collect(root)
    assert {part: set(facts[part]) for part in facts} == {part: set(bare[part]) for part in bare}
    for part in ("driver", "fabric", "kernel", "health"):
        assert set(facts["gpu"][part]) == set(bare["gpu"][part])
    assert len({frozenset(device) for device in facts["gpu"]["devices"]}) <= 1


def test_a_sysroot_that_does_not_exist_is_a_node_of_which_nothing_is_known(tmp_path: Path) -> None:
    facts = gpu.collect(sysroot=str(tmp_path / "nowhere"))
    assert facts["present"] is False
    assert facts["kernel"]["release"] is None
    assert facts["kernel"]["headers"] is False
