# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.plan``: one module execution on the node, every choice on the controller."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.plugin_utils.planning import lock_directory, make_plan


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
                "state_dir": {"type": "path", "default": "/var/lib/gpufleet"},
            }
        )
        wanted = args["wanted"]
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
        directory = lock_directory(args["lock_directory"], (task_vars or {}).get("inventory_dir"))
        plan = make_plan(probe, wanted, directory, write_locks=not self._task.check_mode)
        result.update(changed=False, plan=plan)
        return result
