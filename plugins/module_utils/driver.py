# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA driver: which one is installed, which one is loaded, where it came from. Private to the collection.

"Installed" means the kernel's side: libcuda alone, which other packages pull in, drives nothing.
"""

from __future__ import annotations

import glob
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import packages
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import PciDevice, read_text

# The newest CUDA that the drivers of a branch serve, from the driver tables of NVIDIA's CUDA release notes.
CUDA_OF_BRANCH = {
    "470": "11.4", "510": "11.6", "515": "11.7", "520": "11.8", "525": "12.0", "530": "12.1", "535": "12.2",
    "545": "12.3", "550": "12.4", "555": "12.5", "560": "12.6", "570": "12.8", "575": "12.9", "580": "13.0",
    "590": "13.1", "595": "13.2", "610": "13.3",
}  # fmt: skip

_VERSION = re.compile(r"(?<![\d.])(\d{3}\.\d+(?:\.\d+)*)")
_MODULE_FILE = re.compile(
    r"^(\S*/)?nvidia(-current(-open)?|-open|-tesla(-\d+)?|-legacy-\d+xx)?\.ko(\.(gz|xz|zst))?$",
)
_KERNEL_PACKAGE = re.compile(
    r"^(nvidia-.*dkms|k?mod-nvidia|akmod-nvidia|nvidia-kernel-(common|source)-\d|nvidia-open$)"
)
_LIBRARY_DIRS = ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nvidia/current", "usr/lib64", "usr/lib")
_COMPETITORS = {"nouveau": "nouveau", "nova_core": "nova_core", "nova-core": "nova_core", "NovaCore": "nova_core"}


class Found(NamedTuple):
    """A version of the driver and its flavour, ``open`` or ``proprietary``; None is unknown."""

    version: str | None
    flavour: str | None


NOTHING = Found(None, None)


def upstream(text: str) -> str | None:
    """The driver's own version in a package's version or any other text."""
    match = _VERSION.search(text)
    return match.group(1) if match else None


def _flavour_of_license(text: str) -> str | None:
    if not text:
        return None
    return "proprietary" if text == "NVIDIA" else "open"


def loaded(sysroot: str) -> Found:
    """The driver the kernel runs now."""
    text = read_text(os.path.join(sysroot, "proc/driver/nvidia/version")) or ""
    first = text.split("\n", 1)[0]
    if upstream(first):
        return Found(upstream(first), "open" if "Open Kernel Module" in first else "proprietary")
    version = read_text(os.path.join(sysroot, "sys/module/nvidia/version")) or ""
    return Found(upstream(version), None)


def _modinfo(path: str) -> Found:
    """Version and licence of an uncompressed kernel module, out of its ``.modinfo`` strings."""
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            version = re.search(rb"(?<![a-z])version=(\d{3}\.[\d.]+)\0", data)
            licence = re.search(rb"(?<![a-z])license=([^\0]+)\0", data)
            return Found(
                version.group(1).decode() if version else None,
                _flavour_of_license(licence.group(1).decode("utf-8", "replace") if licence else ""),
            )
    except (OSError, ValueError):  # ValueError: an empty file can't be mapped
        return NOTHING


def _from_module_file(sysroot: str, release: str) -> Found:
    base = os.path.join(sysroot, "lib/modules", release)
    for line in (read_text(os.path.join(base, "modules.dep")) or "").splitlines():
        path = line.split(":", 1)[0]
        # A compressed one takes seconds to unpack: DKMS and the packages know the version too.
        if _MODULE_FILE.match(path) and path.endswith(".ko"):
            return _modinfo(os.path.join(base, path))
    return NOTHING


def _from_dkms(sysroot: str, release: str) -> Found:
    for path in sorted(glob.glob(os.path.join(sysroot, "var/lib/dkms/nvidia*", "*", release)), reverse=True):
        module, version = path.split(os.sep)[-3:-1]
        if upstream(version):
            return Found(upstream(version), "open" if "open" in module else None)
    return NOTHING


def _kernel_packages(installed: dict[str, str]) -> dict[str, str]:
    return {name: version for name, version in installed.items() if _KERNEL_PACKAGE.match(name) and upstream(version)}


def _flavour_of_packages(names: Iterable[str]) -> str | None:
    names = list(names)
    if not names:
        return None
    return "open" if any("open" in name for name in names) else "proprietary"


def library_versions(sysroot: str) -> list[str]:
    """Versions of the driver's libraries (libcuda, NVML), which carry it in their file names."""
    found = set()
    for folder in _LIBRARY_DIRS:
        for path in glob.glob(os.path.join(sysroot, folder, "lib*.so.*")):
            match = re.match(r"^lib(?:cuda|nvidia-ml)\.so\.(\d{3}\.[\d.]+)$", os.path.basename(path))
            if match:
                found.add(match.group(1))
    return sorted(found)


