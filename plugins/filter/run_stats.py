# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: run_stats
short_description: The end of a run as data, for ansible.builtin.set_stats
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - A small summary that C(ansible-runner) and AWX keep with a run's artifacts.
  - Why a node failed is known as far as a plan or a verdict says it, and for every node where the callback
    P(gpufleet.stack.progress#callback) is enabled; otherwise the node stands under C(unknown).
positional: variables, alive
options:
  _input:
    description: Names of the nodes of the run.
    type: list
    elements: str
    required: true
  variables:
    description: The variables of every node, C(hostvars). Read are C(gpufleet_plan), C(gpufleet_verdict) and
        C(gpufleet_judgement).
    type: dict
    required: true
  alive:
    description: Names of the nodes that have not failed so far, C(ansible_play_hosts).
    type: list
    elements: str
    required: true
  check_mode:
    description: Whether the run is a dry run.
    type: bool
    default: false
  finished:
    description: Whether the run got to its end.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Keep what the run came to for programs
  ansible.builtin.set_stats:
    data:
      gpufleet: "{{ ansible_play_hosts_all | gpufleet.stack.run_stats(hostvars, ansible_play_hosts, check_mode=ansible_check_mode) }}"
    aggregate: false
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - V(ok) where the run got to its end and no node failed, V(finished), the number of V(nodes) and of those that are V(verified).
    - V(failed) has the names of nodes by the code of their failure, V(reboot_needed) names of nodes.
  type: dict
  sample: {"ok": false, "finished": true, "nodes": 128, "verified": 126, "failed": {"GF-DISK-SPACE": ["n3", "n7"]}, "reboot_needed": []}
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import progress_failures
from ansible_collections.gpufleet.stack.plugins.plugin_utils import run_stats as stats

NAME = "gpufleet.stack.run_stats"
READ = ("plan", "verdict", "judgement")


def run_stats(hosts: Any, variables: Any, alive: Any, check_mode: Any = False, finished: Any = True) -> dict[str, Any]:
    """Check the arguments, pick plan and verdict of every node and sum up."""
    for value in (hosts, alive):
        if not isinstance(value, (list, tuple)):
            raise AnsibleFilterError(f"{NAME}: this is no list of nodes: {value!r:.200}")
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError(f"{NAME}: these are no variables of nodes: {variables!r:.200}")
    for value in (check_mode, finished):
        if not isinstance(value, bool):
            raise AnsibleFilterError(f"{NAME}: check_mode and finished must be true or false, not {value!r:.200}")
    nodes = {host: {key: variables[host].get(f"gpufleet_{key}") for key in READ} for host in map(str, hosts)}
    return stats.run_stats(nodes, set(map(str, alive)), progress_failures.SEEN, check_mode, finished)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"run_stats": run_stats}
