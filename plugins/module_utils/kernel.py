# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running kernel, and what kind of machine it runs on. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean_or_none
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_LOCKDOWNS = ("none", "integrity", "confidentiality")
_CONTAINER_MARKS = ("run/systemd/container", "run/.containerenv", ".dockerenv")
# What firmware calls itself in virtual machines; only asked where the processor does not say (not x86).
_VM_VENDORS = ("QEMU", "VMware", "Xen", "innotek", "Parallels", "Google", "Amazon EC2", "OpenStack", "Red Hat")


def release(sysroot: str) -> str | None:
    """The release of the running kernel."""
    return clean_or_none(read_text(os.path.join(sysroot, "proc/sys/kernel/osrelease")))


def _secure_boot(sysroot: str) -> bool | None:
    try:
        with open(os.path.join(sysroot, _SECURE_BOOT), "rb") as stream:
            value = stream.read()
    except OSError:
        return None
    # Four bytes of attributes, then the variable's one byte.
    return bool(value[4]) if len(value) == 5 else None


def _lockdown(sysroot: str) -> str | None:
    # "none [integrity] confidentiality": the one in force stands in brackets.
    text = read_text(os.path.join(sysroot, "sys/kernel/security/lockdown")) or ""
    return next((mode for mode in _LOCKDOWNS if f"[{mode}]" in text.split()), None)


def _signatures_enforced(sysroot: str) -> bool | None:
    return {"Y": True, "N": False}.get(
        read_text(os.path.join(sysroot, "sys/module/module/parameters/sig_enforce")) or ""
    )


def facts(sysroot: str) -> dict[str, Any]:
    """The ``kernel`` part of the facts."""
    running = release(sysroot)
    headers = running is not None and os.path.exists(os.path.join(sysroot, "lib/modules", running, "build"))
    return {
        "release": running,
        "headers": headers,
        "secure_boot": _secure_boot(sysroot),
        "lockdown": _lockdown(sysroot),
        "module_signatures_enforced": _signatures_enforced(sysroot),
    }


def installed(sysroot: str = "/") -> list[dict[str, Any]]:
    """Every kernel that the node could boot or build modules for, the oldest first: release, headers, image.

    What a kernel that was removed left below /lib/modules is none: DKMS's modules often stay behind.
    """
    try:
        releases = os.listdir(os.path.join(sysroot, "lib/modules"))
    except OSError:
        return []
    found = []
    for release in sorted(releases, key=order):
        base = os.path.join(sysroot, "lib/modules", release)
        headers = os.path.exists(os.path.join(base, "build"))
        image = os.path.exists(os.path.join(sysroot, "boot/vmlinuz-" + release)) or os.path.exists(
            os.path.join(base, "vmlinuz")
        )
        if headers or image:
            found.append({"release": release, "headers": headers, "image": image})
    return found


def order(release_: str) -> list[tuple[int, str]]:
    """Sorts releases as a person would: 6.1.0-9 before 6.1.0-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[^\d]+", release_)]


def _is_wsl(sysroot: str) -> bool:
    return "microsoft" in (release(sysroot) or "").lower() or os.path.exists(os.path.join(sysroot, "dev/dxg"))


def _is_container(sysroot: str) -> bool:
    if any(os.path.exists(os.path.join(sysroot, mark)) for mark in _CONTAINER_MARKS):
        return True
    environment = read_text(os.path.join(sysroot, "proc/1/environ")) or ""  # readable by root only
    return any(variable.startswith("container=") for variable in environment.split("\0"))


def _is_vm(sysroot: str) -> bool:
    try:
        with open(os.path.join(sysroot, "proc/cpuinfo"), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("flags"):
                    return "hypervisor" in line.split()
    except OSError:
        pass  # a recorded node need not hold it; the firmware's name is asked next
    dmi = os.path.join(sysroot, "sys/class/dmi/id")
    vendor = read_text(os.path.join(dmi, "sys_vendor")) or ""
    product = read_text(os.path.join(dmi, "product_name")) or ""
    if vendor == "Microsoft Corporation":
        return product == "Virtual Machine"
    return vendor.startswith(_VM_VENDORS) and not product.endswith(".metal")


def virtualization(sysroot: str) -> str:
    """``wsl``, ``container``, ``vm`` or ``bare``: the innermost one."""
    if _is_wsl(sysroot):
        return "wsl"
    if _is_container(sysroot):
        return "container"
    return "vm" if _is_vm(sysroot) else "bare"
