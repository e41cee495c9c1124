# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA driver's libraries, whose file names carry its version. Private to the collection."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_LIBRARY = re.compile(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3}\.[\d.]*\d)$")
# Below usr/lib/<architecture>-linux-gnu: Debian's alternatives, and L4T.
_PRIVATE = ("nvidia/current", "nvidia", "tegra")


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _folders(sysroot: str) -> Iterator[str]:
    base = os.path.join(sysroot, "usr/lib")
    for name in sorted(_listing(base)):
        if name.endswith("-linux-gnu"):
            yield os.path.join(base, name)
            yield from (os.path.join(base, name, part) for part in _PRIVATE)
    yield os.path.join(sysroot, "usr/lib64")
    yield base


def versions(sysroot: str) -> list[str]:
    """The versions of libcuda and NVML that lie where the loader looks."""
    found = set()
    for folder in _folders(sysroot):
        for name in _listing(folder):
            match = _LIBRARY.match(name) if name.startswith("lib") else None
            if match:
                found.add(match.group(1))
    return sorted(found, key=lambda version: [int(number) for number in version.split(".")])


def version_in_use(sysroot: str, found: list[str]) -> str | None:
    """Of several versions the one that libcuda.so.1 leads to, else the newest."""
    if len(found) > 1:
        node = Sysroot(sysroot)
        for folder in _folders(sysroot):
            path = "/" + os.path.relpath(os.path.join(folder, "libcuda.so.1"), sysroot)
            match = _LIBRARY.match(os.path.basename(node.real(path)))
            if match and match.group(1) in found:
                return match.group(1)
    return found[-1] if found else None
