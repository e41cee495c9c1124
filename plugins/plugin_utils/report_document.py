# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole report as plain data; every format is made from it. Schema: docs/schemas/report.schema.json. Private to the collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_attention import attention, outlier_text
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_drift import changes, drift
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_nodes import KEYS, STATES, node_row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import clean, shown

Row = dict[str, Any]
SCHEMA = 1
GENERATOR = "gpufleet.stack"
# Of the links between nodes the slowest are kept: there are half a million in a fleet of a thousand.
PAIRS_KEPT = 20


def make(given: Row) -> Row:
    """The report.

    :param given: the report's input as docs/contracts.md has it: ``{at, title, nodes, judgement, fleet_verdict, former}``, and
        ``inventory``, the names of all nodes: those of them that this run left out keep the row of the last report.
    """
    former = usable(given.get("former"))
    rows = {host: node_row(node, given["at"]) for host, node in given["nodes"].items()}
    rows.update(_carried(former, rows, given.get("inventory") or ()))
    rows = {host: rows[host] for host in sorted(rows, key=natural)}
    judgement, fleet = given.get("judgement") or {}, given.get("fleet_verdict")
    # The check across nodes is not part of every run: the last one stays, with its date.
    across = _fleet(fleet) or (former or {}).get("fleet")
    before = {host: row for host, row in (former or {}).get("nodes", {}).items() if isinstance(row, dict)}
    for host, row in rows.items():
        row["changes"] = [] if row["carried"] else changes(row, before.get(host))
        row["outliers"] = [
            outlier_text(outlier) for outlier in judgement.get("outliers") or [] if outlier["host"] == host
        ]
    counts = Counter(row["state"] for row in rows.values())
    found = drift(rows, former)
    return {
        "schema": SCHEMA,
        "generated_by": GENERATOR,
        "title": clean(given.get("title") or "Fleet report"),
        "at": given["at"],
        "summary": {
            "nodes": len(rows),
            "looked_at": sum(not row["carried"] for row in rows.values()),
            "states": {state: counts[state] for state in STATES},
            "drifted": found["nodes"],
            "outliers": sum(bool(row["outliers"]) for row in rows.values()),
            "gpus": sum(len(row["gpus"]) for row in rows.values()),
        },
        "attention": attention(rows, judgement, fleet),
        "drift": found,
        "fleet": across,
        "outliers": [_outlier(outlier) for outlier in judgement.get("outliers") or []],
        "rules": [_rule(rule) for rule in judgement.get("rules") or []],
        "nodes": rows,
    }


def usable(former: Any) -> Row | None:
    """The last report, where it is one that this version can read."""
    if not isinstance(former, dict) or former.get("schema") != SCHEMA or not isinstance(former.get("nodes"), dict):
        return None
    return former if isinstance(former.get("at"), str) else None


def _carried(former: Row | None, rows: dict[str, Row], inventory: Collection[str]) -> dict[str, Row]:
    """Rows of nodes that the inventory has and this run left out (--limit): still true as of their time."""
    found = {}
    there = set(inventory)
    for host, row in (former or {}).get("nodes", {}).items():
        if host in there and host not in rows and isinstance(row, dict) and set(row) >= KEYS and row["state"] in STATES:
            found[host] = {**row, "carried": True, "drift": [], "outliers": []}
    return found


def _outlier(outlier: Row) -> Row:
    keys = ("host", "device", "environment", "metric", "unit", "value", "median", "equals", "group", "against")
    return {key: clean(outlier[key]) if isinstance(outlier.get(key), str) else outlier.get(key) for key in keys}


def _rule(rule: Row) -> Row:
    return {
        "name": clean(rule["name"]),
        "severity": clean(rule.get("severity") or "warning"),
        "advice": clean(rule.get("advice") or ""),
        "hosts_failing": sorted(map(str, rule.get("hosts_failing") or []), key=natural),
    }


def _fleet(fleet: Row | None) -> Row | None:
    if not fleet:
        return None
    checks = [
        {"name": clean(check["name"]), "status": clean(check["status"]), "message": clean(check.get("message") or "")}
        for check in fleet.get("checks") or []
    ]
    return {
        "ok": bool(fleet.get("ok")),
        "at": clean(fleet.get("at") or ""),
        "backend": clean(fleet.get("backend") or ""),
        "hosts": len(fleet.get("hosts") or []),
        "world_size": fleet.get("world_size"),
        "seconds": fleet.get("seconds"),
        "checks": checks,
        "all_reduce": [
            {key: each.get(key) for key in ("bytes", "seconds", "gib_s")} for each in fleet.get("all_reduce") or []
        ],
        "pairs": [
            {"hosts": [shown(host) for host in each["hosts"]], "gib_s": each["gib_s"]}
            for each in sorted(fleet.get("pairs") or [], key=lambda pair: float(pair["gib_s"]))[:PAIRS_KEPT]
        ],
    }
