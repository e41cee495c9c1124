# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which distribution a node runs, by its os-release. Private to the collection."""

from __future__ import annotations

import shlex

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
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
    "opensuse-leap": "openSUSE Leap",
    "opensuse-tumbleweed": "openSUSE Tumbleweed",
}
_PROGRAMS = {"apt": "apt-get", "dnf": "dnf", "zypper": "zypper"}
_FAMILIES = (
    ({"rhel", "fedora", "centos", "amzn"}, ("dnf", "apt")),
    ({"suse", "sles", "opensuse"}, ("zypper", "dnf", "apt")),
)
_PROGRAM_DIRS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


def os_release(node: Sysroot) -> dict[str, str]:
    """The fields of os-release; empty where there is none."""
    text = next((text for text in map(node.text, _OS_RELEASE) if text), "")
    fields = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.startswith("#"):
            try:
                fields[key.strip()] = "".join(shlex.split(value))
            except ValueError:
                fields[key.strip()] = value.strip()  # an unbalanced quote
    return fields


def distribution(fields: dict[str, str]) -> tuple[str | None, str | None, str | None]:
    """Name, version and codename out of os-release; a rolling release has no version."""
    name = _NAMES.get(fields.get("ID", "")) or fields.get("NAME") or None
    return name, fields.get("VERSION_ID") or None, fields.get("VERSION_CODENAME") or None


def has_program(node: Sysroot, name: str) -> bool:
    """Whether a program of the system's is installed."""
    return any(node.exists(f"{folder}/{name}") for folder in _PROGRAM_DIRS)


def package_manager(node: Sysroot, fields: dict[str, str]) -> str | None:
    """The one that belongs to the distribution; a tool of another family may stand beside it."""
    family = {fields.get("ID", "").split("-")[0], *fields.get("ID_LIKE", "").split()}
    order = next((order for members, order in _FAMILIES if members & family), ("apt", "dnf", "zypper"))
    return next((name for name in order if has_program(node, _PROGRAMS[name])), None)
