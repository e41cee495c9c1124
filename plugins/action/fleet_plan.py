# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.fleet_plan``: the plans of all nodes of the play as one table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import write_text
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet import Fleet
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_cached import CachedPlanner
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import fleet_lines, reasons
from ansible_collections.gpufleet.stack.plugins.plugin_utils.offline_locks import run_locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.plan_text import reason_lines
from ansible_collections.gpufleet.stack.plugins.plugin_utils.planning import lock_directory
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import site_of
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

Row = dict[str, Any]


class ActionModule(ActionBase):
    """Collect or make every plan, and write the table. Nothing is run on any node."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Row | None = None) -> Row:
        """The table of the play; see plugins/modules/fleet_plan.py for the parameters."""
        result: Row = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            argument_spec={
                "facts": {"type": "str", "choices": ["live", "cached"], "default": "live"},
                "facts_directory": {"type": "str", "default": "~/.cache/gpufleet/facts"},
                "lock_directory": {"type": "str", "default": ""},
                "locks": {"type": "str", "choices": ["keep", "update"], "default": "keep"},
                "offline": {"type": "bool", "default": False},
                "wheelhouse_directory": {"type": "str", "default": "~/.cache/gpufleet/wheelhouse"},
                "wheelhouse_signer": {"type": "str", "default": ""},
                "json": {"type": "str", "default": ""},
            }
        )
        variables: Row = task_vars or {}
        fleet = Fleet(args["facts"])
        plan = _from_cache(fleet, args, variables) if args["facts"] == "cached" else _from_plans(fleet, variables)
        document = fleet.document()
        if args["json"]:
            _write(os.path.expanduser(args["json"]), document)
        lines = fleet_lines(document)
        if plan is not None and plan["ok"]:
            lines += reasons(reason_lines(plan))
        result.update(changed=False, ok=document["ok"], text="\n".join(lines), conflicts=_headlines(document))
        return result


def _from_cache(fleet: Fleet, args: Row, variables: Row) -> Row | None:
    """Plans every node; returns the plan of the only one, whose reasons are told as well."""
    scratch = constants.DEFAULT_LOCAL_TMP
    store = Store(args["wheelhouse_directory"], scratch, args["offline"], args["wheelhouse_signer"])
    locks = lock_directory(args["lock_directory"], variables.get("inventory_dir"))
    run = run_locks(locks, False, scratch, store, args["locks"] == "update")
    planner = CachedPlanner(args["facts_directory"], run, site_of(variables, store))
    hosts = variables["ansible_play_hosts"]
    for host in hosts:
        plan = planner.add(fleet, host, variables["hostvars"][host])
    return plan if len(hosts) == 1 else None


def _from_plans(fleet: Fleet, variables: Row) -> Row | None:
    """Takes the plans that ``gpufleet.stack.plan`` made in this play."""
    active = variables["ansible_play_batch"]
    found = 0
    for host in active:
        plan = variables["hostvars"][host].get("gpufleet_plan")
        if isinstance(plan, Mapping):
            fleet.add(host, dict(plan))
            found += 1
    for host in set(variables["ansible_play_hosts_all"]) - set(variables["ansible_play_hosts"]):
        fleet.miss(host)
    return dict(plan) if found == 1 and len(active) == 1 else None


def _headlines(document: Row) -> list[str]:
    return [f"{conflict['code']} on {conflict['names']}" for conflict in document["conflicts"]]


def _write(path: str, document: Row) -> None:
    """The document as JSON, whole at any time."""
    try:
        write_text(os.path.abspath(path), json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise AnsibleActionFail(
            f"GF-PLAN-UNWRITABLE: the plan cannot be written to {path}: {error.strerror}\n"
            "  cause: the directory is not writable, or its disk is full\n"
            "  mend:  set gpufleet_plan_json to a file that you can write"
        ) from error
