# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scan of the PCI bus."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import pci


def add(root: Path, address: str = "0000:3b:00.0", **files: str) -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "device": "0x2330", "class": "0x030200", **files}.items():
        (folder / name).write_text(text + "\n")


def test_no_pci_bus_is_no_gpu(tmp_path: Path) -> None:
    assert pci.scan(str(tmp_path)) == pci.PciScan([], 0)


@pytest.mark.parametrize("kind", ["0x030000", "0x030200"])
def test_vga_and_3d_controllers_are_gpus(tmp_path: Path, kind: str) -> None:
    add(tmp_path, **{"class": kind})
    assert [gpu.pci_id for gpu in pci.scan(str(tmp_path)).gpus] == ["10de:2330"]


@pytest.mark.parametrize("kind", ["0x040300", "0x0c0330", "0x060400"])
def test_other_functions_are_not(tmp_path: Path, kind: str) -> None:
    add(tmp_path, **{"class": kind})
    assert pci.scan(str(tmp_path)) == pci.PciScan([], 0)


def test_nvswitches_are_counted_apart(tmp_path: Path) -> None:
    add(tmp_path, "0000:07:00.0", **{"class": "0x068000", "device": "0x22a3"})
    add(tmp_path, "0000:08:00.0", **{"class": "0x068000", "device": "0x22a3", "vendor": "0x8086"})
    assert pci.scan(str(tmp_path)) == pci.PciScan([], 1)


def test_order_is_that_of_the_bus(tmp_path: Path) -> None:
    for address in ("0000:db:00.0", "0000:19:00.0"):
        add(tmp_path, address)
    assert [gpu.address for gpu in pci.scan(str(tmp_path)).gpus] == ["0000:19:00.0", "0000:db:00.0"]


def test_driver_is_what_the_link_names(tmp_path: Path) -> None:
    add(tmp_path)
    (tmp_path / "sys/bus/pci/devices/0000:3b:00.0/driver").symlink_to("../../../../bus/pci/drivers/nouveau")
    assert pci.scan(str(tmp_path)).gpus[0].driver == "nouveau"


@pytest.mark.parametrize(
    ("speed", "generation"),
    [("2.5 GT/s", 1), ("5 GT/s", 2), ("8.0 GT/s PCIe", 3), ("32.0 GT/s PCIe", 5), ("Unknown", None), ("", None)],
)
def test_link_speed(tmp_path: Path, speed: str, generation: int | None) -> None:
    add(tmp_path, current_link_speed=speed, current_link_width="0", max_link_width="16")
    assert pci.scan(str(tmp_path)).gpus[0].pcie == pci.Pcie(generation, None, None, 16)


@pytest.mark.parametrize(("text", "node"), [("-1", None), ("0", 0), ("1", 1), ("x", None)])
def test_numa_node(tmp_path: Path, text: str, node: int | None) -> None:
    add(tmp_path, numa_node=text)
    assert pci.scan(str(tmp_path)).gpus[0].numa_node == node


def test_a_device_that_vanishes_is_left_out(tmp_path: Path) -> None:
    add(tmp_path, device="")
    assert pci.scan(str(tmp_path)).gpus == []


@pytest.mark.parametrize(
    ("driver", "kept"),
    [("vfio-pci", True), ("nvgrace-gpu-vfio-pci", True), ("pci-stub", True), ("nvidia", False), (None, False)],
)
def test_passthrough(tmp_path: Path, driver: str | None, kept: bool) -> None:
    add(tmp_path)
    if driver:
        (tmp_path / "sys/bus/pci/devices/0000:3b:00.0/driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
    assert pci.scan(str(tmp_path)).gpus[0].passthrough is kept


def test_a_virtual_function_is_no_gpu_of_the_host(tmp_path: Path) -> None:
    add(tmp_path)
    add(tmp_path, "0000:3b:00.4")
    (tmp_path / "sys/bus/pci/devices/0000:3b:00.4/physfn").symlink_to("../0000:3b:00.0")
    assert [gpu.address for gpu in pci.scan(str(tmp_path)).gpus] == ["0000:3b:00.0"]


def test_hostile_driver_name_is_cleaned(tmp_path: Path) -> None:
    add(tmp_path)
    (tmp_path / "sys/bus/pci/devices/0000:3b:00.0/driver").symlink_to("drivers/x\x1b[2J")
    assert pci.scan(str(tmp_path)).gpus[0].driver == "x\ufffd[2J"
