# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning many nodes from cached facts, in one process and without contacting any. Private to the collection."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache, fleet_wishes
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet import Fleet
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import RunLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.planning import make_plan
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import ALONE, Site

Row = dict[str, Any]
# What differs between nodes that are alike, and what no choice rests on.
OWN = frozenset(("uuid", "boot_id", "free_mib"))
# What garbled facts make of code that expects a probe: they are not checked key by key.
GARBLED = (KeyError, TypeError, AttributeError, ValueError, IndexError)


class CachedPlanner:
    """Plans nodes one after the other; what two nodes have in common is worked out once."""

    def __init__(self, facts_directory: str, run: RunLocks, site: Site = ALONE) -> None:
        self.facts_directory = facts_directory
        self.run = run
        self.site = site
        self._choices: dict[str, bytes] = {}

    def add(self, fleet: Fleet, host: str, variables: Mapping[str, Any]) -> Row | None:
        """Plan one node into the fleet; a node without usable facts is a conflict there, and has no plan."""
        try:
            wishes = fleet_wishes.of_node(variables)
            probe = facts_cache.read(self.facts_directory, host)
        except GpufleetError as error:
            fleet.refuse(host, error)
            return None
        try:
            plan = make_plan(probe, wishes, self.run, only_look=True, choose=self._choose, site=self.site)
            fleet.add(host, plan, read_at=probe.get("read_at"))
        except GARBLED as error:
            fleet.refuse(
                host, facts_cache.invalid(f"they are not what a probe leaves: {type(error).__name__}: {error}")
            )
            return None
        return plan

    def _choose(self, facts: Row, wanted: Row, catalog: Row) -> Row:
        """The resolver, asked once for all nodes that are alike. Pickled: every caller changes its own copy."""
        alike = json.dumps([_common(facts), wanted], sort_keys=True, default=str)
        if alike not in self._choices:
            self._choices[alike] = pickle.dumps(resolve(facts, wanted, catalog))
        answer: Row = pickle.loads(self._choices[alike])  # noqa: S301 - made three lines above
        return answer


def _common(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _common(each) for key, each in value.items() if key not in OWN}
    return [_common(each) for each in value] if isinstance(value, list) else value
