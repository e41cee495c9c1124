# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: run_summary
short_description: The end of a run in a few lines
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - Tells what was reached on every node, folding nodes with the same outcome, and which nodes need a reboot.
  - Nodes with something wrong come first, and each of them is named.
positional: variables
options:
  _input:
    description: Names of the nodes of the run.
    type: list
    elements: str
    required: true
  variables:
    description:
      - The variables of every node, C(hostvars). Read are C(gpufleet_plan) and C(gpufleet_verdict), which the roles set
        (see docs/contracts.md); a node that lacks one did not get that far. C(gpufleet_judgement) is the same for all nodes.
    type: dict
    required: true
  check_mode:
    description: Whether the run was a dry run.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Sum up
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts_all | gpufleet.stack.run_summary(hostvars, check_mode=ansible_check_mode) | join('\n') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import run_summary as summary

NAME = "gpufleet.stack.run_summary"


def run_summary(hosts: Any, variables: Any, check_mode: Any = False) -> list[str]:
    """Check the arguments, pick plan and verdict of every node and write the lines."""
    if not isinstance(hosts, (list, tuple)):
        raise AnsibleFilterError(f"{NAME}: this is no list of nodes: {hosts!r:.200}")
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError(f"{NAME}: these are no variables of nodes: {variables!r:.200}")
    if not isinstance(check_mode, bool):
        raise AnsibleFilterError(f"{NAME}: check_mode must be true or false, not {check_mode!r:.200}")
    nodes = {host: _node(host, variables[host]) for host in hosts}
    judgements = [node.pop("judgement") for node in nodes.values()]
    return summary.run_summary(nodes, check_mode, next(filter(None, judgements), None))


def _node(host: str, variables: Any) -> dict[str, Any]:
    node = {name: variables.get(f"gpufleet_{name}") for name in ("plan", "verdict", "judgement")}
    for key, value in node.items():
        if value is not None and not isinstance(value, Mapping):
            raise AnsibleFilterError(f"{NAME}: gpufleet_{key} of {host} is none: {value!r:.200}")
    return node


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"run_summary": run_summary}
