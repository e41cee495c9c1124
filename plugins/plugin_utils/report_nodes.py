# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node's row of the report, from its plan and its verdict. Private to the collection.

Everything in a row is cleaned text, a number or None: no renderer has to think about where a text came from.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import verdict_failures
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_stages import stage_rows
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import LABELS, wish_text
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import clean, known

Row = dict[str, Any]

# In the order in which they need somebody.
STATES = {
    "failed": "failed",
    "refused": "cannot be planned",
    "lost": "not reached",
    "drifted": "drifted",
    "reboot": "reboot needed",
    "unverified": "not verified",
    "verified": "verified",
}
# What the matrix shows of a node, and what is compared with the last report.
PARTS = {
    "gpu": "GPU",
    "driver": "driver",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "python": "Python",
    "torch": "torch",
}
NO_GPU = "no GPU"
EMPTY: Row = {
    "state": "lost",
    "at": None,
    "carried": False,
    **dict.fromkeys(PARTS),
    "system": None,
    "kernel": None,
    "gpus": [],
    "verdict": None,
    "problems": [],
    "checks": [],
    "performance": [],
    "loss": [],
    "drift": [],
    "use": [],
}
KEYS = set(EMPTY)


def node_row(node: Row, at: str) -> Row:
    """The row of a node.

    :param node: plan, verdict, reachable, error, finished (the run's roles came to their end on it) and verified (verify was one
        of them); docs/contracts.md.
    """
    plan, verdict = node.get("plan"), node.get("verdict")
    row: Row = {**EMPTY, "state": _state(node), "at": at}
    if plan is not None:
        row.update(_machine(plan["facts"]))
    current = None
    if plan is not None and plan["ok"]:
        current = verdict if _is_of(verdict, plan) else None
        row.update(_software(plan, current, bool(node.get("finished"))), drift=_drift(plan, bool(node.get("finished"))))
        row["use"] = [clean(f". {each['link']}/bin/activate") for each in plan["stages"]["pytorch"]["environments"]]
    if current is not None:
        row.update(_proof(current))
    row["problems"] = _problems(row["state"], node, current)
    return row


def _state(node: Row) -> str:
    plan, verdict = node.get("plan"), node.get("verdict")
    if plan is None:
        return "lost"
    if not plan["ok"]:
        return "refused"
    if verdict is None or not _is_of(verdict, plan):
        return "unverified"
    failed = verdict_failures.failures(verdict)
    if failed and all(verdict_failures.needs_reboot(failure) for failure in failed):
        return "reboot"
    if not verdict["ok"]:
        return "failed"
    if node.get("finished") and node.get("verified", True):
        return "verified"
    if plan.get("drift") and not node.get("finished"):
        return "drifted"
    # The plan was made before verify ran, where it did.
    left = [role for role, stage in plan["stages"].items() if stage["needed"]]
    return "unverified" if set(left) - ({"verify"} if node.get("verified", True) else set()) else "verified"


def _is_of(verdict: Row | None, plan: Row) -> bool:
    return verdict is not None and verdict["plan_digest"] == plan["stages"]["verify"]["digest"]


def _machine(facts: Row) -> Row:
    """What the node is, whatever is installed on it."""
    gpu, node = facts["gpu"], facts["node"]
    counts = Counter(clean(device["name"] or "NVIDIA GPU") for device in gpu["devices"])
    names = [f"{count} × {name}" if count > 1 else name for name, count in sorted(counts.items())]
    gpus = [
        {
            "index": device.get("index"),
            "name": clean(device["name"] or "NVIDIA GPU"),
            "memory_mib": device.get("memory_mib"),
            "compute_capability": known(device.get("compute_capability")),
        }
        for device in gpu["devices"]
    ]
    kernel = node.get("kernel") or gpu.get("kernel") or {}
    system = f"{node['distribution']} {node['version']}, {node['architecture']}"
    return {
        "gpu": ", ".join(names) or NO_GPU,
        "gpus": gpus,
        "driver": known(gpu["driver"]["loaded_version"] or gpu["driver"]["installed_version"]),
        "system": clean(system),
        "kernel": known(kernel.get("release")),
    }


def _software(plan: Row, verdict: Row | None, finished: bool) -> Row:
    """What is on the node: measured where a verdict says so, planned where the run put it there, else as it was found."""
    stages, measured = stage_rows(plan), _measured(verdict)

    def there(role: str, wanted: Any) -> str | None:
        stage = stages[role]
        return known(wanted if finished and stage["action"] == "change" and wanted else stage["now"])

    driver = plan["facts"]["gpu"]["driver"]
    loaded = driver["loaded_version"] or driver["installed_version"]
    replaced = finished and stages["nvidia_driver"]["action"] == "change"
    environments = plan["stages"]["pytorch"]["environments"]
    torch = [
        f"{'' if each['name'] == 'default' else each['name'] + ' '}{found}"
        for each in environments
        if (found := measured.get((each["name"], "torch_version")) or (finished and each["torch_version"]))
    ]
    first = environments[0]["name"] if environments else ""
    # What a verdict says is newer than the facts, and exact where a plan says a series.
    seen = verdict or {}
    python = next((each.get("python") for each in seen.get("environments", []) if each["name"] == first), None)
    own = measured.get((first, "torch_cudnn_version"))
    cudnn = there("cudnn", stages["cudnn"]["wanted"])
    return {
        "driver": known(seen.get("driver") or (plan["stages"]["nvidia_driver"].get("version") if replaced else loaded)),
        "cuda": there("cuda_toolkit", stages["cuda_toolkit"]["wanted"]),
        "cudnn": cudnn or (clean(f"{own} (torch's)") if own else None),
        "python": known(python) or there("python", plan["stages"]["python"].get("version")),
        "torch": known(", ".join(torch)) or there("pytorch", None),
    }


