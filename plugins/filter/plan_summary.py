# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: plan_summary
short_description: A plan as lines that a person reads
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - One line for the node, one for each stage, and the conflicts with what would mend them.
options:
  _input:
    description: The plan, as M(gpufleet.stack.plan) returns it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ gpufleet_plan | gpufleet.stack.plan_summary }}"
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
from ansible_collections.gpufleet.stack.plugins.plugin_utils.plan_text import plan_lines


def plan_summary(plan: Any) -> list[str]:
    """Check the argument and write the lines."""
    if not isinstance(plan, dict) or "stages" not in plan or "facts" not in plan:
        raise AnsibleFilterError(f"gpufleet.stack.plan_summary: this is no plan: {plan!r:.200}")
    return plan_lines(plan)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"plan_summary": plan_summary}
