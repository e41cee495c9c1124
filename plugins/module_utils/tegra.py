# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's systems on a chip (Jetson, DRIVE), whose GPU stands in the device tree. Private to the collection.

Their driver comes with the board's own Linux (L4T), not from a package of the kind that servers have. A server with an
Arm processor of NVIDIA's (Grace) has its GPUs on the PCI bus and is none of these.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean_or_none
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

DEVICE_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")
CHIPS = {
    "tegra124": "GK20A",  # Jetson TK1
    "tegra210": "GM20B",  # Jetson Nano, TX1
    "tegra186": "GP10B",  # Jetson TX2
    "tegra194": "GV11B",  # Jetson Xavier
    "tegra234": "GA10B",  # Jetson Orin
    "tegra264": "GB10B",  # Jetson Thor
}


def _property(sysroot: str, name: str) -> list[str]:
    """The strings of a device tree's property: each ends with a zero byte."""
    for tree in DEVICE_TREES:
        text = read_text(os.path.join(sysroot, tree, name))
        if text:
            return [part for part in text.split("\0") if part]
    return []


def _l4t_version(sysroot: str) -> str | None:
    # "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ..."
    text = read_text(os.path.join(sysroot, "etc/nv_tegra_release")) or ""
    match = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    return f"{match.group(1)}.{match.group(2)}" if match else None


def facts(sysroot: str) -> dict[str, Any] | None:
    """Model, system on a chip and version of L4T; None on every other machine."""
    for compatible in _property(sysroot, "compatible"):
        match = re.match(r"nvidia,(tegra\d{3})$", compatible)
        if match:
            model = _property(sysroot, "model")
            return {
                "model": clean_or_none(model[0]) if model else None,
                "soc": match.group(1),
                "l4t_version": _l4t_version(sysroot),
            }
    return None