def _measured(verdict: Row | None) -> dict[tuple[str, str], str]:
    return {
        (environment["name"], check["name"]): check["measured"]
        for environment in (verdict or {}).get("environments", [])
        for check in environment["checks"]
        if isinstance(check["measured"], str) and check["status"] != "skipped"
    }


def _proof(verdict: Row) -> Row:
    checks = [
        {
            "environment": clean(environment["name"]),
            "name": clean(check["name"]),
            "status": check["status"],
            "seconds": check["seconds"],
            "message": known(check["message"]),
        }
        for environment in verdict["environments"]
        for check in environment["checks"]
    ]
    counts = Counter(check["status"] for check in checks)
    return {
        "verdict": {
            "ok": bool(verdict["ok"]),
            "at": known(verdict.get("at")),
            "level": known(verdict.get("level")),
            "seconds": verdict.get("seconds"),
            **{status: counts[status] for status in ("passed", "failed", "skipped")},
        },
        "checks": checks,
        "performance": [
            {
                "environment": known(each.get("environment")),
                "metric": clean(each["metric"]),
                "unit": clean(each["unit"]),
                "better": "lower" if each.get("better") == "lower" else "higher",
                "device": each.get("device"),
                "value": each["value"],
            }
            for each in verdict.get("performance") or []
        ],
        "loss": _loss(verdict),
    }


def _loss(verdict: Row) -> list[list[float]]:
    """The training of the first environment that has one."""
    for environment in verdict["environments"]:
        for check in environment["checks"]:
            measured = check["measured"]
            if check["name"] == "mlp_training" and isinstance(measured, dict):
                if measured.get("loss_curve"):
                    return [[step, loss] for step, loss in measured["loss_curve"]]
                if "loss_start" in measured:
                    return [[0, measured["loss_start"]], [measured["steps"], measured["loss_end"]]]
    return []


def _drift(plan: Row, finished: bool) -> list[Row]:
    """What is not as its receipt says; a run whose roles came to their end has put it right where the role was in it."""
    return [
        {
            "part": LABELS.get(role, clean(role)),
            "what": clean(what),
            "mended": finished and bool(plan["stages"].get(role, {}).get("needed")),
        }
        for role, found in (plan.get("drift") or {}).items()
        for what in found
    ]


def _problem(code: str | None, what: str, details: list[str], causes: list[tuple[str, str]]) -> Row:
    return {
        "code": known(code),
        "what": clean(what),
        "details": [clean(detail) for detail in details],
        "causes": [{"cause": clean(cause), "mend": clean(mend)} for cause, mend in causes],
    }


def _problems(state: str, node: Row, verdict: Row | None) -> list[Row]:
    """What is wrong with the node, why that usually is, and what mends it."""
    plan, error = node.get("plan"), node.get("error")
    if state == "lost":
        why = [str(error)] if error else []
        cause = (
            "it is down, SSH or sudo failed, or it has no Python" if not node.get("reachable") else "its look failed"
        )
        mend = "see its error in the output of the run, then: ansible -m ansible.builtin.ping with its name"
        return [_problem("GF-REPORT-LOST", "nothing is known of it from this run", why, [(cause, mend)])]
    if state == "refused" and plan is not None:
        return [_conflict(conflict) for conflict in plan["conflicts"]]
    failed = verdict_failures.failures(verdict) if verdict else []
    if state == "reboot":
        cause = "the driver was installed, but the running kernel has not loaded it"
        what = "it must be rebooted before its GPUs can be verified"
        return [_problem(verdict_failures.REBOOT_NEEDED, what, [], [(cause, "reboot it, then run the playbook again")])]
    if failed:
        details = [
            f"{each.environment}/{each.check['name']}: {verdict_failures.failure_text(each.check)}" for each in failed
        ]
        names = ", ".join(dict.fromkeys(each.check["name"].partition(":")[0] for each in failed))
        return [_problem("GF-VERIFY-FAILED", f"{names} did not pass", details, verdict_failures.remedies(failed))]
    if state == "drifted" and plan is not None:
        details = [f"{each['part']}: {each['what']}" for each in _drift(plan, finished=False)]
        cause = "somebody or something other than this collection changed it"
        return [_problem("GF-REPORT-DRIFT", "it is no longer as it was left", details, [(cause, "run the playbook")])]
    if state == "unverified" and plan is not None:
        return [_unverified(plan, node)]
    return []


def _conflict(conflict: Row) -> Row:
    because = [str(each) for each in conflict["because"]]
    mending = [*map(wish_text, conflict["fixes"]), *conflict.get("advice", [])]
    causes = [(because[0] if because else "see docs/errors.md", str(mend)) for mend in mending[:3]]
    return _problem(conflict["code"], conflict["message"], because[1:], causes)


def _unverified(plan: Row, node: Row) -> Row:
    needed = [f"{LABELS[role]}: {stage['because']}" for role, stage in plan["stages"].items() if stage["needed"]]
    details = [str(node["error"])] if node.get("error") else needed
    if node.get("verdict") is None:
        cause = "verify did not run on it: the run left it out (--tags), or stopped before it"
    elif not _is_of(node["verdict"], plan):
        cause = "its last verdict is about another plan"
    else:
        cause = "it changed, or has to, since its last verdict"
    mend = "run the playbook for it; where it stopped, its error is in the output of the run"
    return _problem("GF-REPORT-UNVERIFIED", "it was not verified as it is planned", details, [(cause, mend)])