def installed(sysroot: str, release: str | None, kernel_packages: dict[str, str]) -> Found:
    """The driver on disk that the running kernel would load, else the one that the packages brought."""
    module = _from_module_file(sysroot, release) if release else NOTHING
    if module.version is None and release:
        module = _from_dkms(sysroot, release)
    package = Found(
        next((upstream(version) for _name, version in sorted(kernel_packages.items())), None),
        _flavour_of_packages(kernel_packages),
    )
    return Found(module.version or package.version, module.flavour or package.flavour)


def _source(sysroot: str, kernel_packages: dict[str, str], found: bool) -> str | None:
    if kernel_packages:
        maintainers = {entry.name: entry.maintainer for entry in packages.dpkg_entries(sysroot)}
        for name in kernel_packages:
            if name in maintainers:
                return "nvidia" if "nvidia.com" in maintainers[name] else "distro"
        # Red Hat's family has no driver of its own; RPM Fusion's akmod is the nearest to one.
        return "distro" if any(name.startswith("akmod") for name in kernel_packages) else "nvidia"
    runfile = os.path.exists(os.path.join(sysroot, "usr/bin/nvidia-uninstall"))
    return "runfile" if found and runfile else None


def _competitor(sysroot: str, gpus: list[PciDevice], nvidia_loaded: bool) -> str | None:
    bound = [_COMPETITORS[gpu.driver] for gpu in gpus if gpu.driver in _COMPETITORS]
    if bound:
        return bound[0]
    # A competitor that is loaded but drives no GPU (too new for it) still keeps NVIDIA's module out.
    for name in ("nouveau", "nova_core") if gpus and not nvidia_loaded else ():
        if os.path.isdir(os.path.join(sysroot, "sys/module", name)):
            return name
    return None


def _candidates(sysroot: str, present: bool) -> Iterator[tuple[str, str]]:
    # rpm has to be started to be asked, so it is asked only where there is something to ask for.
    if present or glob.glob(os.path.join(sysroot, "var/lib/dkms/nvidia*")) or library_versions(sysroot):
        yield from packages.installed_versions(None, sysroot).items()


def facts(
    sysroot: str,
    release: str | None,
    virtualization: str,
    gpus: list[PciDevice],
    system: dict[str, Any],
) -> dict[str, Any]:
    """The ``driver`` part of the facts; ``system`` is what NVML said of itself, empty where it was not asked."""
    running = loaded(sysroot)
    kernel_packages = _kernel_packages(dict(_candidates(sysroot, bool(gpus) or running.version is not None)))
    on_disk = installed(sysroot, release, kernel_packages)
    libraries = library_versions(sysroot)
    if virtualization == "wsl" and system.get("driver_version"):
        # Windows has the driver; NVML is all that shows it here.
        running = on_disk = Found(system["driver_version"], None)
        source: str | None = "windows"
    else:
        source = _source(sysroot, kernel_packages, on_disk.version is not None)
        if virtualization == "container" and on_disk.version is None and running.version and len(libraries) == 1:
            on_disk = Found(libraries[0], running.flavour)  # the host's libraries, mounted into the container
    version = on_disk.version or running.version
    branch = version.split(".")[0] if version else None
    return {
        "installed_version": on_disk.version,
        "loaded_version": running.version,
        "branch": branch,
        "flavour": running.flavour or on_disk.flavour,
        "source": source,
        "cuda_version": system.get("cuda_version")
        or CUDA_OF_BRANCH.get((running.version or version or "").split(".")[0]),
        "mismatch": source != "windows"
        and running.version is not None
        and bool(libraries)
        and running.version not in libraries,
        "competitor": _competitor(sysroot, gpus, running.version is not None),
    }


def reboot_needed(driver: dict[str, Any], gpus: int, virtualization: str) -> bool:
    """Whether the driver on disk takes over only with the next boot."""
    if virtualization in ("wsl", "container") or driver["installed_version"] is None:
        return False  # the driver of these is the host's
    if driver["loaded_version"] is not None:
        return bool(driver["installed_version"] != driver["loaded_version"])
    return gpus > 0
