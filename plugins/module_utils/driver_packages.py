# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of the NVIDIA driver that a node has. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import packages
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

_KERNEL_PACKAGE = re.compile(
    r"^(nvidia-.*dkms|k?mod-nvidia|akmod-nvidia|nvidia-kernel-(common|source)-\d|nvidia-open$)"
)
_LOCK_FILES = ("etc/dnf/plugins/versionlock.list", "etc/dnf/versionlock.toml", "etc/yum/pluginconf.d/versionlock.list")
_VERSION = re.compile(r"(?<![\d.])(\d{3}\.\d+(?:\.\d+)*)")


class Package(NamedTuple):
    """One installed package; ``maintainer`` is empty where the package manager does not tell."""

    name: str
    version: str
    held: bool
    maintainer: str


def upstream(text: str) -> str | None:
    """The driver's own version in a package's version or any other text."""
    match = _VERSION.search(text)
    return match.group(1) if match else None


def _field(stanza: str, name: str) -> str:
    match = re.search(rf"^{name}: (.*)$", stanza, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _of_dpkg(sysroot: str) -> list[Package]:
    """The stanzas that speak of nvidia, found without taking the other thousands apart."""
    try:
        with open(os.path.join(sysroot, packages.DPKG_STATUS), "rb") as stream:
            data = stream.read()
    except OSError:
        return []
    found, at = [], data.find(b"nvidia")
    while at >= 0:
        start, end = data.rfind(b"\n\n", 0, at) + 1, data.find(b"\n\n", at)
        end = end if end >= 0 else len(data)
        stanza = data[start:end].decode("utf-8", "replace")
        name, status = _field(stanza, "Package"), _field(stanza, "Status").split()
        if "nvidia" in name and status[-1:] == ["installed"]:
            held = status[0] == "hold"
            found.append(Package(clean(name), clean(_field(stanza, "Version")), held, _field(stanza, "Maintainer")))
        at = data.find(b"nvidia", end)
    return found


def _of_rpm(sysroot: str) -> list[Package]:
    if not any(os.path.isdir(os.path.join(sysroot, folder)) for folder in packages.RPM_DATABASES):
        return []
    known = packages.installed_versions(None, sysroot)
    locks = "".join(read_text(os.path.join(sysroot, path)) or "" for path in _LOCK_FILES)
    locked = any("nvidia" in line for line in locks.splitlines() if not line.lstrip().startswith("#"))
    return [Package(clean(name), clean(version), locked, "") for name, version in known.items() if "nvidia" in name]


def installed(sysroot: str, ask_rpm: bool = True) -> dict[str, Package]:
    """Every installed package with nvidia in its name.

    :param ask_rpm: rpm has to be started to be asked, so it is asked only where there is something to ask for.
    """
    found = {package.name: package for package in (_of_rpm(sysroot) if ask_rpm else [])}
    found.update({package.name: package for package in _of_dpkg(sysroot)})
    return found


def kernel_side(known: dict[str, Package]) -> list[Package]:
    """The packages that bring the kernel module, the one that says most about it first."""
    found = [package for package in known.values() if _KERNEL_PACKAGE.match(package.name) and upstream(package.version)]
    return sorted(found, key=lambda package: ("kernel-common" in package.name, package.name))


def flavour(found: list[Package]) -> str | None:
    """``open`` or ``proprietary``, by the names."""
    if not found:
        return None
    return "open" if any("open" in package.name for package in found) else "proprietary"


def source(found: list[Package]) -> str | None:
    """Whose the packages are: the distribution's (``distro``) or NVIDIA's (``nvidia``)."""
    for package in found:
        if package.maintainer:
            return "nvidia" if "nvidia.com" in package.maintainer else "distro"
    if not found:
        return None
    # Red Hat's family has no driver of its own; RPM Fusion's akmod is the nearest to one.
    return "distro" if any(package.name.startswith("akmod") for package in found) else "nvidia"


def facts(found: list[Package]) -> dict[str, Any] | None:
    """Name and version of the package that brings the kernel module."""
    return {"name": found[0].name, "version": found[0].version} if found else None
