# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run came to, small enough for the artifacts of ansible-runner and AWX. Private to the collection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import run_summary
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_failures import Failure, failure

Row = dict[str, Any]
# A node that failed where nobody kept why: the callback progress is not enabled, or it failed without a code.
UNKNOWN = "unknown"


def run_stats(
    nodes: Mapping[str, Row], alive: Collection[str], seen: Mapping[str, Failure], check_mode: bool, finished: bool
) -> Row:
    """The sums of a run.

    :param nodes: plan, verdict and judgement of every node of the play.
    :param alive: the nodes that have not failed so far.
    :param seen: why nodes failed, as far as the callback is enabled.
    """
    failed: dict[str, list[str]] = {}
    stopped = run_summary.stopped_at_the_plan(nodes)
    for host in sorted(nodes, key=natural):
        codes = _codes(host, nodes[host], alive, seen) or _not_accepted(host, nodes[host], check_mode)
        # A node that was stopped for the sake of others did not fail.
        for code in [] if stopped and codes == [UNKNOWN] else codes:
            failed.setdefault(code, []).append(host)
    real = {} if check_mode else nodes
    return {
        "ok": finished and not failed,
        "finished": finished,
        "nodes": len(nodes),
        "verified": sum(1 for host, node in real.items() if host in alive and run_summary.is_verified(node)),
        "failed": dict(sorted(failed.items())),
        "reboot_needed": [host for host in sorted(real, key=natural) if run_summary.waits_for_reboot(real[host])],
    }


def _codes(host: str, node: Row, alive: Collection[str], seen: Mapping[str, Failure]) -> list[str]:
    plan = node.get("plan")
    if plan is not None and not plan["ok"]:
        return list(dict.fromkeys(conflict["code"] for conflict in plan["conflicts"]))
    if host in alive:
        return []
    if host in seen and seen[host].code.startswith("GF-"):
        return seen[host].code.split(", ")
    if host in seen:
        return [seen[host].code]
    return run_summary.verify_codes(node) or [UNKNOWN]


def _not_accepted(host: str, node: Row, check_mode: bool) -> list[str]:
    """A node that the judgement is about to fail."""
    lines = ((node.get("judgement") or {}).get("failing") or {}).get(host)
    return [failure({"msg": "\n".join(lines)}).code] if lines and not check_mode else []
