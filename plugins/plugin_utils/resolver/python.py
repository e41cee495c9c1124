# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python, and what provides it. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.selection import Environment
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import in_series, key

EMPTY: Row = {"version": None, "provider": None, "packages": [], "interpreter": None}


def candidates(decision: Decision) -> list[Row]:
    """The Pythons that the node has or can have, best first: the distribution's default, its others, then installed ones.

    Only those that the wish allows.
    """
    row, wish = node.distribution(decision), decision.wanted["python_version"]
    ours = [
        {
            "version": python["version"],
            "path": f"/usr/bin/python{python['version']}",
            "provider": "distribution",
            "packages": python["packages"],
        }
        for python in (row["pythons"] if row else [])
    ]
    paths = {python["path"] for python in ours}
    found = [
        {"version": python["version"], "path": python["path"], "provider": "installed", "packages": []}
        for python in decision.facts["node"]["pythons"]
        if python["path"] not in paths
    ]
    newest = sorted(found, key=lambda python: key(python["version"]), reverse=True)
    return [python for python in ours + newest if wish == "auto" or in_series(python["version"], wish)]


def plan(decision: Decision, chosen: list[Environment]) -> Row:
    """The stage: what makes the interpreters of the environments ready; the first environment's is the one to prove."""
    if not chosen:
        return nothing("no environment can be built", **EMPTY)
    first = chosen[0].python
    why = []
    for python in {each.python["path"]: each.python for each in chosen}.values():
        whose = "the distribution's own" if python["provider"] == "distribution" else f"found at {python['path']}"
        torches = [each.release["version"] for each in chosen if each.python is python]
        why.append(
            f"Python {python['version']} ({whose}): torch {', '.join(dict.fromkeys(torches))} is published for it"
        )
    return {
        "wanted": True,
        "why": why,
        "version": first["version"],
        "provider": first["provider"],
        "packages": list(dict.fromkeys(name for each in chosen for name in each.python["packages"])),
        "interpreter": first["path"],
    }
