# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parts of the resolver write down while they choose. Private to the collection."""

from __future__ import annotations

from typing import Any


class Decision:
    """Facts, catalog and wishes on the one side; conflicts and warnings on the other."""

    def __init__(self, facts: dict[str, Any], catalog: dict[str, Any]) -> None:
        self.facts = facts
        self.catalog = catalog
        self.wanted: dict[str, Any] = {}
        self.conflicts: list[dict[str, Any]] = []
        self.warnings: list[dict[str, str]] = []

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The node's GPUs."""
        devices: list[dict[str, Any]] = self.facts["gpu"]["devices"]
        return devices

    @property
    def platform(self) -> str:
        """The distribution as a person names it, such as ``Debian 12 on x86_64``."""
        node = self.facts["node"]
        return f"{node['distribution']} {node['version']} on {node['architecture']}"

    def conflict(self, code: str, message: str, because: list[str], fixes: list[str]) -> None:
        """Write down what can't be, the facts that say so, and the wishes that would make it possible, nearest first."""
        self.conflicts.append({"code": code, "message": message, "because": because, "fixes": fixes})

    def warn(self, code: str, message: str) -> None:
        """Write down something that a user should know and that stops nothing."""
        self.warnings.append({"code": code, "message": message})

    def source(self, catalog_file: str, row: dict[str, Any]) -> str:
        """The sources of a row of the catalog, as a person can look them up."""
        names = row["source"] if isinstance(row["source"], list) else [row["source"]]
        known = self.catalog[catalog_file].get("sources", {})
        return "; ".join(str(known.get(name, name)) for name in names)

    def answer(self, stages: dict[str, Any]) -> dict[str, Any]:
        """The resolver's answer as plain data."""
        return {
            "ok": not self.conflicts,
            "stages": stages,
            "conflicts": self.conflicts,
            "warnings": self.warnings,
        }


def nothing(why: str, **keys: Any) -> dict[str, Any]:
    """A stage in which there is nothing to do on this node, with the reason and the stage's empty keys."""
    return {"wanted": False, "why": [why], **keys}
