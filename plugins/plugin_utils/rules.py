# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's acceptance rules: read before the run, asked after it. Private to the collection.

A rule is ``{name, expression, severity, advice}``; its JMESPath expression is asked of one node at a time (docs/verify-rules.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import rule_language
from ansible_collections.gpufleet.stack.plugins.plugin_utils.rule_language import Subject, UnclearError

Row = dict[str, Any]
NAME = "verify_rules"
SHAPE = f"{NAME}: [{{name: …, expression: …, severity: error, advice: …}}]; see docs/verify-rules.md"
SEVERITIES = ("error", "warning", "info")
DEFAULTS = {"severity": "error", "advice": ""}
KEYS = ("name", "expression", "severity", "advice")
FACTS = ("gpu", "cuda", "node")


class Answer(NamedTuple):
    """What a rule says of one node: whether it holds, and why not where that is no plain no."""

    holds: bool
    why: str


def problems(rules: Any, facts: Row) -> list[GpufleetError]:
    """Everything that is wrong with the rules of a node, as far as it is known before the node is verified.

    :param facts: ``{gpu, cuda, node}``: names below them that no node has are wrong.
    """
    if not isinstance(rules, list):
        return [_invalid(f"{NAME} is {rules!r:.60}, not a list")]
    if not rules:
        return []
    if not rule_language.available():
        return [_no_jmespath()]
    subject = Subject(_document("", facts, {}, {}))
    found = [error for rule in rules for error in _problems_of(rule, subject)]
    names = [str(rule.get("name")) for rule in rules if isinstance(rule, Mapping)]
    return found + [_twice(name) for name in sorted({name for name in names if names.count(name) > 1})]


def _problems_of(rule: Any, subject: Subject) -> list[GpufleetError]:
    wrong = _shape(rule)
    if wrong:
        return [_invalid(wrong)]
    found = []
    severity = rule.get("severity", DEFAULTS["severity"])
    if severity not in SEVERITIES:
        found.append(_severity(rule["name"], severity))
    try:
        tree = rule_language.read(rule["expression"])
        subject.ask(tree, guess=True)
    except UnclearError as error:
        found.append(_error(rule, error))
    return found


def _shape(rule: Any) -> str | None:
    if not isinstance(rule, Mapping):
        return f"{NAME} has {rule!r:.80}, which is no rule"
    name = rule.get("name")
    if not isinstance(name, str) or not name.strip():
        return f"{NAME} has a rule without a name: {dict(rule)!r:.100}"
    unknown = sorted(set(map(str, rule)) - set(KEYS))
    if unknown:
        near = difflib.get_close_matches(unknown[0], KEYS, n=1)
        return f"rule {name} has the unknown key {unknown[0]}" + (f"; is {near[0]} meant?" if near else "")
    for key in ("expression", "advice"):
        if not isinstance(rule.get(key, ""), str):
            return f"{key} of rule {name} is {rule[key]!r:.60}, which is no text"
    return None if rule.get("expression", "").strip() else f"rule {name} has no expression"


def normal(rules: Any) -> list[Row]:
    """The rules with every key, as plain data."""
    return [{**DEFAULTS, **{str(key): plain(value) for key, value in rule.items()}} for rule in rules]


def apply(nodes: dict[str, Row]) -> list[Row]:
    """Ask every rule of the nodes that have it: {name, expression, severity, advice, hosts, hosts_failing, why}."""
    asked: dict[tuple[str, ...], Row] = {}
    for host, node in nodes.items():
        rules = (node["plan"].get("judging") or {}).get("rules") or []
        if not rules:
            continue
        subject = _subject(host, node["plan"], node["verdict"])
        for rule in rules:
            row = asked.setdefault(
                tuple(rule[key] for key in KEYS),
                {**{key: rule[key] for key in KEYS}, "hosts": [], "hosts_failing": [], "why": {}},
            )
            row["hosts"].append(host)
            answer = _ask(rule, subject)
            if not answer.holds:
                row["hosts_failing"].append(host)
            if answer.why:
                row["why"][host] = answer.why
    return list(asked.values())


def _ask(rule: Row, subject: Subject) -> Answer:
    """Whether a rule holds on a node. What is not known (null) does not hold."""
    try:
        answer = subject.ask(rule_language.read(rule["expression"]))
    except UnclearError as error:
        return Answer(False, f"{error.code}: {error.message}")
    return Answer(answer is True, "not known" if answer is None else "")


def _subject(host: str, plan: Row, verdict: Row) -> Subject:
    facts = {name: plan["facts"].get(name) for name in FACTS}
    rest = {name: value for name, value in plan.items() if name not in ("facts", "verdict", "judging")}
    return Subject(_document(host, facts, verdict, rest))


def _document(host: str, facts: Row, verdict: Row, plan: Row) -> Row:
    return {
        "host": host,
        **{name: plain(facts.get(name)) for name in FACTS},
        "verdict": plain(verdict),
        "plan": plain(plan),
    }


def plain(value: Any) -> Any:
    """The value without the types that Ansible marks its data with: JMESPath goes by the names of types."""
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _invalid(message: str) -> GpufleetError:
    return GpufleetError("GF-RULE-INVALID", message, f"{NAME} of this node is not what it should be", SHAPE)


def _error(rule: Row, error: UnclearError) -> GpufleetError:
    cause = f"the expression of a rule in {NAME}: {rule['expression']}"
    return GpufleetError(error.code, f"rule {rule['name']}: {error.message}", cause, error.mend)


def _severity(name: str, severity: Any) -> GpufleetError:
    return GpufleetError(
        "GF-RULE-SEVERITY",
        f"rule {name} has the severity {severity!r:.40}",
        f"a rule in {NAME} has a severity that nobody knows",
        f"use one of: {', '.join(SEVERITIES)}",
    )


def _twice(name: str) -> GpufleetError:
    return GpufleetError(
        "GF-RULE-DUPLICATE",
        f"there are two rules {name}",
        f"{NAME} names a rule twice, so that nobody could tell which one failed",
        "give each rule a name of its own",
    )


def _no_jmespath() -> GpufleetError:
    return GpufleetError(
        "GF-RULE-JMESPATH",
        f"{NAME} cannot be read: there is no Python package jmespath on the controller",
        "the package is not installed for the Python that runs Ansible",
        "install it there: python3 -m pip install jmespath, or leave verify_rules empty",
    )
