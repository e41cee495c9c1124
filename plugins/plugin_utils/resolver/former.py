# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A driver that has to go before the wanted one comes, since it is from another source. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option

# Of these the role knows how to take a driver away.
SOURCES = ("distro", "nvidia", "runfile")


def replaced(decision: Decision, option: Option) -> Row | None:
    """The driver that goes first; None where the package manager or nothing at all takes care of it."""
    there = decision.facts["gpu"]["driver"]
    remains = there["runfile"]
    if there["installed_version"] and not _same(there, option):
        return _row(there, there["source"] or ("runfile" if remains else None), there["installed_version"])
    if remains and (option.source != "runfile" or remains["problems"]):
        return _remains(decision, there, remains)
    return None


def _same(there: Row, option: Option) -> bool:
    if there["source"] != option.source:
        return False
    if option.source != "runfile":
        return True
    return there["installed_version"] == option.driver.version and there["flavour"] in (None, option.flavour)


def _remains(decision: Decision, there: Row, remains: Row) -> Row | None:
    """What an installer left that is broken, or that lies over packages: cleared away where no driver is there besides, or where
    that one is ours or was asked for.
    """
    asked = decision.wanted["nvidia_driver_source"] != "auto" or "nvidia_driver" in decision.facts["node"]["managed"]
    if asked or not there["installed_version"]:
        return _row(there, "runfile", remains["version"])
    decision.warn(
        "GF-RUNFILE-BROKEN",
        f"an installer of NVIDIA's left a driver {remains['version'] or ''} behind: {'; '.join(remains['problems'])}. "
        "It is left alone; nvidia_driver_source: distro, nvidia or runfile replaces it",
    )
    return None


def _row(there: Row, source: str | None, version: str | None) -> Row | None:
    if source is None:
        return None  # offered.py refuses it
    package = there["package"] or {}
    return {"source": source, "version": version, "packages": [package["name"]] if package.get("name") else []}
