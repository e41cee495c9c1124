# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.plan``: one module execution on the node, every choice on the controller."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache, run_tags
from ansible_collections.gpufleet.stack.plugins.plugin_utils.offline_locks import run_locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.planning import lock_directory, make_plan
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import site_of
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store


class ActionModule(ActionBase):
    """Probe, resolve, lock and compare."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the plan of one node; see plugins/modules/plan.py for the parameters."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            argument_spec={
                "wanted": {"type": "dict", "required": True},
                "lock_directory": {"type": "str", "default": ""},
                "locks": {"type": "str", "choices": ["keep", "update"], "default": "keep"},
                "state_dir": {"type": "path", "default": "/var/lib/gpufleet"},
                "wheelhouse_directory": {"type": "str", "default": "~/.cache/gpufleet/wheelhouse"},
                "wheelhouse_signer": {"type": "str", "default": ""},
                "facts_directory": {"type": "str", "default": ""},
                "only_look": {"type": "bool", "default": False},
            }
        )
        wanted, variables = args["wanted"], task_vars or {}
        probe: dict[str, Any] = self._execute_module(
            module_name="gpufleet.stack.stack_probe",
            module_args={
                "prefix": wanted.get("gpufleet_prefix", "/opt/gpufleet"),
                "gpu_sysroot": wanted.get("gpufleet_gpu_sysroot", "/"),
                "state_dir": args["state_dir"],
            },
            task_vars=task_vars,
        )
        if probe.get("failed") or probe.get("unreachable"):
            return probe
        # Every process of this run has the same one, and Ansible removes it at the end.
        scratch = constants.DEFAULT_LOCAL_TMP
        offline, signer = bool(wanted.get("gpufleet_offline")), args["wheelhouse_signer"]
        store = Store(args["wheelhouse_directory"], scratch, offline, signer)
        locks = lock_directory(args["lock_directory"], variables.get("inventory_dir"))
        try:
            run = run_locks(
                locks, not (self._task.check_mode or args["only_look"]), scratch, store, args["locks"] == "update"
            )
        except GpufleetError as error:
            return {**result, "failed": True, "msg": str(error), "error": error.as_dict()}
        left_out = run_tags.left_out(variables.get("ansible_run_tags"), variables.get("ansible_skip_tags"))
        site = site_of(variables, store)
        plan = make_plan(probe, wanted, run, only_look=args["only_look"], left_out=left_out, site=site)
        if args["facts_directory"]:
            _keep(args["facts_directory"], variables["inventory_hostname"], probe, plan)
        result.update(changed=False, plan=plan)
        return result


def _keep(directory: str, host: str, probe: dict[str, Any], plan: dict[str, Any]) -> None:
    """Also in check mode: the cache is the controller's, and holds only what was seen."""
    try:
        facts_cache.keep(directory, host, probe)
    except OSError as error:
        message = f"the facts are not kept for plans from cached facts: {directory}: {error.strerror}"
        plan["warnings"].append({"code": "GF-FACTS-UNKEPT", "message": message})
