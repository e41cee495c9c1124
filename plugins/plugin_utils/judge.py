# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judging nodes: against their equals in the same run, against what they were before, and by the site's rules.

Pure functions: what ``judge`` answers is ``gpufleet_judgement`` of docs/contracts.md. Private to the collection.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import judge_text, outliers, rules
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge_figures import Figure, figures, judged

Row = dict[str, Any]
Groups = dict[tuple[str, ...], list[Figure]]
# The middle of fewer earlier values is any one of them.
FEWEST_EARLIER = 3
WARN, FAIL, IGNORE = "warn", "fail", "ignore"


def judge(nodes: dict[str, Row]) -> Row:
    """The judgement about all nodes of a run.

    :param nodes: ``{host: {plan, verdict}}``; one without a verdict of its plan is not judged.
    """
    there = {host: nodes[host] for host in sorted(nodes, key=natural) if judged(nodes[host])}
    groups = _groups(there)
    found = {
        "outliers": [
            row for row in among_equals(groups) + against_history(groups) if wish(there[row["host"]]["plan"]) != IGNORE
        ],
        "too_few": too_few(groups),
        "rules": rules.apply(there),
    }
    return {**found, "failing": _failing(there, found)}


def _groups(nodes: dict[str, Row]) -> Groups:
    """The figures that may be compared with each other; a node whose outliers nobody wants to hear of is an equal all the same."""
    groups: Groups = {}
    for host, node in nodes.items():
        for figure in figures(host, node["plan"], node["verdict"]):
            groups.setdefault((figure.metric, figure.unit, figure.better, figure.group), []).append(figure)
    return groups


def among_equals(groups: Groups) -> list[Row]:
    """Figures that are worse than those of their equals in this run."""
    large = [found for found in groups.values() if len(found) >= outliers.FEWEST]
    tests = sum(map(len, large))
    rows = []
    for found in large:
        values = [figure.value for figure in found]
        for place in outliers.worse(values, found[0].better, tests):
            others = values[:place] + values[place + 1 :]
            rows.append(_outlier(found[place], median(others), len(others), "equals"))
    return rows


def against_history(groups: Groups) -> list[Row]:
    """Figures that are worse than the same node's before.

    How far earlier runs lay from the middle of the others tells how far one may be off; equals tell it together, since one
    node's few runs know too little about that.
    """
    tested = [figure for found in groups.values() for figure in found if len(figure.earlier) >= FEWEST_EARLIER]
    rows = []
    for found in groups.values():
        known = [figure for figure in found if len(figure.earlier) >= FEWEST_EARLIER]
        errors = [error for figure in known for error in _errors(figure.earlier)]
        if len(errors) < outliers.FEWEST:
            continue
        # A node's own middle has used up one of its runs.
        most = outliers.bound(outliers.degrees(len(errors) - len(known)), len(tested))
        for figure in known:
            middle = median(figure.earlier)
            spread = outliers.sigma(errors, outliers.step(figure.earlier, middle))
            if outliers.shortfall(figure.value, middle, figure.better) > most * spread:
                rows.append(_outlier(figure, middle, len(figure.earlier), "history"))
    return rows


def _errors(earlier: tuple[float, ...]) -> list[float]:
    """How far off each run was from what the others would have foretold."""
    return [value - median(earlier[:place] + earlier[place + 1 :]) for place, value in enumerate(earlier)]


def _outlier(figure: Figure, middle: float, equals: int, against: str) -> Row:
    return {
        "host": figure.host,
        "device": figure.device,
        "environment": figure.environment,
        "metric": figure.metric,
        "unit": figure.unit,
        "value": figure.value,
        "median": middle,
        "equals": equals,
        "group": figure.group,
        "against": against,
    }


def too_few(groups: Groups) -> list[Row]:
    """Groups that are too small to judge in, each once, with its nodes."""
    small: dict[str, Row] = {}
    for (*_what, group), found in groups.items():
        if len(found) < outliers.FEWEST:
            row = small.setdefault(group, {"group": group, "hosts": [], "equals": 0})
            row["equals"] = max(row["equals"], len(found))
            row["hosts"] += [figure.host for figure in found if figure.host not in row["hosts"]]
    return list(small.values())


def _failing(nodes: dict[str, Row], found: Row) -> dict[str, list[str]]:
    """What each node fails for: rules of severity error, and outliers where the site wants that."""
    lines: dict[str, list[str]] = {}
    for rule in found["rules"]:
        if rule["severity"] == "error":
            for host in rule["hosts_failing"]:
                lines.setdefault(host, []).extend(judge_text.rule_failure(rule, host))
    for outlier in found["outliers"]:
        host = outlier["host"]
        if wish(nodes[host]["plan"]) == FAIL:
            lines.setdefault(host, []).extend(judge_text.outlier_failure(outlier))
    return lines


def wish(plan: Row) -> str:
    """What the site wants of outliers on this node."""
    return str((plan.get("judging") or {}).get("outliers", WARN))
