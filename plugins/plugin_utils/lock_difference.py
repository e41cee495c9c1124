# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new lock changes, package by package. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_file import Lock
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_wheels import Wheel


def difference(former: Lock, new: Lock) -> list[str]:
    """One line for each package that comes, goes or changes; none where the wheels are the same."""
    old, now = _by_name(former), _by_name(new)
    return [line for name in sorted({*old, *now}) if (line := _line(name, old.get(name), now.get(name)))]


def _by_name(lock: Lock) -> dict[str, Wheel]:
    return {wheel["name"]: wheel for wheel in lock.wheels}


def _line(name: str, old: Wheel | None, new: Wheel | None) -> str | None:
    if old is None or new is None:
        wheel, sign = (new, "+") if old is None else (old, "-")
        return f"{sign} {name} {wheel['version'] if wheel else ''}"
    if old["version"] != new["version"]:
        return f"{name} {old['version']} -> {new['version']}"
    if old["sha256"] != new["sha256"]:
        return f"{name} {new['version']}: another file ({old['sha256'][:8]} -> {new['sha256'][:8]})"
    return None
