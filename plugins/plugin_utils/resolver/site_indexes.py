# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's own indexes: which package comes from which. Private to the collection."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision

NAME = "pytorch_site_indexes"
SHAPE = f"{NAME}: [{{url: https://index.example.org/simple, packages: [ours]}}]"


def of(decision: Decision) -> dict[str, str]:
    """``{package: address}`` of every package that has an index of its own."""
    return {normal(package): row["url"] for row in decision.wanted[NAME] for package in row["packages"]}


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check(decision: Decision, wishes: Any) -> None:
    """A conflict for every row that cannot be read, and for a package that would have two indexes."""
    if not isinstance(wishes, list):
        _bad(decision, f"{NAME} is {wishes!r:.60}, not a list", SHAPE)
        return
    seen: set[str] = set()
    for row in wishes:
        if not isinstance(row, dict) or set(row) != {"url", "packages"}:
            _bad(decision, f"{NAME} has a row that is not url and packages", SHAPE)
        elif not isinstance(row["url"], str) or not re.match(r"(https?|file)://", row["url"]):
            _bad(decision, f"{NAME} has a row without an address", SHAPE)
        elif not isinstance(row["packages"], list) or not row["packages"] or not all(map(_named, row["packages"])):
            _bad(decision, f"{NAME} has a row without names of packages", SHAPE)
        else:
            twice = sorted(seen & set(map(normal, row["packages"])))
            seen |= set(map(normal, row["packages"]))
            if twice:
                _bad(decision, f"{twice[0]} is in two rows of {NAME}", "name each package once: it has one index")


def _named(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) is not None


def _bad(decision: Decision, message: str, mend: str) -> None:
    # The value is not shown: an address may hold a password.
    because = [f"{NAME} was set in the inventory, a variables file or with -e"]
    decision.conflict("GF-WISH-INVALID", message, because, [mend], {"wish": NAME, "value": None})
