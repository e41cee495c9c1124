# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs from the last report, and what nodes lost since a run left them. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_nodes import PARTS, STATES
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import clean, shown

Row = dict[str, Any]
NOTHING = "none"
# Of a node that cannot be planned nothing else is known.
KNOWN_UNPLANNED = ("gpu", "driver")


def same_version(one: str | None, other: str | None) -> bool:
    """Whether two texts say the same: a series stands for every version in it (535 for 535.183.01)."""
    if one is None or other is None or one == other:
        return one == other
    short, long = sorted((one, other), key=len)
    return long.startswith(f"{short}.")


def changes(row: Row, former: Row | None) -> list[Row]:
    """What of a node is another than in its last row."""
    if former is None or row["state"] == "lost":
        return []
    found = [
        {"part": label, "from": clean(former.get(part) or NOTHING), "to": clean(row[part] or NOTHING)}
        for part, label in PARTS.items()
        if (row["state"] != "refused" or part in KNOWN_UNPLANNED) and not same_version(former.get(part), row[part])
    ]
    was, now = str(former.get("state")), row["state"]
    if was != now and was in STATES:
        found.append({"part": "verdict", "from": STATES[was], "to": STATES[now]})
    return found


def drift(nodes: dict[str, Row], former: Row | None) -> Row:
    """Nodes with the same change together, those that most nodes have in common last."""
    since = clean(former["at"]) if former else None
    changed = _folded(nodes, "changes", ("part", "from", "to"))
    altered = _folded(nodes, "drift", ("part", "what"))
    for group in altered:
        same = [each for host in group["nodes"] for each in nodes[host]["drift"] if _same(each, group)]
        group["mended"] = all(each["mended"] for each in same)
    there = set((former or {}).get("nodes", ()))
    new = sorted(set(nodes) - there, key=natural) if former else []
    gone = sorted(there - set(nodes), key=natural)
    return {
        "since": since,
        "nodes": len({host for group in (*changed, *altered) for host in group["nodes"]}),
        "changed": changed,
        "altered": altered,
        "new": {"nodes": new, "names": names_of(new)},
        "gone": {"nodes": gone, "names": names_of(gone)},
    }


def _same(each: Row, group: Row) -> bool:
    return bool(each["part"] == group["part"] and each["what"] == group["what"])


def names_of(hosts: list[str]) -> str:
    """Many names on few columns, cleaned."""
    return fold(map(shown, hosts))


def _folded(nodes: dict[str, Row], key: str, fields: tuple[str, ...]) -> list[Row]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for host in sorted(nodes, key=natural):
        if not nodes[host]["carried"]:
            for each in nodes[host][key]:
                groups.setdefault(tuple(each[field] for field in fields), []).append(host)
    rows = [{**dict(zip(fields, values)), "nodes": hosts, "names": names_of(hosts)} for values, hosts in groups.items()]
    return sorted(rows, key=lambda row: (len(row["nodes"]), natural(row["nodes"][0])))
