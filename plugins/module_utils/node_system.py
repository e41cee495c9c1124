# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The C library, the compiler and the processor of a node. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import elf
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_LIBC_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")


def running_glibc() -> str | None:
    """The version of the C library that this Python runs on; None where it is another one than glibc."""
    try:
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (OSError, ValueError):
        return None
    return words[1] if len(words) == 2 and words[0] == "glibc" else None


def glibc_on_disk(node: Sysroot) -> str | None:
    """The version of the C library of a node that does not run here."""
    multiarch = [
        f"{base}/{os.path.basename(p)}"
        for p in node.listing("/usr/lib", "*-linux-gnu")
        for base in ("/lib", "/usr/lib")
    ]
    for folder in [*multiarch, *_LIBC_DIRS]:
        name = os.path.basename(node.real(folder + "/libc.so.6"))
        match = re.match(r"^libc-(\d+\.\d+)\.so$", name)  # a link to such a file before glibc 2.34
        if match:
            return match.group(1)
        try:
            constants = elf.section(node.place(folder + "/libc.so.6"), ".rodata")
        except OSError:
            continue
        stated = re.search(rb"GNU C Library [^\0\n]*version (\d+\.\d+)", constants or b"")
        if stated:
            return stated.group(1).decode()
    return None


def gcc(node: Sysroot) -> int | None:
    """The major version of the system's C compiler; None where there is none or nothing tells."""
    if not node.exists("/usr/bin/gcc"):
        return None
    # Debian and SUSE link to a name with the version, Red Hat's family has one directory of it.
    match = re.search(r"gcc-(\d+)$", node.real("/usr/bin/gcc"))
    if match:
        return int(match.group(1))
    folders = [path for target in node.listing("/usr/lib/gcc") for path in node.listing(target, "[0-9]*")]
    majors = {int(os.path.basename(path).split(".")[0]) for path in folders if node.exists(path + "/cc1")} or {
        int(os.path.basename(path).split(".")[0]) for path in folders
    }
    return majors.pop() if len(majors) == 1 else None


def architecture_on_disk(node: Sysroot, kernel_release: str | None) -> str | None:
    """The processor of a node that does not run here, by the names of its directories or of its kernel."""
    for path in node.listing("/usr/lib", "*-linux-gnu"):
        return os.path.basename(path).split("-")[0]
    match = re.search(r"(x86_64|aarch64|ppc64le)$", kernel_release or "")
    return match.group(1) if match else None


def cpu(node: Sysroot) -> dict[str, Any]:
    """The processor as the kernel names it, and how many threads of it the node has."""
    fields = re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*)$", node.text("/proc/cpuinfo") or "", re.MULTILINE)
    first: dict[str, str] = {}
    for name, value in fields:
        first.setdefault(name, value.strip())
    # Of Arm the kernel tells the numbers of maker and part only.
    arm = [first[name] for name in ("CPU implementer", "CPU part") if first.get(name)]
    model = first.get("model name") or (f"Arm {' '.join(arm)}" if len(arm) == 2 else None)
    threads = sum(1 for name, _value in fields if name == "processor")
    return {"model": model and " ".join(model.split()), "threads": threads or None}
