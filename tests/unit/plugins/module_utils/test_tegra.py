# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's systems on a chip, from their device tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu, tegra


def board(root: Path, soc: str) -> None:
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3737-0000\0nvidia," + soc.encode() + b"\0")
    (tree / "model").write_bytes(b"NVIDIA Jetson\0")
    (root / "etc").mkdir()
    (root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")


@pytest.mark.parametrize(
    ("soc", "chip", "architecture", "capability"),
    [
        ("tegra124", "GK20A", "Kepler", "3.2"),
        ("tegra210", "GM20B", "Maxwell", "5.3"),
        ("tegra186", "GP10B", "Pascal", "6.2"),
        ("tegra194", "GV11B", "Volta", "7.2"),
        ("tegra234", "GA10B", "Ampere", "8.7"),
        ("tegra264", "GB10B", "Blackwell", "11.0"),
        ("tegra999", None, None, None),
    ],
)
def test_board(tmp_path: Path, soc: str, chip: str | None, architecture: str | None, capability: str | None) -> None:
    board(tmp_path, soc)
    facts = gpu.collect(str(tmp_path))
    assert facts["tegra"] == {"model": "NVIDIA Jetson", "soc": soc, "l4t_version": "36.4.3"}
    assert facts["count"] == 1
    device = facts["devices"][0]
    assert (device["chip"], device["architecture"], device["compute_capability"]) == (chip, architecture, capability)
    assert (device["detected_by"], device["pci_address"], device["index"]) == ("devicetree", None, 0)
    assert facts["driver"]["source"] == "l4t"
    assert facts["reboot_needed"] is False


def test_an_arm_server_is_none(tmp_path: Path) -> None:
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,grace\0arm,virt\0")
    assert tegra.facts(str(tmp_path)) is None


def test_thor_is_not_listed_twice(tmp_path: Path) -> None:
    board(tmp_path, "tegra264")
    folder = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    folder.mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "device": "0x2b00", "class": "0x030000"}.items():
        (folder / name).write_text(text)
    devices = gpu.collect(str(tmp_path))["devices"]
    assert [(device["pci_id"], device["chip"]) for device in devices] == [("10de:2b00", "GB10B")]
