# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What DKMS has of the NVIDIA driver, read from its own tree. Private to the collection.

`/var/lib/dkms/<module>/<version>` exists once a source was added, `<kernel>/<architecture>` below it once it was built,
and the link `<module>/kernel-<kernel>-<architecture>` as long as it is installed.
"""

from __future__ import annotations

import os
import re
from typing import Any

_STATES = ("added", "built", "installed")


def _listing(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _installed_version(base: str, names: list[str], release: str) -> str | None:
    for name in names:
        if name.startswith(f"kernel-{release}-"):
            try:
                return os.readlink(os.path.join(base, name)).split("/")[0]
            except OSError:
                continue  # no link: nothing of DKMS's
    return None


def state(sysroot: str, release: str | None) -> dict[str, Any]:
    """Module, version and state (installed, built, added) of the driver for a kernel; None where DKMS has none."""
    root = os.path.join(sysroot, "var/lib/dkms")
    found = []
    for module in _listing(root):
        if not module.startswith("nvidia") or module.startswith("nvidia-fs"):
            continue
        base = os.path.join(root, module)
        names = _listing(base)
        installed = _installed_version(base, names, release) if release else None
        for version in names:
            if not re.match(r"\d{3}\.\d+(\.\d+)*$", version):
                continue
            built = release is not None and os.path.isdir(os.path.join(base, version, release))
            step = 2 if version == installed else 1 if built else 0
            found.append((step, _numbers(version), module, version))
    if not found:
        return {"module": None, "version": None, "state": None}
    step, _order, module, version = max(found)
    return {"module": module, "version": version, "state": _STATES[step]}
