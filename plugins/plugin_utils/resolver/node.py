# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the node is one that can be provisioned at all, and its row in the catalog. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, once_per_node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import in_series

LINUX = ("x86_64", "aarch64")
MACOS = {"arm64": "macos_arm64", "x86_64": "macos_x86_64"}


@once_per_node
def distribution(decision: Decision) -> Row | None:
    """The row of the node's distribution; of several that fit, the one with the fullest version."""
    node = decision.facts["node"]
    rows = [
        row
        for row in decision.catalog["distro"]["distributions"]
        if node["distribution"] in (row["name"], *row.get("names", []))
        and in_series(node["version"] or "0", row["version"])
    ]
    return max(rows, key=lambda row: len(row["version"]), default=None)


@once_per_node
def wheel_platform(decision: Decision) -> str | None:
    """The platform of torch's wheels, as the catalog names it; None where there are none."""
    architecture = decision.architecture
    if decision.facts["node"]["distribution"] == "MacOSX":
        return MACOS.get(architecture)
    return architecture if architecture in LINUX else None


def check(decision: Decision) -> None:
    """Rights, distribution and architecture."""
    node = decision.facts["node"]
    if not node["root"]:
        decision.conflict(
            "GF-RIGHTS",
            "no administrator rights on this node",
            ["the connection's user is not root and no privilege escalation is in force"],
            ["run the playbook with --become --ask-become-pass (-b -K), or connect as root"],
        )
    if distribution(decision) is None:
        rows = (f"{row['name']} {row['version']}" for row in decision.catalog["distro"]["distributions"])
        decision.conflict(
            "GF-DISTRIBUTION",
            f"{decision.platform} is not supported",
            [f"the catalog has rows for: {', '.join(rows)}"],
            ["run it on one of these distributions, or describe yours with gpufleet_catalog_overlay (docs/catalog.md)"],
        )
    if wheel_platform(decision) is None:
        decision.conflict(
            "GF-ARCHITECTURE",
            f"{node['architecture']} is not supported",
            [f"torch is published for Linux on {' and '.join(LINUX)}"],
            ["take the node out of the play"],
        )
    # Of a shared prefix one node has to be able to write: the others wait for it.
    if not node["prefix"]["writable"] and decision.wanted["pytorch_scope"] != "shared":
        decision.conflict(
            "GF-PREFIX-READONLY",
            f"{node['prefix']['path']} cannot be written to",
            ["the file system is read-only or the user lacks rights"],
            ["set gpufleet_prefix to a directory on a writable file system, or remount it read-write"],
        )
