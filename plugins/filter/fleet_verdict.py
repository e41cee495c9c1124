# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_verdict
short_description: What the answers of all nodes of a fleet check come to
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - A pure function of what P(gpufleet.stack.fleet_brief#filter) and M(gpufleet.stack.fleet_check) returned.
  - Names the node or the link that is at fault. A node that gave no answer is one.
positional: variables, at
options:
  _input:
    description: The brief.
    type: dict
    required: true
  variables:
    description: The variables of every node, C(hostvars). Read is C(__verify_fleet_answer).
    type: dict
    required: true
  at:
    description: When the check began, ISO 8601 in UTC.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Compare the answers
  ansible.builtin.set_fact:
    gpufleet_fleet_verdict: "{{ __fleet.brief | gpufleet.stack.fleet_verdict(hostvars, '2026-03-02T10:11:12Z') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The verdict, see docs/schemas/fleet-verdict.schema.json.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_verdict import make_verdict

NAME = "gpufleet.stack.fleet_verdict"


def fleet_verdict(brief: Any, variables: Any, at: Any) -> dict[str, Any]:
    """Check the arguments, pick every node's answer and compare them."""
    if not isinstance(brief, Mapping) or "ranks" not in brief:
        raise AnsibleFilterError(f"{NAME}: this is no brief of a fleet check: {brief!r:.200}")
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError(f"{NAME}: these are no variables of nodes: {variables!r:.200}")
    if not isinstance(at, str):
        raise AnsibleFilterError(f"{NAME}: the time is a text, got {at!r:.200}")
    answers = {host: variables[host].get("__verify_fleet_answer") for host in brief["hosts"]}
    return make_verdict(dict(brief), {host: answer for host, answer in answers.items() if answer}, at)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"fleet_verdict": fleet_verdict}
