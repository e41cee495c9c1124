# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a probe to a plan: resolve, lock, compare with the receipts. Runs on the controller. Private to the collection."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

Row = dict[str, Any]
# What says how a stage stands, as opposed to what it is: a driver that gets loaded is not another wish.
STANDING = ("needed", "because", "why", "digest", "driver_pending")


def make_plan(probe: Row, wanted: Row, lock_directory: str, write_locks: bool) -> Row:
    """The whole plan of one node.

    :param probe: what ``stack_probe`` returned.
    :param wanted: the user's variables.
    :param lock_directory: where locks are kept on the controller.
    :param write_locks: False in check mode: locks are made, but not kept.
    """
    facts = {name: probe[name] for name in ("gpu", "cuda", "node")}
    plan = resolve(facts, wanted, catalog.load())
    if plan["ok"]:
        try:
            with _alone(lock_directory):
                lock_stages(plan["stages"], facts["node"], lock_directory, write_locks)
        except GpufleetError as error:
            _refuse(plan, error)
    if plan["ok"]:
        for role, stage in plan["stages"].items():
            stand(role, stage, probe["receipts"].get(role))
        _verify_after_changes(plan["stages"])
        check_space(plan, facts)
    return {**plan, "facts": facts, "verdict": probe["verdict"]}


def lock_directory(given: str, inventory_dir: str | None) -> str:
    """Where the locks are kept: as given, else beside the inventory, else (``-i host,``) below the current directory."""
    if given:
        return os.path.expanduser(given)
    # Without an inventory file Ansible's inventory_dir is the text "None".
    base = inventory_dir if inventory_dir and os.path.isdir(inventory_dir) else os.getcwd()
    return os.path.join(base, "locks")


def _refuse(plan: Row, error: GpufleetError) -> None:
    plan["ok"] = False
    plan["conflicts"].append(
        {"code": error.code, "message": error.message, "because": [error.cause], "fixes": [error.fix]}
    )


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Many nodes need the same lock at once; the first makes it, the others read it."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, ".making"), "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def lock_stages(stages: Row, node: Row, directory: str, write: bool) -> None:
    """Fill in what only the index knows: each wheel's address, size and SHA-256; from the lock where there is one."""
    platform = {"architecture": node["architecture"], "glibc": node["glibc"]}
    environments = stages["pytorch"].get("environments", [])
    for environment in environments:
        lock = locks.ensure_lock(
            environment["requirements"],
            python=environment["python"],
            lock_directory=directory,
            name=f"{environment['name']}-torch{environment['torch']}-{environment['variant']}",
            index_url=environment["index_url"] or None,
            extra_index_url=environment["torch_index_url"] or None,
            write=write,
            **platform,
        )
        environment["lock"] = {"text": lock.text, "sha256": lock.sha256, "download_bytes": lock.download_bytes}
        environment["path"] = _environment_path(environment)
    for cudnn in stages["cudnn"]["cudnns"]:
        name = cudnn["requirement"].replace("==", "-")
        lock = locks.ensure_lock(
            [cudnn["requirement"]],
            python=stages["python"]["version"],
            lock_directory=directory,
            name=name,
            index_url=cudnn["index_url"] or None,
            write=write,
            **platform,
        )
        wanted_name = cudnn["requirement"].split("==")[0]
        cudnn["wheel"] = next(wheel for wheel in lock.wheels if wheel["name"] == wanted_name)
    if environments:
        stages["pytorch"]["uv"] = locks.uv_tool(
            lock_directory=directory, index_url=environments[0]["index_url"] or None, write=write, **platform
        )


def _environment_path(environment: Row) -> str:
    """The versioned directory: another lock or another interpreter is another directory."""
    made_of = f"{environment['lock']['sha256']} {environment['interpreter']}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    python = environment["python"].replace(".", "")
    directory = os.path.dirname(environment["link"])
    return f"{directory}/{environment['torch']}-{environment['variant']}-py{python}-{digest}"


def stage_digest(stage: Row) -> str:
    """SHA-256 over what the stage is, not how it stands."""
    content = {name: value for name, value in stage.items() if name not in STANDING}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stand(role: str, stage: Row, receipt: Row | None) -> None:
    """Say whether the role has to run, and why, from its receipt."""
    stage["digest"] = stage_digest(stage)
    stage["needed"], stage["because"] = _needed(stage, receipt)


def _needed(stage: Row, receipt: Row | None) -> tuple[bool, str]:
    if not stage["wanted"]:
        return False, stage["why"][0]
    if receipt is None:
        return True, "it was never completed on this node"
    if not receipt["holds"]:
        return True, "; ".join(receipt["drift"])
    if receipt["digest"] != stage["digest"]:
        return True, "the plan for it has changed"
    return False, "its receipt holds"


def _verify_after_changes(stages: Row) -> None:
    """A node that is about to change is verified again, whatever the last verdict says."""
    changing = [role for role, stage in stages.items() if stage["needed"] and role != "verify"]
    if changing and not stages["verify"]["needed"]:
        stages["verify"].update(needed=True, because=f"changed before it: {', '.join(changing)}")


def check_space(plan: Row, facts: Row) -> None:
    """A conflict where the environments to be built do not fit on the disk; known before anything is downloaded."""
    stage = plan["stages"]["pytorch"]
    present = {found["path"] for found in facts["cuda"]["torch"]}
    missing = [each for each in stage["environments"] if stage["needed"] and each["path"] not in present]
    wanted = sum(environment["disk_mib"] for environment in missing)
    prefix = facts["node"]["prefix"]
    if prefix["free_mib"] is None or wanted <= prefix["free_mib"]:
        return
    plan["ok"] = False
    plan["conflicts"].append(
        {
            "code": "GF-DISK-SPACE",
            "message": f"{prefix['path']} has {prefix['free_mib']} MiB free, the plan needs {wanted} MiB",
            "because": [f"environment {each['name']}: {each['disk_mib']} MiB unpacked" for each in missing],
            "fixes": [f"free some space below {prefix['path']}", "set gpufleet_prefix to a larger file system"],
        }
    )
