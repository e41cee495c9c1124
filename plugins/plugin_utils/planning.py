# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a probe to a plan: resolve, lock, compare with the receipts. Runs on the controller. Private to the collection."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import (
    catalog,
    offered,
    requirements,
    rules,
    run_tags,
    sizes,
    wheelhouse_plan,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses, take_out
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import RunLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_wheels import UNKNOWN, lock_stages
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve, verify
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import Site

Row = dict[str, Any]
Resolver = Callable[[Row, Row, Row], Row]
# What says how a stage stands, as opposed to what it is: a driver that gets loaded is not another wish.
# Headers are those that are lacking now: a kernel that comes or goes is no other wish, and the probe finds one without a module.
# Nor is a verdict of a higher level, or a fresher one, that serves another wish.
STANDING = (
    "needed",
    "because",
    "why",
    "digest",
    "driver_pending",
    "reboot",
    "headers",
    "replaces",
    "level",
    "max_age",
    "busy",
    "launcher",
    "devices",
    "toolkit",
)
# Sizes are told, not carried out: a better figure in the catalog is no reason to work on a node.
SIZES = ("download_mib", "disk_mib")


def make_plan(
    probe: Row,
    wanted: Row,
    run: RunLocks,
    only_look: bool = False,
    choose: Resolver = resolve,
    left_out: frozenset[str] = frozenset(),
    site: Site = wheelhouse_plan.ALONE,
    now: float | None = None,
) -> Row:
    """The whole plan of one node.

    :param probe: what ``stack_probe`` returned.
    :param wanted: the user's variables.
    :param run: where the locks of this run are.
    :param only_look: nothing will be carried out: an index that does not answer leaves sizes unknown.
    :param choose: the resolver.
    :param left_out: stages that this run does not carry out.
    :param site: what the controller and other hosts have for all nodes.
    :param now: seconds since 1970; None: it is now.
    """
    facts = {name: probe[name] for name in ("gpu", "cuda", "node")}
    # Of a stage that was removed a receipt may be left, for what could not go.
    managed = sorted(role for role, receipt in probe["receipts"].items() if receipt["digest"] != "removed")
    facts["node"] = {**facts["node"], "managed": managed}
    plan = _chosen(facts, take_out(wanted, run.addresses), choose, run.addresses)
    unknown: list[str] = []
    if plan["ok"]:
        try:
            unknown = lock_stages(plan, facts["node"], run, only_look, left_out)
        except GpufleetError as error:
            _refuse(plan, error)
    if plan["ok"]:
        for role, stage in plan["stages"].items():
            stand(role, stage, probe["receipts"].get(role), known=role not in unknown)
            _warn_of_kernels(plan, stage, probe["receipts"].get(role) or {})
        _see_interpreters(plan["stages"]["python"], facts["node"])
        for role in left_out:
            if plan["stages"][role]["wanted"]:
                plan["stages"][role].update(needed=False, because=run_tags.BECAUSE)
        if "verify" not in left_out:
            _verify_after_changes(plan["stages"])
            busy = facts["gpu"].get("busy") or []
            later = verify.freshen(plan["stages"]["verify"], probe.get("verdict"), busy, now or time.time())
            plan["warnings"] += [later] if later else []
    plan["wheelhouse"] = wheelhouse_plan.make({**plan, "facts": facts}, wanted, probe["receipts"], site)
    if plan["ok"]:
        try:
            wheelhouse_plan.check(plan["wheelhouse"], wanted, site)
        except GpufleetError as error:
            _refuse(plan, error)
        check_space(plan, facts, left_out)
    judging = _judging(plan, wanted, facts)
    # What the node no longer has as its receipts say: the report tells it apart from wishes that changed.
    drift = {role: list(found["drift"]) for role, found in probe["receipts"].items() if found.get("drift")}
    return {**plan, "facts": facts, "verdict": probe.get("verdict"), "judging": judging, "drift": drift}


def _chosen(facts: Row, wanted: Row, choose: Resolver, addresses: Addresses) -> Row:
    overlay = wanted.get("gpufleet_catalog_overlay")
    try:
        rows = catalog.load(os.path.expanduser(overlay)) if isinstance(overlay, str) and overlay else catalog.load()
        wanted = requirements.with_files(wanted)
    except GpufleetError as error:
        plan: Row = {"ok": False, "stages": {}, "conflicts": [], "warnings": []}
        _refuse(plan, error)
        return plan
    addresses.learn(rows["torch"]["pytorch_index"])
    plan = choose(facts, wanted, rows)
    if plan["ok"]:
        offered.check(plan, facts, wanted)
    return plan


def _judging(plan: Row, wanted: Row, facts: Row) -> Row:
    """How the node is judged once it is verified: no part of any stage, so that another rule works on no node again."""
    asked = wanted.get("verify_rules", [])
    wrong = rules.problems(asked, facts)
    for error in wrong:
        _refuse(plan, error)
    changing = any(stage["needed"] for role, stage in plan["stages"].items() if role != "verify" and plan["ok"])
    return {
        "rules": [] if wrong else rules.normal(asked),
        "outliers": wanted.get("verify_outliers", "warn"),
        "look_again": bool(asked) and changing,
    }


