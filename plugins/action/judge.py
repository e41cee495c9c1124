# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.judge``: all nodes of the play compared, and the site's rules asked of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge import judge
from ansible_collections.gpufleet.stack.plugins.plugin_utils.rules import plain

Row = dict[str, Any]


class ActionModule(ActionBase):
    """Read plans and verdicts of the play's nodes. Nothing is run on any node."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Row | None = None) -> Row:
        """The judgement; see plugins/modules/judge.py."""
        result: Row = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        variables: Row = task_vars or {}
        nodes = {host: _node(variables["hostvars"][host]) for host in variables["ansible_play_hosts_all"]}
        result.update(changed=False, judgement=judge(nodes))
        return result


def _node(variables: Mapping[str, Any]) -> Row:
    """Plan and verdict as far as the node got; also of one that failed since."""
    found = {name: variables.get(f"gpufleet_{name}") for name in ("plan", "verdict")}
    return {name: plain(value) if isinstance(value, Mapping) else None for name, value in found.items()}
