# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of a run as lines that a person reads. Private to the collection.

Pure functions: plans and verdicts in (docs/contracts.md), lines out. The filters are thin shells around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge_text import lines as judge_lines
from ansible_collections.gpufleet.stack.plugins.plugin_utils.verdict_failures import (
    REBOOT_NEEDED,
    counted,
    failure_text,
    failures,
    needs_reboot,
)

Row = dict[str, Any]

# Longer lists of nodes are counted as well.
NAMES_SHOWN = 8
CHECKS_SHOWN = 3


class Outcome(NamedTuple):
    """How a node ended: nodes with the same headline and details are told together."""

    rank: int
    headline: str
    details: tuple[str, ...]


WRONG, REBOOT, UNKNOWN, PLANNED, VERIFIED = range(5)


def run_summary(nodes: dict[str, Row], check_mode: bool = False, judgement: Row | None = None) -> list[str]:
    """The end of a run in a few lines: what is wrong first, then what was reached, then what is still to do."""
    outcomes: dict[Outcome, list[str]] = {}
    stopped = stopped_at_the_plan(nodes)
    for host in sorted(nodes, key=natural):
        outcome = _outcome(nodes[host], check_mode)
        if stopped and outcome.rank == UNKNOWN and nodes[host].get("plan"):
            outcome = Outcome(UNKNOWN, "nothing was changed - the run stopped, since other nodes cannot be planned", ())
        outcomes.setdefault(outcome, []).append(host)
    lines = []
    for found, hosts in sorted(outcomes.items(), key=lambda item: (item[0].rank, item[1])):
        lines.append(f"{_names(hosts)}: {found.headline}")
        lines += [f"  {detail}" for detail in found.details]
        if found.rank == VERIFIED:
            lines += [f"  {line}" for line in _training_lines([nodes[host]["verdict"] for host in hosts])]
            lines += [f"  {line}" for line in _use_lines(nodes[hosts[0]]["plan"])]
    lines += judge_lines(judgement)
    if not check_mode:
        lines += _reboot_lines(nodes)
    return lines


def stopped_at_the_plan(nodes: Mapping[str, Row]) -> bool:
    """Whether no node was touched: one that cannot be planned stops the run for all of them."""
    return any(node.get("plan") and not node["plan"]["ok"] for node in nodes.values())


def _names(hosts: list[str]) -> str:
    return fold(hosts) if len(hosts) <= NAMES_SHOWN else f"{fold(hosts)} ({len(hosts)} nodes)"


def _outcome(node: Row, check_mode: bool) -> Outcome:
    plan, verdict = node.get("plan"), node.get("verdict")
    if plan is None:
        return Outcome(
            UNKNOWN, "nothing is known - the run did not get as far as a plan for it (see its error above)", ()
        )
    if not plan["ok"]:
        details = tuple(f"{conflict['code']}: {conflict['message']}" for conflict in plan["conflicts"])
        return Outcome(WRONG, "nothing was changed - what was asked for can't be had", details)
    if check_mode:
        return _dry_run(plan)
    if verdict is None:
        why = "verify was not part of this run (--tags), or the run stopped before it (see its error above)"
        return Outcome(UNKNOWN, f"not verified - {why}", ())
    if verdict["plan_digest"] != plan["stages"]["verify"]["digest"]:
        return Outcome(UNKNOWN, "not verified - its last verdict is about another plan (see its error above)", ())
    failed = failures(verdict)
    if failed and all(needs_reboot(failure) for failure in failed):
        return Outcome(REBOOT, f"installed, not verified - {_what(plan)}", (_checks_line(verdict),))
    if not verdict["ok"]:
        problems = [
            f"{failure.environment}/{failure.check['name']}: {failure_text(failure.check)}" for failure in failed
        ]
        return Outcome(WRONG, f"NOT verified - {_what(plan)}", (*problems, _checks_line(verdict)))
    return Outcome(VERIFIED, f"verified - {_what(plan)}", (_checks_line(verdict),))


def _dry_run(plan: Row) -> Outcome:
    needed = [role for role, stage in plan["stages"].items() if stage["needed"]]
    if not needed:
        return Outcome(PLANNED, f"dry run - nothing to do; it has {_what(plan)}", ())
    details = tuple(f"{role}: {plan['stages'][role]['because']}" for role in needed)
    return Outcome(PLANNED, f"dry run, nothing was changed - a real run would make it {_what(plan)}", details)


def _what(plan: Row) -> str:
    """PyTorch 2.0.1+cu117, Python 3.11, CPU only (no NVIDIA GPU found)."""
    parts = []
    for environment in _environments(plan):
        name = "" if environment["name"] == "default" else f" ({environment['name']})"
        parts.append(f"PyTorch {environment['torch_version']}{name}, Python {environment['python']}")
    return "; ".join([*parts]) + f", {_hardware(plan)}"


def _environments(plan: Row) -> list[Row]:
    return list(plan["stages"]["pytorch"]["environments"])


