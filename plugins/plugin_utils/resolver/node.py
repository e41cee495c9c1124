# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the node is one that can be provisioned at all. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision

ARCHITECTURES = ("x86_64", "aarch64")


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
    known = decision.catalog["distro"]["pythons"]
    if node["version"] not in known.get(node["distribution"], {}):
        rows = ", ".join(f"{name} {version}" for name, versions in known.items() for version in versions)
        decision.conflict(
            "GF-DISTRIBUTION",
            f"{decision.platform} is not supported",
            [f"the catalog has rows for: {rows}"],
            ["run it on one of these distributions"],
        )
    if node["architecture"] not in ARCHITECTURES:
        decision.conflict(
            "GF-ARCHITECTURE",
            f"{node['architecture']} is not supported",
            [f"torch is published for Linux on {' and '.join(ARCHITECTURES)}"],
            ["run it on one of these architectures"],
        )
    if not node["prefix"]["writable"]:
        decision.conflict(
            "GF-PREFIX-READONLY",
            f"{node['prefix']['path']} cannot be written to",
            ["the file system is read-only or the user lacks rights"],
            ["set gpufleet_prefix to a directory on a writable file system, or remount it read-write"],
        )
