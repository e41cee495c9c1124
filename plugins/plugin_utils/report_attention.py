# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody has to do, most urgent first, each once with all its nodes. Private to the collection."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge_text import remedy
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_drift import names_of
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_nodes import STATES
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import clean, shown

Row = dict[str, Any]

ORDER = {"error": 0, "warning": 1, "info": 2}
SEVERITIES = {"failed": "error", "refused": "error", "lost": "error"}
# A command names at most this many nodes; a run for all costs the others one look.
NAMES_IN_COMMAND = 40
# Names that mean themselves in a shell and in Ansible's patterns.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DETAILS_SHOWN = 4

SLOW_CAUSE = "something holds it down that its equals do not have"
LINK_CAUSE = "a bad cable, port or network setting between these nodes, or other traffic"
LINK_MEND = "look at the interface's errors and speed on each end: ip -s link; ethtool, or ibstat"


def attention(nodes: dict[str, Row], judgement: Row, fleet: Row | None) -> list[Row]:
    """Everything that needs somebody."""
    found = _of_nodes(nodes) + _rules(nodes, judgement) + _outliers(judgement) + _suspects(fleet)
    return sorted(found, key=lambda item: (ORDER[item["severity"]], item["rank"], natural((item["nodes"] or [""])[0])))


def _item(severity: str, rank: int, title: str, hosts: list[str], problem: Row, command: str | None = None) -> Row:
    return {
        "severity": severity,
        "rank": rank,
        "title": title,
        "code": problem["code"],
        "what": problem["what"],
        "details": problem["details"],
        "causes": problem["causes"],
        "command": command,
        "nodes": hosts,
        "names": names_of(hosts),
    }


def _of_nodes(nodes: dict[str, Row]) -> list[Row]:
    groups: dict[str, Row] = {}
    for host in sorted(nodes, key=natural):
        row = nodes[host]
        for problem in row["problems"]:
            alike = json.dumps([row["state"], {**problem, "details": []}], sort_keys=True)
            group = groups.setdefault(alike, {"state": row["state"], "problem": problem, "nodes": [], "details": []})
            group["nodes"].append(host)
            group["details"] += [detail for detail in problem["details"] if detail not in group["details"]]
    return [_group(group) for group in groups.values()]


def _group(group: Row) -> Row:
    state, hosts, details = group["state"], group["nodes"], group["details"]
    command = None if state in ("refused", "lost") else command_for(hosts)
    rank = list(STATES).index(state)
    problem = {**group["problem"], "details": _few(details)}
    return _item(SEVERITIES.get(state, "warning"), rank, STATES[state], hosts, problem, command)


def _few(details: list[str]) -> list[str]:
    """No more than a person reads at once; the nodes' own rows have all."""
    if len(details) <= DETAILS_SHOWN:
        return details
    return [*details[: DETAILS_SHOWN - 1], f"and {len(details) - DETAILS_SHOWN + 1} more"]


def command_for(hosts: list[str]) -> str:
    """The run that mends these nodes, as somebody types it."""
    if len(hosts) > NAMES_IN_COMMAND or not all(PLAIN_NAME.fullmatch(host) for host in hosts):
        return "ansible-playbook site.yml"
    return f"ansible-playbook site.yml -l {','.join(hosts)}"


def _rules(nodes: dict[str, Row], judgement: Row) -> list[Row]:
    found = []
    for rule in judgement.get("rules") or []:
        hosts = sorted((host for host in rule.get("hosts_failing") or [] if host in nodes), key=natural)
        if hosts:
            severity = rule["severity"] if rule.get("severity") in ORDER else "warning"
            causes = [
                {"cause": "a rule of this site (verify_rules)", "mend": clean(rule.get("advice") or "see the rule")}
            ]
            what = f"the rule {clean(rule['name'])} does not hold"
            why = [f"{shown(host)}: {clean(rule['why'][host])}" for host in hosts if (rule.get("why") or {}).get(host)]
            problem = {"code": None, "what": what, "details": _few(why), "causes": causes}
            found.append(_item(severity, 20, "rule", hosts, problem))
    return found


def outlier_text(outlier: Row) -> str:
    """GPU 3: gpu_gemm_bf16 512 TFLOP/s, 640 is the median of 1,023 equals (-20 %)."""
    where = "" if outlier.get("device") is None else f"GPU {clean(outlier['device'])}: "
    if outlier.get("environment") not in (None, "default"):
        where = f"{clean(outlier['environment'])}, {where}" if where else f"{clean(outlier['environment'])}: "
    value, median = outlier["value"], outlier.get("median")
    text = f"{where}{metric_label(outlier['metric'])} {number(value)} {clean(outlier.get('unit') or '')}".rstrip()
    if not median:
        return text
    off = f" ({(value - median) / median:+.0%})".replace("%", " %")
    whose = "its own before" if outlier.get("against") == "history" else f"the median of {outlier.get('equals')} equals"
    return f"{text}, {number(median)} is {whose}{off}"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


METRICS = {
    "cpu_matmul": "CPU matrix product",
    "gpu_gemm_float32": "GPU GEMM float32",
    "gpu_gemm_tf32": "GPU GEMM TF32",
    "gpu_gemm_bf16": "GPU GEMM bfloat16",
    "gpu_gemm_fp16": "GPU GEMM float16",
    "gpu_memory_bandwidth": "GPU memory bandwidth",
    "gpu_host_to_device": "host to GPU",
    "gpu_device_to_host": "GPU to host",
    "training_step": "training step",
}


def metric_label(metric: Any) -> str:
    """How a metric is called in words."""
    return METRICS.get(str(metric), clean(metric))


def _outliers(judgement: Row) -> list[Row]:
    groups: dict[str, Row] = {}
    for outlier in judgement.get("outliers") or []:
        group = groups.setdefault(str(outlier["metric"]), {"nodes": [], "details": []})
        host = str(outlier["host"])
        if host not in group["nodes"]:
            group["nodes"].append(host)
        group["details"].append(f"{shown(host)} {outlier_text(outlier)}")
    found = []
    for metric, group in groups.items():
        details = _few(group["details"])
        causes = [{"cause": SLOW_CAUSE, "mend": remedy(metric)}]
        what = f"{metric_label(metric)} is off that of its equals"
        problem = {"code": None, "what": what, "details": details, "causes": causes}
        found.append(_item("warning", 10, "outlier", sorted(group["nodes"], key=natural), problem))
    return found


def _suspects(fleet: Row | None) -> list[Row]:
    """Nodes and links that the check across nodes names."""
    if not fleet:
        return []
    found = []
    for suspect in fleet.get("suspects") or []:
        link = suspect.get("link")
        hosts = [str(host) for host in link] if isinstance(link, (list, tuple)) else [str(suspect.get("host") or link)]
        causes = [{"cause": LINK_CAUSE, "mend": LINK_MEND}]
        problem: Row = {
            "code": None,
            "what": clean(suspect.get("why") or "the check across nodes names it"),
            "details": [],
        }
        title = "fleet check"
        found.append(_item("warning" if fleet.get("ok") else "error", 8, title, hosts, {**problem, "causes": causes}))
    failed = [check for check in fleet.get("checks") or [] if check.get("status") == "failed"]
    if failed and not found:
        details = [f"{clean(check['name'])}: {clean(check.get('message') or 'failed')}" for check in failed]
        causes = [{"cause": LINK_CAUSE, "mend": LINK_MEND}]
        problem = {"code": None, "what": "the check across nodes failed", "details": details, "causes": causes}
        hosts = [str(host) for host in fleet.get("hosts") or []]
        found.append(_item("error", 8, "fleet check", hosts, problem))
    return found