def _hardware(plan: Row) -> str:
    gpu = plan["facts"]["gpu"]
    if not gpu["devices"]:
        return "CPU only (no NVIDIA GPU found)"
    counts: dict[str, int] = {}
    for device in gpu["devices"]:
        name = str(device["name"] or "NVIDIA GPU")
        counts[name] = counts.get(name, 0) + 1
    found = ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))
    stage = plan["stages"]["verify"]
    if not stage["gpus"]:
        return f"CPU only ({found} not used: the plan leaves GPUs out)"
    if stage["gpu_checks"] == "skip":
        return f"{found} (not computed on: {stage['gpu_skip_reason']})"
    return found


def _checks(verdict: Row) -> Iterator[Row]:
    for environment in verdict["environments"]:
        yield from environment["checks"]


def _checks_line(verdict: Row) -> str:
    """12 checks passed, 3 skipped (no GPU): cuda_available, gpu_kernel, gpu_training"""
    checks = list(_checks(verdict))
    passed = sum(1 for check in checks if check["status"] == "passed")
    failed = sum(1 for check in checks if check["status"] == "failed")
    line = f"{counted(passed, 'check')} passed" + (f", {failed} failed" if failed else "")
    reasons: dict[str, list[str]] = {}
    for check in checks:
        names = reasons.setdefault(check["message"], []) if check["status"] == "skipped" else []
        if check["name"] not in names:
            names.append(check["name"])
    for reason, names in reasons.items():
        count = sum(1 for check in checks if check["status"] == "skipped" and check["message"] == reason)
        line += f", {count} skipped ({reason}): {_some(names)}"
    return line


def _some(names: list[str]) -> str:
    """The first of the checks; the verdict has them all."""
    more = len(names) - CHECKS_SHOWN
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:CHECKS_SHOWN])} and {more} more"


def _training_lines(verdicts: list[Row]) -> list[str]:
    """The training of the first environment; over several nodes the worst end."""
    results = [
        check["measured"]
        for verdict in verdicts
        for check in _checks(verdict)
        if check["name"] == "mlp_training" and check["status"] == "passed"
    ]
    if not results:
        return []
    worst = max(results, key=lambda result: float(result["loss_end"]))
    tuned = all(
        check["status"] == "passed"
        for verdict in verdicts
        for check in _checks(verdict)
        if check["name"] == "fine_tuning"
    )
    at_most = "at most " if len({result["loss_end"] for result in results}) > 1 else ""
    return [
        f"training: loss {worst['loss_start']:.3g} -> {at_most}{worst['loss_end']:.2g} in {worst['steps']} steps"
        + ("; fine-tuning ok" if tuned else "")
    ]


def _use_lines(plan: Row) -> list[str]:
    return [f"use it: . {environment['link']}/bin/activate" for environment in _environments(plan)]


def _reboot_lines(nodes: dict[str, Row]) -> list[str]:
    """reboot needed on: n[1-2] (driver 535 installed, not loaded)"""
    waiting: dict[str, list[str]] = {}
    for host in sorted(nodes, key=natural):
        plan, verdict = nodes[host].get("plan"), nodes[host].get("verdict")
        if plan is None or not plan["ok"] or not _reboot_needed(plan, verdict):
            continue
        waiting.setdefault(str(plan["stages"]["nvidia_driver"].get("version")), []).append(host)
    return [
        f"reboot needed on: {fold(hosts)} (driver {version} installed, not loaded)"
        for version, hosts in waiting.items()
    ]


def _reboot_needed(plan: Row, verdict: Row | None) -> bool:
    """From the verdict where there is one of this plan: the plan was made before the run."""
    if verdict is not None and any(needs_reboot(failure) for failure in failures(verdict)):
        return True
    driver = plan["stages"]["nvidia_driver"]
    computed = plan["stages"]["verify"]["gpu_checks"] == "run" and verdict is not None and verdict["ok"]
    return bool(driver["wanted"] and not computed and plan["facts"]["gpu"]["driver"]["loaded_version"] is None)


# ---- the same for programs ----------------------------------------------------------------------------------------


def is_verified(node: Row) -> bool:
    """Whether the node has what its plan says, proved."""
    return _outcome(node, check_mode=False).rank == VERIFIED


def waits_for_reboot(node: Row) -> bool:
    """Whether the node's driver comes into use with its next start only."""
    plan = node.get("plan")
    return plan is not None and bool(plan["ok"]) and _reboot_needed(plan, node.get("verdict"))


def verify_codes(node: Row) -> list[str]:
    """The code of a verdict that is none of success, about the plan of this run."""
    plan, verdict = node.get("plan"), node.get("verdict")
    if plan is None or verdict is None or verdict["ok"] or verdict["plan_digest"] != plan["stages"]["verify"]["digest"]:
        return []
    return [REBOOT_NEEDED if all(map(needs_reboot, failures(verdict))) else "GF-VERIFY-FAILED"]