def lock_directory(given: str, inventory_dir: str | None) -> str:
    """Where the locks are kept: as given, else beside the inventory, else (``-i host,``) below the current directory."""
    if given:
        return os.path.expanduser(given)
    # Without an inventory file Ansible's inventory_dir is the text "None".
    base = inventory_dir if inventory_dir and os.path.isdir(inventory_dir) else os.getcwd()
    return os.path.join(base, "locks")


def _refuse(plan: Row, error: GpufleetError) -> None:
    _conflict(plan, error.code, error.message, [error.cause], [error.fix])


def _conflict(plan: Row, code: str, message: str, because: list[str], advice: list[str]) -> None:
    plan["ok"] = False
    plan["conflicts"].append({"code": code, "message": message, "because": because, "fixes": [], "advice": advice})


def stage_digest(stage: Row) -> str:
    """SHA-256 over what the stage is, not how it stands."""
    content = {name: _without_sizes(value) for name, value in stage.items() if name not in (*STANDING, *SIZES)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _without_sizes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_sizes(each) for name, each in value.items() if name not in SIZES}
    return [_without_sizes(each) for each in value] if isinstance(value, list) else value


def stand(role: str, stage: Row, receipt: Row | None, known: bool = True) -> None:
    """Say whether the role has to run, and why, from its receipt."""
    stage["digest"] = stage_digest(stage)
    stage["needed"], stage["because"] = _needed(stage, receipt, known)


def _needed(stage: Row, receipt: Row | None, known: bool) -> tuple[bool, str]:
    if not stage["wanted"]:
        return False, stage["why"][0]
    former = stage.get("replaces")
    if former is not None:
        return True, f"driver {former['version'] or 'of an unknown version'} ({former['source']}) has to go first"
    if receipt is None:
        return True, "it was never completed on this node"
    if not receipt["holds"]:
        return True, "; ".join(receipt["drift"])
    if not known:
        return True, UNKNOWN
    if receipt["digest"] != stage["digest"]:
        return True, "the plan for it has changed"
    return False, "its receipt holds"


def _see_interpreters(stage: Row, node: Row) -> None:
    """An interpreter that somebody took away brings the role back: a receipt of packages does not know its program."""
    there = {python["path"] for python in node["pythons"]}
    gone = [
        python["path"]
        for python in stage.get("interpreters", [])
        if python["provider"] != "managed" and python["path"] not in there
    ]
    if gone and stage["wanted"] and not stage["needed"]:
        stage.update(needed=True, because=f"{gone[0]} is not there")


def _warn_of_kernels(plan: Row, stage: Row, receipt: Row) -> None:
    """A kernel that is known to lack the driver is no drift, and is not kept quiet about either."""
    for release in receipt.get("lacking", []) if stage["wanted"] else []:
        message = f"kernel {release} has no NVIDIA module: after a boot into it no GPU is served"
        plan["warnings"].append({"code": "GF-DRIVER-KERNEL", "message": message})


def _verify_after_changes(stages: Row) -> None:
    """A node that is about to change is verified again, whatever the last verdict says."""
    changing = [role for role, stage in stages.items() if stage["needed"] and role != "verify"]
    if changing and not stages["verify"]["needed"]:
        stages["verify"].update(needed=True, because=f"changed before it: {', '.join(changing)}")


def check_space(plan: Row, facts: Row, left_out: frozenset[str] = frozenset()) -> None:
    """A conflict where what has to be built does not fit on the disk; known before anything is downloaded."""
    stages, prefix = plan["stages"], facts["node"]["prefix"]
    missing = {
        "pytorch": [sizes.environment_part(each) for each in sizes.missing_environments(stages["pytorch"], facts)],
        "cuda_toolkit": [
            sizes.toolkit_part(each) for each in sizes.missing_wheel_toolkits(stages["cuda_toolkit"], facts)
        ],
        "cudnn": [sizes.cudnn_part(each) for each in sizes.missing_cudnns(stages["cudnn"], facts)],
    }
    parts = [part for role, found in missing.items() if role not in left_out for part in found]
    parts += wheelhouse_plan.copies(plan.get("wheelhouse"))
    needed = sum(part.disk_mib or 0 for part in parts)
    if prefix["free_mib"] is None or needed <= prefix["free_mib"]:
        return
    _conflict(
        plan,
        "GF-DISK-SPACE",
        f"{prefix['path']} has {prefix['free_mib']} MiB free, the plan needs {needed} MiB",
        [
            f"{part.name}: {'about ' if part.estimated else ''}{part.disk_mib} MiB unpacked"
            for part in parts
            if part.disk_mib
        ],
        [f"free some space below {prefix['path']}", "set gpufleet_prefix to a larger file system"],
    )
