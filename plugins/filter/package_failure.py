# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: package_failure
short_description: A failed installation as an error with a code
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - Reads what apt, dpkg or dnf said, and answers the error with code, likely cause and what mends it.
  - A failure that has a code already stays as it is.
options:
  _input:
    description: The result of the failed task, as C(ansible_failed_result) has it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Install packages
  block:
    - name: Install them
      ansible.builtin.apt:
        name: nvidia-smi
  rescue:
    - name: Say what went wrong
      ansible.builtin.fail:
        msg: "{{ ansible_failed_result | gpufleet.stack.package_failure }}"
"""

RETURN = r"""
_value:
  description: The error as a user reads it.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.package_failure import judge


def package_failure(result: Any) -> str:
    """Check the argument and name the error."""
    if not isinstance(result, dict):
        raise AnsibleFilterError(f"gpufleet.stack.package_failure: this is no result of a task: {result!r:.200}")
    return judge(result)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"package_failure": package_failure}
