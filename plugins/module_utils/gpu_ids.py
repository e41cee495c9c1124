# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's device ids: chip, architecture, compute capability and name. Private to the collection.

Written from pci.ids 2026.07.01 and the open-gpu-kernel-modules README: NVIDIA hands out ids in blocks, one or
two blocks a chip, so a range stands for cards that no list names yet. An id outside every block is unknown.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

PCI_IDS_FILES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids")


class Chip(NamedTuple):
    """What a device id says about a GPU."""

    chip: str
    architecture: str
    compute_capability: str | None
    examples: str


# Ids that stand in the block of another chip.
_EXCEPTIONS: dict[int, Chip] = {
    0x102D: Chip("GK210", "Kepler", "3.7", "Tesla K80"),
    0x13AD: Chip("GM204", "Maxwell", "5.2", ""),
    0x13AE: Chip("GM204", "Maxwell", "5.2", ""),
    0x13BE: Chip("GM204", "Maxwell", "5.2", ""),
    0x13BF: Chip("GM204", "Maxwell", "5.2", ""),
}

# (first id, last id, chip, architecture, compute capability, well-known cards)
_BLOCKS: tuple[tuple[int, int, str, str, str | None, str], ...] = (
    (0x0FC0, 0x0FFF, "GK107", "Kepler", "3.0", "GRID K1, GeForce GT 640/GTX 650"),
    (0x1000, 0x103F, "GK110", "Kepler", "3.5", "Tesla K20, Tesla K40, GTX TITAN"),
    (0x1180, 0x11BF, "GK104", "Kepler", "3.0", "Tesla K10, GRID K2, GeForce GTX 680"),
    (0x11C0, 0x11FF, "GK106", "Kepler", "3.0", "GeForce GTX 660"),
    (0x1280, 0x12BF, "GK208", "Kepler", "3.5", "GeForce GT 710/730"),
    (0x1300, 0x133F, "GK110", "Kepler", "3.5", "Tesla K20, Tesla K40, GTX TITAN"),
    (0x1340, 0x137F, "GM108", "Maxwell", "5.0", "GeForce 940M"),
    (0x1380, 0x13BF, "GM107", "Maxwell", "5.0", "Tesla M10, Quadro K2200, GeForce GTX 750 Ti"),
    (0x13C0, 0x13FF, "GM204", "Maxwell", "5.2", "Tesla M60, GeForce GTX 980"),
    (0x1400, 0x143F, "GM206", "Maxwell", "5.2", "Tesla M4, GeForce GTX 960"),
    (0x15C0, 0x15FF, "GP100", "Pascal", "6.0", "Tesla P100, Quadro GP100"),
    (0x1600, 0x167F, "GM204", "Maxwell", "5.2", "Tesla M60, GeForce GTX 980"),
    (0x1700, 0x173F, "GP100", "Pascal", "6.0", "Tesla P100, Quadro GP100"),
    (0x1740, 0x177F, "GM108", "Maxwell", "5.0", "GeForce 940M"),
    (0x1780, 0x17BF, "GM107", "Maxwell", "5.0", "Tesla M10, Quadro K2200, GeForce GTX 750 Ti"),
    (0x17C0, 0x17FF, "GM200", "Maxwell", "5.2", "Tesla M40, Quadro M6000, GTX TITAN X"),
    (0x1B00, 0x1B7F, "GP102", "Pascal", "6.1", "Tesla P40, Quadro P6000, GeForce GTX 1080 Ti"),
    (0x1B80, 0x1BFF, "GP104", "Pascal", "6.1", "Tesla P4, Quadro P5000, GeForce GTX 1080"),
    (0x1C00, 0x1C7F, "GP106", "Pascal", "6.1", "GeForce GTX 1060, Quadro P2000"),
    (0x1C80, 0x1CFF, "GP107", "Pascal", "6.1", "GeForce GTX 1050, Quadro P1000"),
    (0x1D00, 0x1D7F, "GP108", "Pascal", "6.1", "GeForce GT 1030"),
    (0x1D80, 0x1DFF, "GV100", "Volta", "7.0", "Tesla V100, Quadro GV100, TITAN V"),
    (0x1E00, 0x1E7F, "TU102", "Turing", "7.5", "Quadro RTX 6000/8000, GeForce RTX 2080 Ti"),
    (0x1E80, 0x1EFF, "TU104", "Turing", "7.5", "Tesla T4, Quadro RTX 5000, GeForce RTX 2080"),
    (0x1F00, 0x1F7F, "TU106", "Turing", "7.5", "GeForce RTX 2060/2070"),
    (0x1F80, 0x1FFF, "TU117", "Turing", "7.5", "GeForce GTX 1650, T400/T600/T1000"),
    (0x2080, 0x20FF, "GA100", "Ampere", "8.0", "A100, A800, A30, CMP 170HX"),
    (0x2180, 0x21FF, "TU116", "Turing", "7.5", "GeForce GTX 1660"),
    (0x2200, 0x223F, "GA102", "Ampere", "8.6", "A10, A40, RTX A6000, GeForce RTX 3090/3080"),
    (0x2300, 0x23FF, "GH100", "Hopper", "9.0", "H100, H200, H20, GH200"),
    (0x2400, 0x247F, "GA103", "Ampere", "8.6", "GeForce RTX 3080 Ti Laptop"),
    (0x2480, 0x24FF, "GA104", "Ampere", "8.6", "RTX A4000, GeForce RTX 3070"),
    (0x2500, 0x257F, "GA106", "Ampere", "8.6", "RTX A2000, GeForce RTX 3060"),
    (0x2580, 0x25FF, "GA107", "Ampere", "8.6", "A16, A2, GeForce RTX 3050"),
    (0x2680, 0x26FF, "AD102", "Ada", "8.9", "L40, L40S, RTX 6000 Ada, GeForce RTX 4090"),
    (0x2700, 0x277F, "AD103", "Ada", "8.9", "GeForce RTX 4080"),
    (0x2780, 0x27FF, "AD104", "Ada", "8.9", "L4, L2, RTX 4000 Ada, GeForce RTX 4070"),
    (0x2800, 0x287F, "AD106", "Ada", "8.9", "GeForce RTX 4060 Ti"),
    (0x2880, 0x28FF, "AD107", "Ada", "8.9", "GeForce RTX 4060, RTX 2000 Ada"),
    (0x2900, 0x297F, "GB100", "Blackwell", "10.0", "B200, HGX B200, GB200"),
    (0x2980, 0x29FF, "GB102", "Blackwell", "10.0", "B100"),
    (0x2B00, 0x2B3F, "GB10B", "Blackwell", "11.0", "Jetson AGX Thor"),
    (0x2B80, 0x2BBF, "GB202", "Blackwell", "12.0", "RTX PRO 6000 Blackwell, GeForce RTX 5090"),
    (0x2C00, 0x2C7F, "GB203", "Blackwell", "12.0", "RTX PRO 4500/4000 Blackwell, GeForce RTX 5080/5070 Ti"),
    (0x2D00, 0x2D7F, "GB206", "Blackwell", "12.0", "GeForce RTX 5060/5060 Ti, RTX PRO 2000 Blackwell"),
    (0x2D80, 0x2DFF, "GB207", "Blackwell", "12.0", "GeForce RTX 5050"),
    (0x2E00, 0x2E3F, "GB20B", "Blackwell", "12.1", "GB10"),
    (0x2F00, 0x2F7F, "GB205", "Blackwell", "12.0", "GeForce RTX 5070"),
    (0x3040, 0x307F, "GR100", "Rubin", "10.7", "R100"),
    (0x30C0, 0x30FF, "GR102", "Rubin", None, ""),
    (0x3180, 0x31FF, "GB110", "Blackwell", "10.3", "B300, GB300"),
    (0x3200, 0x323F, "GB112", "Blackwell", "10.3", ""),
    (0x3340, 0x337F, "GB120", "Blackwell", None, ""),
)


