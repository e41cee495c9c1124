# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a device id of NVIDIA's says: chip, architecture, compute capability and name. Private to the collection.

The chip comes from our table of blocks, and for an id newer than that from the node's own pci.ids. An id that
neither knows is unknown.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_names import NAMES
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_table import BLOCKS, DATABASE, EXCEPTIONS
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean

PCI_IDS_FILES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids")


class Chip(NamedTuple):
    """A GPU's chip; ``compute_capability`` is None where NVIDIA has not said it."""

    chip: str
    architecture: str
    compute_capability: str | None


# Chips whose compute capability does not follow from their name, the ones inside Tegra among them, and well-known
# cards of a chip, for ids that no list of names has.
_CAPABILITIES: dict[str, str | None] = {
    "GK20A": "3.2", "GK208": "3.5", "GK210": "3.7", "GM20B": "5.3", "GP100": "6.0", "GP10B": "6.2", "GV100": "7.0", "GV11B": "7.2",
    "GA100": "8.0", "GA10B": "8.7", "GB100": "10.0", "GB102": "10.0", "GB110": "10.3", "GB112": "10.3",
    "GB10B": "11.0", "GB20B": "12.1", "GB120": None, "GR100": "10.7", "GR102": None,
}  # fmt: skip
_CARDS = {
    "GA100": "A100, A800, A30", "GH100": "H100, H200, GH200", "GB100": "B200, GB200", "GB102": "B100",
    "GB110": "B300, GB300", "GV100": "Tesla V100", "GP100": "Tesla P100", "GB202": "RTX PRO 6000 Blackwell",
    "GA102": "A10, A40, RTX A6000", "AD102": "L40, L40S, RTX 6000 Ada", "AD104": "L4", "TU104": "Tesla T4",
}  # fmt: skip
# First letters of a chip's name, architecture, compute capability of the ones not named above.
_FAMILIES = (
    ("GK10", "Kepler", "3.0"),
    ("GK11", "Kepler", "3.5"),
    ("GK", "Kepler", None),
    ("GM10", "Maxwell", "5.0"),
    ("GM20", "Maxwell", "5.2"),
    ("GM", "Maxwell", None),
    ("GP10", "Pascal", "6.1"),
    ("GP", "Pascal", None),
    ("GV", "Volta", None),
    ("TU1", "Turing", "7.5"),
    ("TU", "Turing", None),
    ("GA10", "Ampere", "8.6"),
    ("GA", "Ampere", None),
    ("AD10", "Ada", "8.9"),
    ("AD", "Ada", None),
    ("GH100", "Hopper", "9.0"),
    ("GH", "Hopper", None),
    ("GB20", "Blackwell", "12.0"),
    ("GB", "Blackwell", None),
    ("GR", "Rubin", None),
)
_CHIP = re.compile(r"(G[KMPVAHBR]\d[0-9A-F]{2}|TU\d{3}|AD\d{3})[A-Z]{0,4}(?: |$)")
_NO_NAME = re.compile(r"reserved|engineering sample", re.IGNORECASE)


def chip_facts(chip: str) -> Chip | None:
    """Architecture and compute capability of a chip, or None for a family that nobody has told us of."""
    for letters, architecture, capability in _FAMILIES:
        if chip.startswith(letters):
            return Chip(chip, architecture, _CAPABILITIES.get(chip, capability))
    return None


def lookup(device_id: int) -> Chip | None:
    """The chip behind a PCI device id of NVIDIA's, or None where our table does not know it."""
    chip = EXCEPTIONS.get(device_id)
    for first, last, of_block in () if chip else BLOCKS:
        if first <= device_id <= last:
            chip = of_block
    return chip_facts(chip) if chip else None


def architecture_of(capability: str | None) -> str | None:
    """The architecture of a compute capability, for GPUs whose PCI id is not to be had (WSL)."""
    if capability is None:
        return None
    for chip, known in _CAPABILITIES.items():
        found = chip_facts(chip)
        if known == capability and found:
            return found.architecture
    return next((architecture for _letters, architecture, known in _FAMILIES if known == capability), None)


def _text_of(path: str, limit: int = -1) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(limit)
    except OSError:
        return ""


def _nvidia_section(text: str) -> str:
    start = text.find("\n10de ")
    if start < 0:
        return ""
    following = re.compile(r"^[0-9a-f]{4} ", re.MULTILINE).search(text, start + 6)
    return text[start : following.start() if following else None]


def _our_name(device_id: int) -> str | None:
    start = NAMES.find(f"\n{device_id:04x} ")
    return NAMES[start + 6 : NAMES.index("\n", start + 1)] if start >= 0 else None


class Names:
    """Names and chips, from our tables and the node's own pci.ids: the newer of the two is asked first.

    The node's file has a megabyte and more, so it is read only where ours does not do.
    """

    def __init__(self, sysroot: str) -> None:
        paths = [os.path.join(sysroot, path) for path in PCI_IDS_FILES]
        self._path = next((path for path in paths if os.path.isfile(path)), None)
        self._section: str | None = None
        self._newer: bool | None = None

    def _is_newer(self) -> bool:
        if self._newer is None:
            heading = _text_of(self._path, 1024) if self._path else ""
            dated = re.search(r"^#\s*Version:\s*(\d{4}\.\d\d\.\d\d)", heading, re.MULTILINE)
            self._newer = dated is not None and dated.group(1) > DATABASE
        return self._newer

    def _described(self, device_id: int) -> str:
        """What the node's own pci.ids writes behind an id; empty where it does not list it."""
        if self._section is None:
            self._section = _nvidia_section(_text_of(self._path)) if self._path else ""
        row = re.search(rf"^\t{device_id:04x}  (.+)$", self._section, re.MULTILINE)
        return row.group(1).strip() if row else ""

    def _nodes_name(self, device_id: int) -> str | None:
        # "GA100 [A100 PCIe 40GB]": people know the card by what stands in the brackets.
        bracket = re.search(r"\[(.+)\]", self._described(device_id))
        return bracket.group(1) if bracket and not _NO_NAME.search(bracket.group(1)) else None

    def chip(self, device_id: int) -> Chip | None:
        """The chip of a device, or None where neither list knows it."""
        known = lookup(device_id)
        if known:
            return known
        named = _CHIP.match(self._described(device_id))
        return chip_facts(named.group(1)) if named else None

    def of(self, device_id: int) -> str | None:
        """The name of a card, or None where neither list knows it."""
        first, second = (self._nodes_name, _our_name) if self._is_newer() else (_our_name, self._nodes_name)
        name = first(device_id) or second(device_id)
        if name is None:
            chip = self.chip(device_id)
            if chip is None:
                name = self._described(device_id) or None
            else:
                name = chip.chip + (f" ({_CARDS[chip.chip]})" if chip.chip in _CARDS else "")
        return "NVIDIA " + clean(name) if name else None
