# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: resolve
short_description: Chooses the stack for a node from its facts and the wishes
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - A pure function. It reads no file of the node and no index.
positional: wanted
options:
  _input:
    description: The facts of the node with the keys C(gpu), C(cuda) and C(node), as M(gpufleet.stack.stack_probe) returns them.
    type: dict
    required: true
  wanted:
    description: The variables that a user may set, by name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What would this node get with another torch
  ansible.builtin.debug:
    msg: "{{ facts | gpufleet.stack.resolve({'pytorch_version': '2.0.0'}) }}"
"""

RETURN = r"""
_value:
  description: The answer with the keys C(ok), C(stages), C(conflicts) and C(warnings).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

PARTS = ("gpu", "cuda", "node")


def resolve_filter(facts: Any, wanted: Any) -> dict[str, Any]:
    """Check the arguments and resolve."""
    if not isinstance(facts, dict) or any(not isinstance(facts.get(part), dict) for part in PARTS):
        raise AnsibleFilterError(
            f"gpufleet.stack.resolve: the facts need the keys {', '.join(PARTS)}, got {facts!r:.200}"
        )
    if not isinstance(wanted, dict):
        raise AnsibleFilterError(
            f"gpufleet.stack.resolve: the wishes are a dictionary of variables, got {wanted!r:.200}"
        )
    return resolve(facts, wanted, catalog.load())


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"resolve": resolve_filter}