def lookup(device_id: int) -> Chip | None:
    """The chip behind a PCI device id of NVIDIA's, or None where the table does not know it."""
    if device_id in _EXCEPTIONS:
        return _EXCEPTIONS[device_id]
    for first, last, chip, architecture, capability, examples in _BLOCKS:
        if first <= device_id <= last:
            return Chip(chip, architecture, capability, examples)
    return None


def architecture_of(capability: str | None) -> str | None:
    """The architecture of a compute capability, for GPUs whose PCI id is not to be had (WSL)."""
    for _first, _last, _chip, architecture, known, _examples in _BLOCKS:
        if capability is not None and known == capability:
            return architecture
    return _EXCEPTIONS[0x102D].architecture if capability == "3.7" else None


def _nvidia_section(sysroot: str) -> str:
    for path in PCI_IDS_FILES:
        try:
            with open(os.path.join(sysroot, path), encoding="utf-8", errors="replace") as stream:
                text = stream.read()
        except OSError:
            continue
        start = text.find("\n10de ")
        if start >= 0:
            following = re.compile(r"^[0-9a-f]{4} ", re.MULTILINE).search(text, start + 6)
            return text[start : following.start() if following else None]
    return ""


class Names:
    """Marketing names: from the node's own pci.ids where it lists the card, else from the table above."""

    def __init__(self, sysroot: str) -> None:
        self._section = _nvidia_section(sysroot)

    def of(self, device_id: int) -> str | None:
        """The name of a card, or None where neither list knows it."""
        row = re.search(rf"^\t{device_id:04x}  (.+)$", self._section, re.MULTILINE)
        if row:
            # "GA100 [A100 PCIe 40GB]": people know the card by what stands in the brackets.
            bracket = re.search(r"\[(.+)\]", row.group(1))
            return "NVIDIA " + (bracket.group(1) if bracket else row.group(1)).strip()
        chip = lookup(device_id)
        if chip is None:
            return None
        return f"NVIDIA {chip.chip}" + (f" ({chip.examples})" if chip.examples else "")
