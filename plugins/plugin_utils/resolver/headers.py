# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package with the kernel's headers, from which DKMS builds NVIDIA's module. Private to the collection.

Names: NVIDIA's Driver Installation Guide (preparing Debian, Ubuntu and RHEL) and the distributions' own packages.
"""

from __future__ import annotations

import re

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import kernels, node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row

# dpkg has the kernel's release in the package's name, rpm has it without the architecture as the version.
_OF_ONE_KERNEL = {"apt": "linux-headers-{0}", "dnf": "kernel-devel={1}", "dnf-modular": "kernel-devel={1}"}
DEB_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_EL_KERNEL = re.compile(r"\.(?:el\d|amzn)\w*\.\w+$")


def package(decision: Decision, row: Row) -> str:
    """The headers that follow the kernel's updates; where there is no such package, those of the running kernel.

    :param row: the row of the catalog with the driver's packages; one of a distribution's archive names the headers.
    """
    distribution = node.distribution(decision) or {}
    if distribution["name"] == "Ubuntu":
        return f"linux-headers-{kernels.ending(decision)}"
    known = row.get("headers", {}).get(DEB_ARCHITECTURES[decision.architecture])
    if known:
        return str(known)
    release = decision.facts["gpu"]["kernel"]["release"] or ""
    if distribution["family"] != "apt":
        # A kernel of another make (a container's host) has no headers in the distribution: the newest are taken.
        return f"kernel-devel={release.rpartition('.')[0]}" if _EL_KERNEL.search(release) else "kernel-devel"
    return f"linux-headers-{DEB_ARCHITECTURES[decision.architecture]}"


def lacking(decision: Decision) -> list[Row]:
    """The kernels that the node could boot and has no headers of: ``{kernel, package}``.

    A container's running kernel is its host's, and is none of them.
    """
    name = _OF_ONE_KERNEL.get((node.distribution(decision) or {}).get("family", ""))
    if name is None:
        return []
    return [
        {"kernel": each["release"], "package": name.format(each["release"], each["release"].rpartition(".")[0])}
        for each in decision.facts["node"]["kernels"]
        if each["image"] and not each["headers"]
    ]
