# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_lines
short_description: What a fleet check came to, as lines that a person reads
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - Where a check failed, names the node or the link at fault first, then says what failed, the causes and what mends them.
  - Where none did, what was measured.
options:
  _input:
    description: The verdict, as P(gpufleet.stack.fleet_verdict#filter) makes it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Fail where a check did
  ansible.builtin.fail:
    msg: "{{ gpufleet_fleet_verdict | gpufleet.stack.fleet_lines | join('\n') }}"
  when: not gpufleet_fleet_verdict.ok
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
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_verdict import verdict_lines


def fleet_lines(verdict: Any) -> list[str]:
    """Check the argument and write the lines."""
    if not isinstance(verdict, Mapping) or "suspects" not in verdict:
        raise AnsibleFilterError(f"gpufleet.stack.fleet_lines: this is no verdict of a fleet: {verdict!r:.200}")
    return verdict_lines(dict(verdict))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"fleet_lines": fleet_lines}
