# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node itself: distribution, C library, Pythons, room and rights. Private to the collection."""

from __future__ import annotations

import ctypes
import glob
import os
import platform
import re
import shlex
import shutil
import subprocess
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import kernel, packages
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

_PYTHON = re.compile(r"^python(3\.\d+)$")
_INITRAMFS_TOOLS = ("update-initramfs", "dracut", "mkinitrd")
_TOOL_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def os_release(root: str = "/") -> dict[str, str]:
    """The fields of os-release; empty where there is none."""
    text = read_text(os.path.join(root, "etc/os-release")) or read_text(os.path.join(root, "usr/lib/os-release")) or ""
    fields = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.startswith("#"):
            try:
                fields[key.strip()] = "".join(shlex.split(value))
            except ValueError:
                fields[key.strip()] = value.strip()  # an unbalanced quote
    return fields


# Names as Ansible gives them, so that a reader meets one spelling.
_NAMES = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "rhel": "RedHat",
    "rocky": "Rocky",
    "almalinux": "AlmaLinux",
    "centos": "CentOS",
    "fedora": "Fedora",
    "ol": "OracleLinux",
    "amzn": "Amazon",
    "sles": "SLES",
}


def distribution(fields: dict[str, str]) -> tuple[str | None, str | None, str | None]:
    """Name, version and codename out of os-release; a rolling release has no version."""
    identifier = fields.get("ID", "")
    name = _NAMES.get(identifier) or fields.get("NAME") or None
    return name, fields.get("VERSION_ID") or None, fields.get("VERSION_CODENAME") or None


def package_manager(fields: dict[str, str], path: str = _TOOL_PATH) -> str | None:
    """The one that belongs to the distribution; a tool of another family may stand beside it."""
    family = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
    order = ["dnf", "apt"] if {"rhel", "fedora", "centos", "amzn"} & set(family) else ["apt", "dnf"]
    programs = {"apt": "apt-get", "dnf": "dnf"}
    return next((name for name in order if shutil.which(programs[name], path=path)), None)


def glibc() -> str | None:
    """The version of the running C library; None where it is another library than glibc."""
    try:
        function = ctypes.CDLL(None).gnu_get_libc_version
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_char_p
    version: bytes = function()
    return version.decode()


def _asked(path: str) -> str | None:
    """The full version that an interpreter prints; without site, it starts in 10 ms."""
    try:
        result = subprocess.run(  # pylint: disable=ansible-bad-function
            [path, "-V"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(rb"Python (3\.\d+\.\d+)", result.stdout)
    return match.group(1).decode() if match and result.returncode == 0 else None


def _interpreters() -> list[tuple[str, str]]:
    """Paths of Pythons with who provided them."""
    places = [("/usr/bin/python3.*", "distribution"), ("/usr/local/bin/python3.*", "installed")]
    places.append(("/opt/*/bin/python3.*", "installed"))
    return [(path, provider) for pattern, provider in places for path in sorted(glob.glob(pattern))]


def pythons() -> list[dict[str, str]]:
    """Every CPython 3 to be found; one whose version can't be told is left out."""
    installed = packages.installed_versions([f"python3.{minor}-minimal" for minor in range(8, 20)]) if _apt() else {}
    found = []
    for path, provider in _interpreters():
        match = _PYTHON.match(os.path.basename(path))
        if not match or not os.access(path, os.X_OK):
            continue
        packaged = re.match(r"(?:\d+:)?(3\.\d+\.\d+)", installed.get(f"python{match.group(1)}-minimal", ""))
        if provider == "distribution" and packaged:
            full: str | None = packaged.group(1)  # dpkg knows it, and no process has to be started
        else:
            full = _asked(path)
        if full is not None and full.startswith(match.group(1) + "."):
            found.append({"version": match.group(1), "full_version": full, "path": path, "provider": provider})
    return found


def _apt() -> bool:
    return os.path.exists("/" + packages.DPKG_STATUS)


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


def _initramfs() -> bool:
    tool = any(shutil.which(name, path=_TOOL_PATH) for name in _INITRAMFS_TOOLS)
    return tool and bool(glob.glob("/boot/initr*"))


def collect(prefix: str = "/opt/gpufleet") -> dict[str, Any]:
    """The facts ``node`` of the probe, every key always there."""
    fields = os_release()
    name, version, codename = distribution(fields)
    errors = [] if fields else [{"code": "GF-NO-OS-RELEASE", "message": "/etc/os-release can't be read"}]
    kernel_facts = kernel.facts("/")
    return {
        "distribution": name,
        "version": version,
        "codename": codename,
        "architecture": platform.machine() or None,
        "glibc": glibc(),
        "package_manager": package_manager(fields),
        "packages_interrupted": packages.dpkg_interrupted(),
        "pythons": pythons(),
        "root": os.geteuid() == 0,
        "prefix": prefix_facts(prefix),
        "kernel": {"release": kernel_facts["release"], "headers": kernel_facts["headers"]},
        "initramfs": _initramfs(),
        "boot_id": read_text("/proc/sys/kernel/random/boot_id"),
        "errors": errors,
    }
