# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as lines that a person reads. Private to the collection."""

from __future__ import annotations

from collections import Counter
from typing import Any

Row = dict[str, Any]


def plan_lines(plan: Row) -> list[str]:
    """The node, what will be done to it and why; or the conflicts with what would mend them."""
    lines = [node_line(plan["facts"])]
    if plan["ok"]:
        for role, stage in plan["stages"].items():
            lines += _stage_lines(role, stage)
        lines += _download_line(plan["stages"])
    for conflict in plan["conflicts"]:
        lines.append(f"{conflict['code']}: {conflict['message']}")
        lines += [f"  because {reason}" for reason in conflict["because"]]
        lines += [f"  mend:   {fix}" for fix in conflict["fixes"]]
    lines += [f"note: {warning['message']} ({warning['code']})" for warning in plan["warnings"]]
    return lines


def node_line(facts: Row) -> str:
    """The node in one line."""
    node, gpu = facts["node"], facts["gpu"]
    counts = Counter(str(device["name"]) for device in gpu["devices"])
    gpus = ", ".join(f"{count} x {name}" for name, count in sorted(counts.items())) or "no NVIDIA GPU"
    driver = gpu["driver"]["loaded_version"] or gpu["driver"]["installed_version"]
    shown = f", driver {driver}" if driver else ", no driver" if counts else ""
    return f"{node['distribution']} {node['version']} on {node['architecture']}: {gpus}{shown}"


def _stage_lines(role: str, stage: Row) -> list[str]:
    if not stage["wanted"]:
        return [f"{role}: nothing to do, {stage['why'][0]}"]
    if not stage["needed"]:
        return [f"{role}: as it should be"]
    return [f"{role}: to do, {stage['because']}", *(f"  {why}" for why in stage["why"])]


def _download_line(stages: Row) -> list[str]:
    wheels = stages["pytorch"]["environments"] if stages["pytorch"]["needed"] else []
    downloads = [environment["lock"]["download_bytes"] for environment in wheels]
    download = "an unknown size" if None in downloads else f"up to {sum(downloads) / 1e9:.1f} GB"
    disk = sum(environment["disk_mib"] for environment in wheels)
    return [f"size: {download} to download, {disk / 1024:.1f} GiB on disk"] if wheels else []
