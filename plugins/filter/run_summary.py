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
options:
  _input:
    description:
      - For each node its C(plan) and its C(verdict) (see docs/contracts.md); null for what the run did not get to.
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
    msg: "{{ __nodes | gpufleet.stack.run_summary(check_mode=ansible_check_mode) }}"
  vars:
    __nodes:
      node1:
        plan: "{{ hostvars['node1'].gpufleet_plan | default(none) }}"
        verdict: "{{ hostvars['node1'].gpufleet_verdict | default(none) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import report


def run_summary(nodes: Any, check_mode: Any = False) -> list[str]:
    """Check the arguments and write the lines."""
    if not isinstance(nodes, dict):
        raise AnsibleFilterError(f"gpufleet.stack.run_summary: this is no dictionary of nodes: {nodes!r:.200}")
    if not isinstance(check_mode, bool):
        raise AnsibleFilterError(
            f"gpufleet.stack.run_summary: check_mode must be true or false, not {check_mode!r:.200}"
        )
    for host, node in nodes.items():
        if not isinstance(node, dict) or any(
            node.get(key) is not None and not isinstance(node[key], dict) for key in ("plan", "verdict")
        ):
            raise AnsibleFilterError(f"gpufleet.stack.run_summary: {host} has no plan and verdict: {node!r:.200}")
    return report.run_summary(nodes, check_mode)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"run_summary": run_summary}
