# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_brief
short_description: Who takes part in a fleet check, as which ranks, and what stands against it
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - A pure function of what M(gpufleet.stack.fleet_check) found on every node and of the plans. It contacts no node.
  - What stands against the check is in the answer, with a code; it raises no error.
positional: variables, wishes
options:
  _input:
    description: The nodes of the group, by the names of the inventory.
    type: list
    elements: str
    required: true
  variables:
    description:
      - The variables of every node, C(hostvars). Read are C(gpufleet_plan) and C(__verify_fleet_look), which
        C(roles/verify/tasks/fleet.yml) sets; a node that lacks one could not be looked at, and does not take part.
    type: dict
    required: true
  wishes:
    description: The keys C(forks), C(together), C(port), C(backend), C(processes), C(environment), C(sizes) and C(timeout).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Put the fleet check together
  ansible.builtin.set_fact:
    __fleet: "{{ ansible_play_hosts_all | gpufleet.stack.fleet_brief(hostvars, wishes) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - The keys C(ok), C(text) (what stands against it, for people; empty where nothing does) and C(brief) (null where C(ok) is false).
    - The brief has C(hosts), C(absent), C(ranks) of each host, C(world_size), C(backend), C(torch), C(address) and C(port) of rank 0,
      C(interpreters) of each host, C(timeout), and C(script), which the ranks get.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_brief import make_brief

NAME = "gpufleet.stack.fleet_brief"
NOT_SEEN = "it could not be looked at, see its error above"


def fleet_brief(hosts: Any, variables: Any, wishes: Any) -> dict[str, Any]:
    """Check the arguments, pick what is known of every node and put the brief together."""
    if not isinstance(hosts, (list, tuple)):
        raise AnsibleFilterError(f"{NAME}: this is no list of nodes: {hosts!r:.200}")
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError(f"{NAME}: these are no variables of nodes: {variables!r:.200}")
    if not isinstance(wishes, Mapping):
        raise AnsibleFilterError(f"{NAME}: the wishes are a dictionary, got {wishes!r:.200}")
    try:
        brief = make_brief([_node(host, variables[host]) for host in hosts], dict(wishes))
    except GpufleetError as error:
        return {"ok": False, "text": str(error), "brief": None}
    return {"ok": True, "text": "", "brief": brief}


def _node(host: str, variables: Any) -> dict[str, Any]:
    plan, found = variables.get("gpufleet_plan"), variables.get("__verify_fleet_look") or {}
    look = found.get("look")
    seen = plan.get("facts", {}).get("gpu", {}) if isinstance(plan, Mapping) else {}
    said = str(found.get("msg") or "").strip().splitlines()
    return {
        "host": host,
        "look": look,
        "stage": plan["stages"]["verify"] if isinstance(plan, Mapping) and plan.get("ok") else None,
        "busy": list(seen.get("busy") or []),
        "why": said[0] if said and not look else NOT_SEEN,
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"fleet_brief": fleet_brief}
