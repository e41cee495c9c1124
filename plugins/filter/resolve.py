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
  - A pure function of facts, wishes and the catalog. It reads no file of the node and no index.
  - Facts that cannot be read and wishes that cannot be are conflicts in the answer, with a code; they raise no error.
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
  description:
    - The answer with the keys C(ok), C(stages) (one for each role), C(conflicts) and C(warnings).
    - A conflict has C(code), C(message), C(because), C(advice), and C(fixes), a list of wishes with which the node resolves.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve


def resolve_filter(facts: Any, wanted: Any) -> dict[str, Any]:
    """Check the arguments and resolve."""
    if not isinstance(facts, dict):
        raise AnsibleFilterError(
            f"gpufleet.stack.resolve: the facts are a dictionary of gpu, cuda and node, got {facts!r:.200}"
        )
    if not isinstance(wanted, dict):
        raise AnsibleFilterError(
            f"gpufleet.stack.resolve: the wishes are a dictionary of variables, got {wanted!r:.200}"
        )
    overlay = wanted.get("gpufleet_catalog_overlay")
    try:
        rows = catalog.load(overlay if isinstance(overlay, str) and overlay else None)
    except GpufleetError as error:
        raise AnsibleFilterError(f"gpufleet.stack.resolve: {error}") from error
    return resolve(facts, wanted, rows)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"resolve": resolve_filter}
