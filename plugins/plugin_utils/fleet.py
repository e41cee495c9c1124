# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans of many nodes as one document, nodes with the same decision together. Private to the collection.

Of each plan only the few lines that are shown stay in memory: plans are taken one by one, and may be dropped after.
The document's schema is docs/schemas/plan.schema.json.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import fleet_stages, sizes
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.plan_text import node_line

Row = dict[str, Any]
SCHEMA = 1
# Ways of gpufleet_wheelhouse on which each file crosses the uplink once.
CARRIED = ("copy", "cache", "shared")
GENERATOR = "gpufleet.stack"


class Fleet:
    """Collects the plans of a run."""

    def __init__(self, source: str = "live") -> None:
        self.source = source
        self._groups: dict[str, Row] = {}
        self._conflicts: dict[str, Row] = {}
        self._warnings: dict[str, Row] = {}
        self._read_at: dict[str, str] = {}
        self._missed: list[str] = []
        self._files: dict[str, int] = {}
        self._wheels: Row = {"way": set(), "nodes": 0, "bytes": 0}

    def add(self, host: str, plan: Row, read_at: str | None = None) -> None:
        """One node's plan, as ``gpufleet.stack.plan`` makes it."""
        row = _row(plan)
        for conflict in plan["conflicts"]:
            self._conflict(host, conflict)
        for warning in plan["warnings"]:
            _under(self._warnings, {key: warning[key] for key in ("code", "message")}, host)
        if read_at is not None:
            self._read_at[host] = str(read_at)
        _under(self._groups, row, host)
        self._add_wheels(plan.get("wheelhouse") or {})

    def refuse(self, host: str, error: GpufleetError) -> None:
        """A node that no plan could be made for."""
        conflict = {"code": error.code, "message": error.message, "because": [error.cause], "advice": [error.fix]}
        self._conflict(host, {**conflict, "fixes": []})
        _under(self._groups, {**_empty(), "conflicts": [error.code]}, host)

    def miss(self, host: str) -> None:
        """A node that could not be reached, or that failed before its plan."""
        self._missed.append(host)

    def document(self) -> Row:
        """Everything as plain data, in the order in which it is shown."""
        groups = sorted(self._groups.values(), key=lambda group: min(map(natural, group["nodes"])))
        nodes = {}
        for number, group in enumerate(groups):
            group["nodes"] = sorted(group["nodes"], key=natural)
            row = {key: value for key, value in group.items() if key not in ("nodes", "names")}
            for host in group["nodes"]:
                nodes[host] = {**row, "group": number, "facts_read_at": self._read_at.get(host)}
            group["names"] = fold(group["nodes"])
        return {
            "schema": SCHEMA,
            "generated_by": GENERATOR,
            "facts": self.source,
            "ok": not self._conflicts,
            "nodes": {host: nodes[host] for host in sorted(nodes, key=natural)},
            "groups": groups,
            "conflicts": _told(self._conflicts),
            "warnings": _told(self._warnings),
            "not_reached": sorted(self._missed, key=natural),
            "wheels": {
                **self._wheels,
                "way": " and ".join(sorted(self._wheels["way"])),
                "once_bytes": sum(self._files.values()),
            },
        }

    def _add_wheels(self, house: Row) -> None:
        """What is fetched once for all nodes, by its digest."""
        if house.get("files") and house["way"] in CARRIED:
            self._files.update({each["sha256"]: each["size"] or 0 for each in house["files"]})
            self._wheels["way"].add(house["way"])
            self._wheels["nodes"] += 1
            self._wheels["bytes"] += house["bytes"]

    def _conflict(self, host: str, conflict: Row) -> None:
        # The wishes that mend it are part of what makes two conflicts one; the reasons may differ from node to node.
        wishes = [fix for fix in conflict["fixes"] if isinstance(fix, dict)]
        advice = [fix for fix in conflict["fixes"] if not isinstance(fix, dict)] + list(conflict.get("advice", []))
        told = {"code": conflict["code"], "message": conflict["message"], "fixes": wishes, "advice": advice}
        entry = _under(self._conflicts, told, host)
        because = entry.setdefault("because", [])
        because += [reason for reason in conflict["because"] if reason not in because]


def _under(collected: dict[str, Row], row: Row, host: str) -> Row:
    entry = collected.setdefault(json.dumps(row, sort_keys=True, default=str), {**row, "nodes": []})
    if host not in entry["nodes"][-1:]:
        entry["nodes"].append(host)
    return entry


def _told(collected: dict[str, Row]) -> list[Row]:
    found = sorted(collected.values(), key=lambda entry: (entry["code"], min(map(natural, entry["nodes"]))))
    for entry in found:
        entry["nodes"] = sorted(entry["nodes"], key=natural)
        entry["names"] = fold(entry["nodes"])
    return found


def _empty() -> Row:
    return {"ok": False, "hardware": None, "stages": {}, "size": sizes.total([]), "reboot": None, "warnings": []}


def _row(plan: Row) -> Row:
    """The decision about one node as it is shown: equal rows are one group."""
    row = {
        **_empty(),
        "ok": plan["ok"],
        "hardware": node_line(plan["facts"]),
        "conflicts": sorted({conflict["code"] for conflict in plan["conflicts"]}),
        "warnings": sorted({warning["code"] for warning in plan["warnings"]}),
    }
    if plan["ok"]:
        stages, size = fleet_stages.stage_rows(plan), sizes.total(sizes.parts(plan))
        row.update(stages=stages, size=size, reboot=fleet_stages.reboot(plan))
    return row
