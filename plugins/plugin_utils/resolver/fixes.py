# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixes for conflicts: wishes with which the node resolves, each proven by resolving again. Private to the collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import candidates
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row

Again = Callable[[dict[str, Any]], Decision]
# Conflicts that no wish can mend; a fix of another conflict leaves them.
BEYOND_WISHES = {"GF-RIGHTS", "GF-PREFIX-READONLY"}
ENOUGH = 3
_FREE = (
    "nvidia_driver_version", "nvidia_driver_source", "nvidia_driver_flavour", "nvidia_driver_modules",
    "cuda_toolkit_version", "cudnn_version",
    "python_version", "pytorch_version", "pytorch_cuda",
)  # fmt: skip
_NO_WAY = "no change of variables makes this possible; take the node out of the play, or change the node itself"
# Resolving again takes a fraction of a millisecond; a node's answer must not take more than a few.
TRIES = 16


class _Search:
    """Tries candidates, and pairs of them where one alone does not do."""

    def __init__(self, wanted: dict[str, Any], again: Again, tries: int) -> None:
        self.wanted = wanted
        self.again = again
        self.tries = tries

    def left(self, change: Row) -> tuple[Decision, list[Row]]:
        """What stands in the way with these wishes changed."""
        self.tries -= 1
        decision = self.again({**self.wanted, **change})
        return decision, [row for row in decision.conflicts if row["code"] not in BEYOND_WISHES]

    def fixes(self, decision: Decision, conflict: Row) -> list[Row]:
        """Up to three changes that leave no conflict, nearest first."""
        found: list[Row] = []
        partial: list[tuple[Row, Decision, Row]] = []
        for candidate in candidates.of(decision, conflict):
            if self.tries <= 0 or len(found) == ENOUGH:
                return found
            then, left = self.left(candidate)
            if not left and candidate not in found:
                found.append(candidate)
            elif left and not any(_same(each, conflict) for each in left):
                partial.append((candidate, then, left[0]))
        return found or self._pairs(partial) or self._everything_auto()

    def _pairs(self, partial: list[tuple[Row, Decision, Row]]) -> list[Row]:
        for candidate, then, remaining in partial:
            for second in candidates.of(then, remaining):
                if self.tries <= 0:
                    return []
                if not self.left({**candidate, **second})[1]:
                    return [{**candidate, **second}]
        return []

    def _everything_auto(self) -> list[Row]:
        """Where several wishes are in each other's way: all of them given up, and the GPUs too if need be."""
        changed = {
            name: "auto" for name in _FREE if self.wanted.get(name, "auto") != "auto" or name == "pytorch_version"
        }
        for change in (changed, {**changed, "nvidia_driver_version": "none"}):
            if not self.left(change)[1]:
                return [change]
        return []


def _same(one: Row, other: Row) -> bool:
    return bool(one["code"] == other["code"] and one["about"] == other["about"])


def find(decision: Decision, wanted: dict[str, Any], again: Again) -> None:
    """Write the proven fixes to every conflict that a wish can mend."""
    mendable = [conflict for conflict in decision.conflicts if conflict["code"] not in BEYOND_WISHES]
    for conflict in mendable:
        conflict["fixes"] = _Search(wanted, again, TRIES // len(mendable)).fixes(decision, conflict)
        if not conflict["fixes"] and not conflict["advice"]:
            conflict["advice"] = [_NO_WAY]
