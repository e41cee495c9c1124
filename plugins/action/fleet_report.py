# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.fleet_report``: what is known of all nodes of the play as one report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import report_files
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet import Fleet
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_cached import CachedPlanner
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import plain
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge import judge
from ansible_collections.gpufleet.stack.plugins.plugin_utils.offline_locks import run_locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.planning import lock_directory
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_document import make
from ansible_collections.gpufleet.stack.plugins.plugin_utils.rules import plain as plain_data
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import site_of
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

Row = dict[str, Any]
OFF = ("", "none")
COMMON = ("gpufleet_judgement", "gpufleet_fleet_verdict")


class ActionModule(ActionBase):
    """Collect, compare with the last report, write. Nothing is run on any node."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Row | None = None) -> Row:
        """The report of the play; see plugins/modules/fleet_report.py for the parameters."""
        result: Row = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "str", "default": "gpufleet-report"},
                "title": {"type": "str", "default": ""},
                "finished": {"type": "bool", "default": True},
                "required": {"type": "bool", "default": True},
                "facts": {"type": "str", "choices": ["live", "cached"], "default": "live"},
                "facts_directory": {"type": "str", "default": "~/.cache/gpufleet/facts"},
                "lock_directory": {"type": "str", "default": ""},
                "offline": {"type": "bool", "default": False},
                "wheelhouse_directory": {"type": "str", "default": "~/.cache/gpufleet/wheelhouse"},
                "wheelhouse_signer": {"type": "str", "default": ""},
            }
        )
        result.update(changed=False, files=[], lines=[], summary={})
        # A dry run finds nothing out about the nodes that a report could hold.
        if args["directory"] in OFF or self._task.check_mode:
            return result
        directory = os.path.abspath(os.path.expanduser(args["directory"]))
        variables: Row = task_vars or {}
        try:
            document, files = _report(args, variables, directory)
        except GpufleetError as error:
            if args["required"]:
                return {**result, "failed": True, "msg": str(error), "error": error.as_dict()}
            return {**result, "warnings": [f"{error.code}: {error.message}; {error.fix}"]}
        result.update(files=files, summary=document["summary"], lines=_lines(files, document))
        # For AWX and ansible-runner, which keep what set_stats would leave.
        report = {**document["summary"], "at": document["at"], "files": files}
        result["ansible_stats"] = {"data": {"gpufleet_report": report}, "per_host": False, "aggregate": False}
        return result


def _report(args: Row, variables: Row, directory: str) -> tuple[Row, list[str]]:
    """Make the report and write it.

    :raises GpufleetError: GF-REPORT-UNWRITABLE, GF-REPORT-FAILED.
    """
    try:
        document = make(_given(args, variables, report_files.former(directory)))
        return document, report_files.write(directory, document)
    except GpufleetError:
        raise
    except Exception as error:
        # Whatever it is: a run that did its work does not fail for what would have told of it.
        raise GpufleetError(
            "GF-REPORT-FAILED",
            f"the report could not be made: {type(error).__name__}: {plain(error)}",
            "a fault of this collection, or a plan or verdict of another version of it",
            "run playbooks/report.yml, which looks at the nodes anew; if it stays, tell us with this message",
        ) from error


def _given(args: Row, variables: Row, former: Row | None) -> Row:
    if args["facts"] == "cached":
        nodes, common = _from_cache(args, variables), dict.fromkeys(COMMON)
    else:
        nodes, common = _from_run(args, variables)
    inventory = os.path.basename(os.path.normpath(str(variables.get("inventory_dir") or "")))
    judgement, fleet = (common[name] for name in COMMON)
    return {
        "at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": args["title"] or (inventory if inventory not in ("None", "inventory", ".") else ""),
        "nodes": nodes,
        "inventory": variables["groups"]["all"],
        # A run has judged its nodes; from a look they are judged here.
        "judgement": judgement
        or judge({host: {name: node[name] for name in ("plan", "verdict")} for host, node in nodes.items()}),
        "fleet_verdict": fleet,
        "former": former,
    }


def _from_run(args: Row, variables: Row) -> tuple[dict[str, Row], Row]:
    """What this run's roles left in the nodes' variables, and what is the same for all, from the first that has it.

    Each node's variables are put together once: for many nodes that is most of the work.
    """
    standing = set(variables["ansible_play_hosts"])
    nodes: dict[str, Row] = {}
    common: Row = dict.fromkeys(COMMON)
    for host in variables["ansible_play_hosts_all"]:
        own = variables["hostvars"][host]
        plan = _mapping(own.get("gpufleet_plan"))
        # Verify was there: the verdict is of this run, or the one that it found still to hold.
        verified = _mapping(own.get("gpufleet_verdict"))
        nodes[host] = {
            "plan": plan,
            "verdict": verified or _mapping((plan or {}).get("verdict")),
            "reachable": plan is not None or host in standing,
            "error": None,
            "finished": args["finished"] and host in standing,
            "verified": verified is not None,
        }
        common.update({name: _mapping(own.get(name)) for name, value in common.items() if value is None})
    return nodes, common


def _from_cache(args: Row, variables: Row) -> dict[str, Row]:
    """What the last look at each node found; no node is contacted."""
    scratch = constants.DEFAULT_LOCAL_TMP
    store = Store(args["wheelhouse_directory"], scratch, args["offline"], args["wheelhouse_signer"])
    locks = lock_directory(args["lock_directory"], variables.get("inventory_dir"))
    planner = CachedPlanner(
        args["facts_directory"], run_locks(locks, False, scratch, store, False), site_of(variables, store)
    )
    nodes = {}
    for host in variables["ansible_play_hosts_all"]:
        fleet = Fleet("cached")
        plan = planner.add(fleet, host, variables["hostvars"][host])
        refused = (
            [f"{each['code']}: {each['message']}" for each in fleet.document()["conflicts"]] if plan is None else []
        )
        nodes[host] = {
            "plan": plan,
            "verdict": _mapping((plan or {}).get("verdict")),
            "reachable": True,
            "error": "; ".join(refused) or None,
            "finished": False,
        }
    return nodes


def _mapping(value: Any) -> Row | None:
    return plain_data(value) if isinstance(value, Mapping) else None


def _lines(files: list[str], document: Row) -> list[str]:
    """What a person reads at the end of the run: where the report is, and whether to look at it."""
    summary = document["summary"]
    parts = [f"{summary['drifted']} changed or drifted"] if summary["drifted"] else []
    parts += [f"{summary['outliers']} off their equals"] if summary["outliers"] else []
    return [f"report: {plain(files[0])}" + (f" ({', '.join(parts)})" if parts else "")]
