# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node's plan as lines that a person reads. Private to the collection."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import sizes
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import plain, wish_text

Row = dict[str, Any]


def plan_lines(plan: Row) -> list[str]:
    """The node, what will be done to it and why; or the conflicts with what would mend them."""
    lines = [node_line(plan["facts"])]
    if plan["ok"]:
        lines += reason_lines(plan)
        lines += _size_line(plan)
    for conflict in plan["conflicts"]:
        lines += conflict_lines(conflict)
    lines += [f"note: {warning['message']} ({warning['code']})" for warning in plan["warnings"]]
    return [line[: len(line) - len(line.lstrip())] + plain(line) for line in lines]


def node_line(facts: Row) -> str:
    """The node in one line."""
    node, gpu = facts["node"], facts["gpu"]
    counts = Counter(str(device["name"]) for device in gpu["devices"])
    gpus = ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())) or "no NVIDIA GPU"
    driver = gpu["driver"]["loaded_version"] or gpu["driver"]["installed_version"]
    shown = f", driver {driver}" if driver else ", no driver" if counts else ""
    return f"{node['distribution']} {node['version']} on {node['architecture']}: {gpus}{shown}"


def reason_lines(plan: Row) -> list[str]:
    """Every stage: whether it has anything to do, why, and the reason for each choice."""
    return [line for role, stage in plan["stages"].items() for line in _stage_lines(role, stage)]


def conflict_lines(conflict: Row) -> list[str]:
    """What can't be, why, and what would mend it."""
    lines = [f"{conflict['code']}: {conflict['message']}"]
    lines += [f"  because {reason}" for reason in conflict["because"]]
    mending = [*map(wish_text, conflict["fixes"]), *conflict.get("advice", [])]
    return lines + [f"  mend: {fix}" for fix in mending]


def _stage_lines(role: str, stage: Row) -> list[str]:
    if not stage["wanted"]:
        return [f"{role}: nothing to do, {stage['why'][0]}"]
    if not stage["needed"]:
        return [f"{role}: as it should be"]
    return [f"{role}: to do, {stage['because']}", *(f"  {why}" for why in stage["why"])]


def _size_line(plan: Row) -> list[str]:
    found = sizes.parts(plan)
    size = sizes.total(found)
    download = f"up to {size['download_bytes'] / 1e9:.1f} GB" if size["download_complete"] else "an unknown size"
    disk = f"{'about ' if size['disk_estimated'] else ''}{size['disk_mib'] / 1024:.1f} GiB"
    return (
        [f"size: {download} to download, {disk if size['disk_complete'] else f'at least {disk}'} on disk"]
        if found
        else []
    )
