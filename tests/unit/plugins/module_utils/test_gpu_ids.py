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
    bounds = [block[:2] for block in gpu_ids.BLOCKS]
    assert bounds == sorted(bounds)
    assert all(first <= last for first, last in bounds)
    assert all(before[1] < after[0] for before, after in zip(bounds, bounds[1:]))


@pytest.mark.parametrize(("capability", "architecture"), [("9.0", "Hopper"), ("3.7", "Kepler"), ("99.9", None)])
def test_architecture_of_a_capability(capability: str, architecture: str | None) -> None:
    assert gpu_ids.architecture_of(capability) == architecture
    assert gpu_ids.architecture_of(None) is None


def pci_ids(root: Path, version: str, rows: str) -> gpu_ids.Names:
    """A node with a pci.ids of its own."""
    folder = root / "usr/share/misc"
    folder.mkdir(parents=True)
    others = ("10dd  Other\n\tfff0  Wrong\n", "10df  Emulex\n\tfff0  Wrong too\n")
    text = f"#\tVersion: {version}\n{others[0]}10de  NVIDIA Corporation\n{rows}{others[1]}"
    (folder / "pci.ids").write_text(text)
    return gpu_ids.Names(str(root))


def test_a_node_without_pci_ids_has_our_names(tmp_path: Path) -> None:
    names = gpu_ids.Names(str(tmp_path))
    assert names.of(0x20F1) == "NVIDIA A100 PCIe 40GB"
    assert names.of(0x2901) == "NVIDIA B200"
    assert names.of(0x2302) == "NVIDIA GH100 (H100, H200, GH200)"  # in the block, in no list
    assert names.of(0xFFF0) is None


@pytest.mark.parametrize(
    ("version", "name"), [("2099.01.01", "NVIDIA A100 Next"), ("2023.04.11", "NVIDIA A100 PCIe 40GB")]
)
def test_the_newer_list_names_the_card(tmp_path: Path, version: str, name: str) -> None:
    names = pci_ids(tmp_path, version, "\t20f1  GA100 [A100 Next]\n\t\t10de 145f  Sub\n\tfff0  Odd\x1b[31m thing\n")
    assert names.of(0x20F1) == name
    assert names.of(0xFFF0) == "NVIDIA Odd\ufffd[31m thing"


def test_the_nodes_own_pci_ids_knows_a_newer_chip(tmp_path: Path) -> None:
    rows = "\tfff0  GB205GLM [RTX 9000]\n\tfff1  GX100 [Feynman]\n\tfff2  GR999 [Reserved Dev ID A]\n"
    names = pci_ids(tmp_path, "2099.01.01", rows)
    assert names.chip(0xFFF0) == ("GB205", "Blackwell", "12.0")
    assert names.of(0xFFF0) == "NVIDIA RTX 9000"
    assert names.chip(0xFFF1) is None
    assert names.of(0xFFF1) == "NVIDIA Feynman"
    assert (names.chip(0xFFF2), names.of(0xFFF2)) == (("GR999", "Rubin", None), "NVIDIA GR999")


@pytest.mark.parametrize("chip", sorted({block[2] for block in gpu_ids.BLOCKS} | set(gpu_ids.EXCEPTIONS.values())))
def test_every_chip_of_the_table_has_an_architecture(chip: str) -> None:
    found = gpu_ids.chip_facts(chip)
    assert found is not None
    assert found.compute_capability is not None or chip in ("GB120", "GR102")
