# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles: what an environment gets besides torch for a purpose, in versions that fit each other. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.selection import Environment
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key


def names(decision: Decision) -> list[str]:
    """The profiles of the catalog."""
    return list(dict.fromkeys(row["profile"] for row in decision.catalog["torch"]["profiles"]))


def row(decision: Decision, profile: str, torch: str, python: str) -> Row | None:
    """The row of a profile for a torch and a Python, None where the catalog has none."""
    fitting = (
        each
        for each in decision.catalog["torch"]["profiles"]
        if each["profile"] == profile
        and _within(torch, each["first_torch"], each["last_torch"])
        and _within(python, each["first_python"], each["last_python"])
    )
    return next(fitting, None)


def _within(version: str, first: str, last: str | None) -> bool:
    return at_least(version, first) and (last is None or key(version) <= key(last) or in_series(version, last))


def requirements(decision: Decision, environment: Environment) -> list[str]:
    """What the environment's profile asks for; nothing where it has none."""
    found = _of(decision, environment)
    if found is None:
        return []
    decision.uses(f"profile {found['profile']} with torch {environment.release['version']}", found)
    return list(found["requirements"])


def check(decision: Decision, chosen: list[Environment]) -> None:
    """A conflict for every environment whose profile is not known for its torch and Python."""
    for each in chosen:
        profile = each.wish.get("profile")
        if profile is None or _of(decision, each) is not None:
            continue
        rows = [found for found in decision.catalog["torch"]["profiles"] if found["profile"] == profile]
        because = [
            f"torch {found['first_torch']} to {found['last_torch'] or 'the newest'} with Python {found['first_python']} to "
            f"{found['last_python'] or 'the newest'} ({decision.source('torch', found)})"
            for found in rows
        ]
        message = f"the profile {profile} is not known for torch {each.release['version']} with Python {each.python['version']}"
        decision.conflict("GF-TORCH-PROFILE", message, because, [], {"environment": each.wish})


def _of(decision: Decision, environment: Environment) -> Row | None:
    profile = environment.wish.get("profile")
    if profile is None:
        return None
    return row(decision, profile, environment.release["version"], environment.python["version"])
