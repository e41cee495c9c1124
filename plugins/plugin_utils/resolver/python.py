# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python, and what provides it. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key

Row = dict[str, Any]
EMPTY: Row = {"version": None, "provider": None, "packages": [], "interpreter": None}


def candidates(decision: Decision) -> list[Row]:
    """The Pythons that the node has or can have, best first: the distribution's, then installed ones, newest first."""
    node = decision.facts["node"]
    row = decision.catalog["distro"]["pythons"].get(node["distribution"], {}).get(node["version"])
    ours = []
    if row is not None:
        path = f"/usr/bin/python{row['version']}"
        ours = [{"version": row["version"], "path": path, "provider": "distribution", "packages": row["packages"]}]
    found = [
        {"version": python["version"], "path": python["path"], "provider": "installed", "packages": []}
        for python in node["pythons"]
        if not ours or python["path"] != ours[0]["path"]
    ]
    return ours + sorted(found, key=lambda python: key(python["version"]), reverse=True)


def plan(decision: Decision, chosen: list[Row]) -> Row:
    """The stage: what makes the interpreter of the environments ready."""
    if not chosen:
        return nothing("no environment can be built", **EMPTY)
    python = chosen[0]["python"]
    whose = "the distribution's own" if python["provider"] == "distribution" else f"found at {python['path']}"
    return {
        "wanted": True,
        "why": [f"Python {python['version']} ({whose}): torch {chosen[0]['release']['version']} is published for it"],
        "version": python["version"],
        "provider": python["provider"],
        "packages": python["packages"],
        "interpreter": python["path"],
    }
