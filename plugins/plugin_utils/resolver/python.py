# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python, and what provides it. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import managed, node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.selection import Environment
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key

EMPTY: Row = {
    "version": None,
    "provider": None,
    "packages": [],
    "interpreter": None,
    "interpreters": [],
    "managed": [],
    "uv": None,
}
WHOSE = {
    "distribution": "the distribution's own",
    "installed": "found at {path}",
    "managed": "uv's build {full_version}, which comes into {path}",
}


def candidates(decision: Decision) -> list[Row]:
    """The Pythons that the node has or can have, best first: the distribution's default, its others, then installed ones,
    then uv's managed builds.

    Only those of the provider that is wished for; which version an environment allows is its own affair.
    """
    row = node.distribution(decision)
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
    return [
        python for python in [*ours, *newest, *managed.candidates(decision)] if _allowed(decision, python["provider"])
    ]


def _allowed(decision: Decision, provider: str) -> bool:
    wish = decision.wanted["python_provider"]
    # What conda would bring is chosen as uv's builds are, and then refused (offered.py): nobody has built it yet.
    return wish == "auto" or provider == {"conda": "managed"}.get(wish, wish)


def plan(decision: Decision, chosen: list[Environment]) -> Row:
    """The stage: what makes the interpreters of the environments ready; the first environment's stands for the node."""
    if not chosen:
        return nothing("no environment can be built", **EMPTY)
    first = chosen[0].python
    pythons = list({each.python["path"]: each.python for each in chosen}.values())
    why = []
    for python in pythons:
        whose = WHOSE[python["provider"]].format(**python)
        torches = [each.release["version"] for each in chosen if each.python["path"] == python["path"]]
        why.append(
            f"Python {python['version']} ({whose}): torch {', '.join(dict.fromkeys(torches))} is published for it"
        )
    return {
        "wanted": True,
        "why": why,
        "version": first["version"],
        "provider": first["provider"],
        "packages": list(dict.fromkeys(name for each in pythons for name in each["packages"])),
        "interpreter": first["path"],
        "interpreters": [{"path": each["path"], "provider": each["provider"]} for each in pythons],
        "managed": [managed.description(each) for each in pythons if each["provider"] == "managed"],
        "uv": None,
    }
