# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory wishes for a node, read without a role being played on it. Private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.wishes import DEFAULTS

CACHE_BELOW = "gpufleet_cache_dir"
PREFIX = "gpufleet_prefix"


def of_node(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The wishes among the variables of a node; where it says nothing the defaults hold, as they do in the role.

    :raises GpufleetError: GF-WISH-INVALID where a variable cannot be worked out.
    """
    wishes: dict[str, Any] = {}
    for name in DEFAULTS:
        try:
            if name in variables:
                wishes[name] = variables[name]
        except AnsibleError as error:
            raise GpufleetError(
                "GF-WISH-INVALID",
                f"{name} cannot be worked out: {error}",
                f"{name} was set in the inventory, a variables file or with -e, in terms of something that is not there",
                f"set what {name} refers to, or give it a plain value",
            ) from error
    if PREFIX in wishes and CACHE_BELOW not in wishes:
        # roles/plan/defaults puts the cache below the prefix.
        wishes[CACHE_BELOW] = f"{wishes[PREFIX]}/cache"
    return wishes
