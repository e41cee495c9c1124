# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loaded driver shows of a GPU in /proc, for when NVML does not speak. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean_or_none
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text


def _listing(path: str, pattern: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path) if re.match(pattern, name))
    except OSError:
        return []


def _mig(sysroot: str, minor: str) -> dict[str, Any] | None:
    """The instances that the driver guards with a capability each; None where there is none to be seen."""
    base = os.path.join(sysroot, f"proc/driver/nvidia/capabilities/gpu{minor}/mig")
    slices = [os.path.join(base, name) for name in _listing(base, r"gi\d+$")]
    instances = [name for folder in slices for name in _listing(folder, r"ci\d+$")]
    if not slices:
        return None  # MIG is off, or on and not divided yet
    unknown = {"uuid": None, "name": None, "memory_mib": None}
    return {"enabled": True, "instances": [dict(unknown) for _instance in instances]}


def about(sysroot: str, address: str) -> dict[str, Any]:
    """Name, UUID and MIG instances of the GPU at a PCI address, as far as the driver shows them."""
    text = read_text(os.path.join(sysroot, "proc/driver/nvidia/gpus", address, "information"))
    fields = dict(re.findall(r"^([A-Za-z ]+?):[ \t]*(.+)$", text or "", re.MULTILINE))
    uuid, minor = fields.get("GPU UUID", ""), fields.get("Device Minor", "")
    return {
        "name": clean_or_none(fields.get("Model")),
        # A GPU that was never used since the driver came up shows question marks.
        "uuid": clean_or_none(uuid) if re.match(r"GPU-[0-9a-f-]+$", uuid) else None,
        "mig": _mig(sysroot, minor) if minor.isdigit() else None,
    }
