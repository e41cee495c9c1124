# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node itself: distribution, C library, Pythons, room and rights. Private to the collection."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    kernel,
    node_distribution,
    node_pythons,
    node_system,
    packages,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

SCHEMA = 2  # of what the probe answers; cached facts of another one are not used
RECORD = "/.gpufleet/node.json"  # on a recorded node: what no file told
# What the recorder writes down, since it comes from the running system and not from files.
RECORDED = ("architecture", "glibc", "root", "prefix", "kernels")
_INITRAMFS_TOOLS = ("update-initramfs", "dracut", "mkinitrd")


def prefix_facts(prefix: str) -> dict[str, Any]:
    """Room and rights where the prefix stands or would be made."""
    parent = os.path.abspath(prefix)
    while not os.path.isdir(parent) and parent != "/":
        parent = os.path.dirname(parent)
    try:
        space = os.statvfs(parent)
        free: int | None = space.f_bavail * space.f_frsize // (1024 * 1024)
        read_only = bool(space.f_flag & os.ST_RDONLY)
    except OSError:
        return {"path": prefix, "writable": False, "free_mib": None}
    return {"path": prefix, "writable": not read_only and os.access(parent, os.W_OK | os.X_OK), "free_mib": free}


def _record(node: Sysroot) -> dict[str, Any]:
    try:
        found = json.loads(node.text(RECORD) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _running(prefix: str) -> dict[str, Any]:
    """What only the running system tells."""
    return {
        "architecture": os.uname().machine or None,
        "glibc": node_system.running_glibc(),
        "root": os.geteuid() == 0,
        "prefix": prefix_facts(prefix),
        "kernels": kernel.installed(),
    }


def _replayed(node: Sysroot, prefix: str, release: str | None) -> dict[str, Any]:
    """The same of a node that does not run here: as it was recorded, else as far as files tell."""
    record = _record(node)
    return {
        "architecture": record.get("architecture") or node_system.architecture_on_disk(node, release),
        "glibc": record.get("glibc") or node_system.glibc_on_disk(node),
        "root": record.get("root") if "root" in record else os.geteuid() == 0,
        "prefix": {**(record.get("prefix") or prefix_facts(node.below(prefix))), "path": prefix},
        # Of other kernels than the running one a record has no files.
        "kernels": record["kernels"] if "kernels" in record else kernel.installed(node.root),
    }


def _initramfs(node: Sysroot) -> bool:
    tool = any(node_distribution.has_program(node, name) for name in _INITRAMFS_TOOLS)
    return tool and bool(node.listing("/boot", "initr*"))


def collect(prefix: str = "/opt/gpufleet", sysroot: str = "/") -> dict[str, Any]:
    """The facts ``node`` of the probe, every key always there.

    :param prefix: where the collection installs, as the node sees it.
    :param sysroot: everything is read below it; other than ``/`` it is a recorded node.
    """
    node, live = Sysroot(sysroot), os.path.abspath(sysroot) == "/"
    fields = node_distribution.os_release(node)
    name, version, codename = node_distribution.distribution(fields)
    errors = [] if fields else [{"code": "GF-NO-OS-RELEASE", "message": "/etc/os-release can't be read"}]
    kernel_facts = kernel.facts(sysroot)
    system = _running(prefix) if live else _replayed(node, prefix, kernel_facts["release"])
    return {
        "distribution": name,
        "version": version,
        "codename": codename,
        "architecture": system["architecture"],
        "cpu": node_system.cpu(node),
        "glibc": system["glibc"],
        "gcc": node_system.gcc(node),
        "package_manager": node_distribution.package_manager(node, fields),
        "packages_interrupted": packages.dpkg_interrupted(sysroot),
        "pythons": node_pythons.find(node, live),
        "root": system["root"],
        "prefix": system["prefix"],
        "kernel": {"release": kernel_facts["release"], "headers": kernel_facts["headers"]},
        "kernels": system["kernels"],
        "initramfs": _initramfs(node),
        "boot_id": (node.text("/proc/sys/kernel/random/boot_id") or "").strip() or None,
        "errors": errors,
    }
