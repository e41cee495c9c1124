# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA driver: which one is installed, which one is loaded, where it came from. Private to the collection.

"Installed" means the kernel's side: libcuda alone, which other packages pull in, drives nothing.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver_dkms,
    driver_libraries,
    driver_module,
    driver_packages,
    driver_remains,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import Package, upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import PciDevice, read_text

# The newest CUDA that the drivers of a branch serve, from the driver tables of NVIDIA's CUDA release notes.
CUDA_OF_BRANCH = {
    "470": "11.4", "510": "11.6", "515": "11.7", "520": "11.8", "525": "12.0", "530": "12.1", "535": "12.2",
    "545": "12.3", "550": "12.4", "555": "12.5", "560": "12.6", "570": "12.8", "575": "12.9", "580": "13.0",
    "590": "13.1", "595": "13.2", "610": "13.3",
}  # fmt: skip

_COMPETITORS = {"nouveau": "nouveau", "nova_core": "nova_core", "nova-core": "nova_core", "NovaCore": "nova_core"}


class Found(NamedTuple):
    """A version of the driver and its flavour, ``open`` or ``proprietary``; None is unknown."""

    version: str | None
    flavour: str | None


NOTHING = Found(None, None)


class Node(NamedTuple):
    """What the driver's facts need to know of the rest of the node."""

    sysroot: str
    kernel: dict[str, Any]
    virtualization: str
    gpus: list[PciDevice]
    packages: dict[str, Package]
    tegra: bool = False


def loaded(sysroot: str) -> Found:
    """The driver the kernel runs now."""
    text = read_text(os.path.join(sysroot, "proc/driver/nvidia/version")) or ""
    first = text.split("\n", 1)[0]
    if upstream(first):
        return Found(upstream(first), "open" if "Open Kernel Module" in first else "proprietary")
    version = read_text(os.path.join(sysroot, "sys/module/nvidia/version")) or ""
    return Found(upstream(version), None)


def _installed(module: driver_module.ModuleFile, dkms: dict[str, Any], found: list[Package]) -> Found:
    """The driver on disk that the running kernel would load, else the one that the packages brought."""
    by_dkms = NOTHING
    if dkms["state"] in ("installed", "built"):
        by_dkms = Found(dkms["version"], "open" if "open" in dkms["module"] else None)
    by_packages = Found(upstream(found[0].version) if found else None, driver_packages.flavour(found))
    version = module.version or by_dkms.version or by_packages.version
    return Found(version, module.flavour or by_dkms.flavour or by_packages.flavour)


def _source(node: Node, found: list[Package], installed: bool) -> str | None:
    if node.tegra:
        return "l4t"
    runfile = os.path.exists(os.path.join(node.sysroot, "usr/bin/nvidia-uninstall"))
    return driver_packages.source(found) or ("runfile" if installed and runfile else None)


def _competitor(node: Node, nvidia_loaded: bool) -> str | None:
    ours = [gpu for gpu in node.gpus if not gpu.passthrough]
    bound = [_COMPETITORS[gpu.driver] for gpu in ours if gpu.driver in _COMPETITORS]
    if bound:
        return bound[0]
    # A competitor that is loaded but drives no GPU (too new for it) still keeps NVIDIA's module out.
    for name in ("nouveau", "nova_core") if ours and not nvidia_loaded else ():
        if os.path.isdir(os.path.join(node.sysroot, "sys/module", name)):
            return name
    return None


def _loads_under_secure_boot(node: Node, installed: Found, running: Found, signed: bool | None) -> bool | None:
    """Whether the kernel would take the installed module; a signature by a key it may not know leaves that open."""
    secure_boot = node.kernel["secure_boot"]
    if node.virtualization in ("wsl", "container") or secure_boot is None:
        return None
    if not secure_boot and not node.kernel["module_signatures_enforced"]:
        return True
    if installed.version is not None and installed.version == running.version:
        return True
    return False if signed is False else None


def _dkms(dkms: dict[str, Any], found: list[Package]) -> dict[str, Any]:
    # A package that leaves the building to DKMS, of which DKMS knows nothing: its installation was cut off.
    missing = dkms["state"] is None and any("dkms" in package.name for package in found)
    return {"version": dkms["version"], "state": "missing" if missing else dkms["state"]}


def facts(node: Node, system: dict[str, Any]) -> dict[str, Any]:
    """The ``driver`` part of the facts; ``system`` is what NVML said of itself, empty where it was not asked."""
    release = node.kernel["release"]
    running = loaded(node.sysroot)
    found = driver_packages.kernel_side(node.packages)
    dkms = driver_dkms.state(node.sysroot, release)
    module = driver_module.of_kernel(node.sysroot, release)
    on_disk = _installed(module, dkms, found)
    libraries = driver_libraries.versions(node.sysroot)
    if node.virtualization == "wsl" and system.get("driver_version"):
        # Windows has the driver; NVML is all that shows it here.
        running = on_disk = Found(system["driver_version"], None)
        source: str | None = "windows"
    else:
        source = _source(node, found, on_disk.version is not None)
        if node.virtualization == "container" and on_disk.version is None and running.version and len(libraries) == 1:
            on_disk = Found(libraries[0], running.flavour)  # the host's libraries, mounted into the container
    version = on_disk.version or running.version
    newest_cuda = CUDA_OF_BRANCH.get((running.version or version or "").split(".", maxsplit=1)[0])
    mismatch = source != "windows" and running.version is not None and bool(libraries)
    return {
        "installed_version": on_disk.version,
        "loaded_version": running.version,
        "branch": version.split(".")[0] if version else None,
        "flavour": running.flavour or on_disk.flavour,
        "source": source,
        "cuda_version": system.get("cuda_version") or newest_cuda,
        "mismatch": mismatch and running.version not in libraries,
        "competitor": _competitor(node, running.version is not None),
        "package": driver_packages.facts(found),
        "held": any(package.held for package in found) if found else None,
        "runfile": driver_remains.facts(node.sysroot, libraries, module.version, found[0].name if found else None),
        "library_version": driver_libraries.version_in_use(node.sysroot, libraries),
        "dkms": _dkms(dkms, found),
        "module_signed": module.signed,
        "loads_under_secure_boot": _loads_under_secure_boot(node, on_disk, running, module.signed),
    }


def reboot_needed(driver: dict[str, Any], gpus: int, virtualization: str) -> bool:
    """Whether the driver on disk takes over only with the next boot."""
    if virtualization in ("wsl", "container") or driver["installed_version"] is None:
        return False  # the driver of these is the host's
    if driver["loaded_version"] is not None:
        return bool(driver["installed_version"] != driver["loaded_version"])
    return gpus > 0
