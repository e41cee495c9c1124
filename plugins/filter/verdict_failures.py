# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: verdict_failures
short_description: What failed in a verdict, as lines that a person reads
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - One line for each failed check with what was measured and expected, then the usual cause and what mends it.
  - An empty list where no check failed.
options:
  _input:
    description: The verdict, as M(gpufleet.stack.torch_check) returns it.
    type: dict
    required: true
  host:
    description: Name of the node in the lines, where it is not the verdict's own.
    type: str
"""

EXAMPLES = r"""
- name: Fail where a check did
  ansible.builtin.fail:
    msg: "{{ gpufleet_verdict | gpufleet.stack.verdict_failures(host=inventory_hostname) | join('\n') }}"
  when: not gpufleet_verdict.ok
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
from ansible_collections.gpufleet.stack.plugins.plugin_utils.verdict_failures import failure_lines


def verdict_failures(verdict: Any, host: Any = None) -> list[str]:
    """Check the arguments and write the lines."""
    if not isinstance(verdict, dict) or not isinstance(verdict.get("environments"), list):
        raise AnsibleFilterError(f"gpufleet.stack.verdict_failures: this is no verdict: {verdict!r:.200}")
    if host is not None and not isinstance(host, str):
        raise AnsibleFilterError(f"gpufleet.stack.verdict_failures: host must be text, not {host!r:.200}")
    return failure_lines(verdict, host)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"verdict_failures": verdict_failures}
