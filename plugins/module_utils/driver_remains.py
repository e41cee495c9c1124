# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NVIDIA's installer (runfile) left on a node, and whether that is whole. Private to the collection.

The installer writes down each file and link that it puts on the node; nvidia-uninstall goes by that list.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

LIST = "var/lib/nvidia/log"
UNINSTALLER = "usr/bin/nvidia-uninstall"
DKMS = "var/lib/dkms"
# "1: /usr/bin/nvidia-smi", then a line with its checksum; "0: /usr/lib64/libcuda.so.1", then where the link leads.
_ENTRY = re.compile(r"^(\d+): (/.*)$")
_LINK, _FILE = "0", "1"


class Installed(NamedTuple):
    """The installer's own list: the driver's version, its files, its links with what they lead to."""

    version: str | None
    files: list[str]
    links: dict[str, str]


def read_list(root: str = "/") -> Installed | None:
    """What the installer wrote down; None where there is no such list."""
    text = read_text(os.path.join(root, LIST))
    if text is None:
        return None
    lines = text.splitlines()
    files, links = [], {}
    for number, line in enumerate(lines):
        match = _ENTRY.match(line)
        if match and match[1] == _FILE:
            files.append(match[2])
        elif match and match[1] == _LINK and number + 1 < len(lines):
            links[match[2]] = lines[number + 1].strip()
    return Installed(upstream(lines[0]) if lines else None, files, links)


def dkms_versions(root: str = "/") -> list[str]:
    """Versions of the driver that DKMS has, under the name that installers and NVIDIA's packages give it."""
    try:
        names = sorted(os.listdir(os.path.join(root, DKMS, "nvidia")))
    except OSError:
        return []
    return [name for name in names if re.match(r"\d{3}\.\d", name)]


def orphans(root: str = "/") -> list[str]:
    """Those of them whose source is gone."""
    sources = {name: os.path.join(root, DKMS, "nvidia", name, "source") for name in dkms_versions(root)}
    return [name for name, link in sources.items() if os.path.islink(link) and not _leads_somewhere(root, link)]


def _leads_somewhere(root: str, link: str) -> bool:
    target = os.readlink(link)
    return os.path.exists(os.path.join(root, target.lstrip("/")) if target.startswith("/") else link)


def facts(root: str, libraries: list[str], module: str | None, package: str | None) -> dict[str, Any] | None:
    """``{version, problems[]}`` of a driver that an installer left; None where there is nothing of one.

    :param libraries: versions of the driver's libraries on the node.
    :param module: version of the module on disk, as far as its file tells.
    :param package: the package that brings a kernel module too.
    """
    listed, lost = read_list(root), orphans(root)
    uninstaller = os.path.lexists(os.path.join(root, UNINSTALLER))
    if listed is None and not uninstaller and not lost:
        return None
    version = listed.version if listed else None
    problems = []
    if listed is None and uninstaller:
        problems.append(f"its list of files (/{LIST}) is missing")
    if listed is not None and not uninstaller:
        problems.append("nvidia-uninstall is missing")
    if version is not None:
        problems += _misfits(version, libraries, module)
    problems += [f"DKMS has {each} without its source" for each in lost]
    if package is not None and (listed is not None or uninstaller):
        problems.append(f"the package {package} is there too")
    return {"version": version or (lost[0] if lost else None), "problems": problems}


def _misfits(version: str, libraries: list[str], module: str | None) -> list[str]:
    found = []
    others = [each for each in libraries if each != version]
    if version not in libraries:
        found.append("its libraries are missing")
    if others:
        found.append(f"libraries of {', '.join(others)} are there")
    if module is not None and module != version:
        found.append(f"the kernel module is {module}")
    return found
