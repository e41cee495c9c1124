# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ubuntu's kernels by the names of their packages, and the NVIDIA modules that come built for them. Private to the collection.

A release such as 6.8.0-45-generic does not say which package follows it: on 22.04 that kernel comes from
linux-image-generic-hwe-22.04, on 24.04 from linux-image-generic.
"""

from __future__ import annotations

import re

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least

_RELEASE = re.compile(r"^(?P<series>\d+\.\d+)\.\d+-\d+-(?P<flavour>[a-z][a-z0-9-]*)$")
# The package that brings DKMS's source, and the same without it.
_HEADLESS = re.compile(r"^nvidia-headless-(?=\d)")


def _row(decision: Decision) -> Row | None:
    distribution = node.distribution(decision) or {}
    here = (distribution.get("name"), distribution.get("version"))
    rows = decision.catalog["driver"]["precompiled"]
    return next((row for row in rows if (row["distribution"], row["version"]) == here), None)


def _release(decision: Decision) -> re.Match[str] | None:
    return _RELEASE.match(decision.facts["gpu"]["kernel"]["release"] or "")


def ending(decision: Decision) -> str:
    """The end of the names of the packages that follow the node's kernel: generic, generic-hwe-22.04, aws, ..."""
    row, release = _row(decision), _release(decision)
    if release is None:
        return "generic"  # a container's host has a kernel of another make
    flavour, series = release["flavour"], release["series"]
    newer = row is not None and series != row["kernel"] and at_least(series, row["kernel"])
    return f"generic-hwe-{row['version']}" if row and newer and flavour == "generic" else flavour


def lacks_precompiled(decision: Decision, option: Option) -> str | None:
    """Why the driver's modules can't be had precompiled on this node, or None where they can."""
    row, release = _row(decision), _release(decision)
    if row is None or option.source != "distro":
        return "only Ubuntu's archive has modules that are built already"
    if decision.architecture not in row["architectures"]:
        return f"none are known for {decision.architecture}"
    if release is None:
        return f"{decision.facts['gpu']['kernel']['release'] or 'the running kernel'} is no kernel of Ubuntu's"
    if release["flavour"] not in row["flavours"]:
        return f"Ubuntu builds none for kernels of the flavour {release['flavour']}"
    return None


def modules(decision: Decision, option: Option) -> tuple[str, str]:
    """How the node gets its modules (``dkms`` or ``precompiled``), and why."""
    wish, lacking = decision.wanted["nvidia_driver_modules"], lacks_precompiled(decision, option)
    if wish != "auto":
        return wish, "asked for"
    if lacking:
        return "dkms", lacking
    if (decision.facts["gpu"]["driver"]["dkms"] or {}).get("version"):
        return "dkms", "as those that are there"
    return "precompiled", "Ubuntu built and signed them for its own kernel, and they follow its updates"


def _name(option: Option) -> str:
    return f"{option.branch['branch']}-server{'-open' if option.flavour == 'open' else ''}"


def with_modules(decision: Decision, option: Option, names: list[str]) -> list[str]:
    """The packages of a driver with its modules precompiled, out of those with DKMS's source."""
    without = [_HEADLESS.sub("nvidia-headless-no-dkms-", each) for each in names]
    return [f"linux-modules-nvidia-{_name(option)}-{ending(decision)}", *without]


def other_way(decision: Decision, option: Option, way: str) -> list[str]:
    """Packages of the same driver that bring its modules the other way; both would stand in each other's."""
    if _row(decision) is None or option.source != "distro":
        return []
    name = _name(option)
    if way == "precompiled":
        return [f"nvidia-headless-{name}", f"nvidia-dkms-{name}"]
    release = decision.facts["gpu"]["kernel"]["release"]
    return [f"linux-modules-nvidia-{name}-{end}" for end in (ending(decision), release) if end]
