# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of the resolver write down while they choose. Private to the collection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Row = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])


class Decision:
    """Facts, catalog and wishes on the one side; conflicts and warnings on the other."""

    def __init__(self, facts: Row, catalog: Row, wanted: Row, known: dict[Any, Any]) -> None:
        self.facts = facts
        self.catalog = catalog
        self.wanted = wanted
        self.known = known
        self.conflicts: list[Row] = []
        self.warnings: list[Row] = []
        self.guessed: set[str] = set()

    @property
    def devices(self) -> list[Row]:
        """The GPUs that this node itself may use: none that is passed through to a guest."""
        return [device for device in self.facts["gpu"]["devices"] if not device["passthrough"]]

    @property
    def architecture(self) -> str:
        """The processor's architecture as the kernel names it."""
        return str(self.facts["node"]["architecture"])

    @property
    def platform(self) -> str:
        """The distribution as a person names it, such as ``Debian 12 on x86_64``."""
        node = self.facts["node"]
        return f"{node['distribution'] or 'an unknown distribution'} {node['version'] or ''} on {node['architecture']}"

    def conflict(
        self, code: str, message: str, because: list[str], advice: list[str], about: Row | None = None
    ) -> None:
        """Write down what can't be, the facts that say so, and what to do about it that no wish can say.

        :param about: what the search for fixes needs to know, such as the environment that is at fault.
        """
        row = {
            "code": code,
            "message": message,
            "because": because,
            "fixes": [],
            "advice": advice,
            "about": about or {},
        }
        if row not in self.conflicts:
            self.conflicts.append(row)

    def warn(self, code: str, message: str) -> None:
        """Write down something that a user should know and that stops nothing."""
        row = {"code": code, "message": message}
        if row not in self.warnings:
            self.warnings.append(row)

    def uses(self, what: str, row: Row) -> None:
        """Remember that the plan rests on fields of a row that nobody has verified."""
        if row.get("unverified"):
            self.guessed.add(f"{what} ({', '.join(row['unverified'])})")

    def source(self, catalog_file: str, row: Row) -> str:
        """Where a row of the catalog stands and which sources it names there."""
        names = row["source"] if isinstance(row["source"], list) else [row["source"]]
        return f"{catalog_file}.yml: {', '.join(names)}"


def once_per_node(function: Function) -> Function:
    """Keep the answers of a function of facts and catalog alone: proving fixes asks it again under other wishes."""

    @functools.wraps(function)
    def remembered(decision: Decision, *args: Any) -> Any:
        key = (function, *args)
        if key not in decision.known:
            decision.known[key] = function(decision, *args)
        return decision.known[key]

    return cast(Function, remembered)


def nothing(why: str, **keys: Any) -> Row:
    """A stage in which there is nothing to do on this node, with the reason and the stage's empty keys."""
    return {"wanted": False, "why": [why], **keys}
