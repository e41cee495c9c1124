# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of device ids, and names from pci.ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_ids


@pytest.mark.parametrize(
    ("device_id", "chip", "architecture", "capability"),
    [
        (0x102D, "GK210", "Kepler", "3.7"),  # in the block of GK110
        (0x1023, "GK110", "Kepler", "3.5"),
        (0x13BE, "GM204", "Maxwell", "5.2"),  # in the block of GM107
        (0x13BA, "GM107", "Maxwell", "5.0"),
        (0x15F8, "GP100", "Pascal", "6.0"),
        (0x1DB6, "GV100", "Volta", "7.0"),
        (0x1EB8, "TU104", "Turing", "7.5"),
        (0x20F1, "GA100", "Ampere", "8.0"),
        (0x2235, "GA102", "Ampere", "8.6"),
        (0x26B9, "AD102", "Ada", "8.9"),
        (0x2330, "GH100", "Hopper", "9.0"),
        (0x2901, "GB100", "Blackwell", "10.0"),
        (0x2B85, "GB202", "Blackwell", "12.0"),
        (0x3182, "GB110", "Blackwell", "10.3"),
        (0x3340, "GB120", "Blackwell", None),
    ],
)
def test_known_ids(device_id: int, chip: str, architecture: str, capability: str | None) -> None:
    found = gpu_ids.lookup(device_id)
    assert found is not None
    assert (found.chip, found.architecture, found.compute_capability) == (chip, architecture, capability)


@pytest.mark.parametrize("device_id", [0x22A3, 0x0001, 0xFFFF, 0x10F7])
def test_an_id_outside_every_block_is_unknown(device_id: int) -> None:
    assert gpu_ids.lookup(device_id) is None


def test_blocks_neither_overlap_nor_run_backwards() -> None:
    bounds = [block[:2] for block in gpu_ids._BLOCKS]
    assert bounds == sorted(bounds)
    assert all(first <= last for first, last in bounds)
    assert all(before[1] < after[0] for before, after in zip(bounds, bounds[1:]))


@pytest.mark.parametrize(("capability", "architecture"), [("9.0", "Hopper"), ("3.7", "Kepler"), ("99.9", None)])
def test_architecture_of_a_capability(capability: str, architecture: str | None) -> None:
    assert gpu_ids.architecture_of(capability) == architecture
    assert gpu_ids.architecture_of(None) is None


def test_the_nodes_own_pci_ids_names_the_card(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/misc"
    folder.mkdir(parents=True)
    text = "10dd  Other\n\t20f1  Wrong\n10de  NVIDIA Corporation\n\t20f1  GA100 [A100 PCIe 40GB]\n\t\t10de 145f  Sub\n"
    (folder / "pci.ids").write_text("# list\n" + text + "10df  Emulex\n\t2330  Wrong too\n")
    names = gpu_ids.Names(str(tmp_path))
    assert names.of(0x20F1) == "NVIDIA A100 PCIe 40GB"
    assert names.of(0x2330) == "NVIDIA GH100 (H100, H200, H20, GH200)"
    assert names.of(0xFFFF) is None
