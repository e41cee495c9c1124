# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks as people read them. Private to the collection."""

from __future__ import annotations

import json
from typing import Any

from .outcomes import FAILED, PASSED, SKIPPED


def brief(check: dict[str, Any]) -> str:
    """What a reader of the table wants to know of a check."""
    if check["message"]:
        return str(check["message"])
    measured = check["measured"]
    if isinstance(measured, dict) and "loss_end" in measured:
        return f"loss {measured['loss_start']:.4g} -> {measured['loss_end']:.2g} in {measured['steps']} steps"
    if isinstance(measured, dict) and "relative_errors" in measured:
        return f"largest relative error {max(measured['relative_errors'].values()):.1e}"
    if isinstance(measured, dict) and "loaded" in measured:
        return f"{len(measured['loaded'])} CUDA libraries loaded, all of this environment"
    if isinstance(measured, dict) and "device" in measured:
        return f"{measured['device']}, compute capability {measured['compute_capability']}"
    if isinstance(measured, dict):
        return ", ".join(f"{key} {value}" for key, value in measured.items())
    return str(measured)


def table(result: dict[str, Any]) -> str:
    checks = result["checks"]
    width = max(len(check["name"]) for check in checks)
    lines = []
    for check in checks:
        text = brief(check)
        if check["status"] == SKIPPED and check["measured"] is not None:
            text = f"{json.dumps(check['measured'])} ({text})"
        lines.append(f"{check['status']:<7}  {check['name']:<{width}}  {text}")
    count = {status: sum(1 for check in checks if check["status"] == status) for status in (PASSED, FAILED, SKIPPED)}
    lines.append("")
    lines.append(
        f"{'OK' if result['ok'] else 'NOT OK'}: {count[PASSED]} passed, {count[FAILED]} failed, "
        f"{count[SKIPPED]} skipped in {result['seconds']:.1f} s"
    )
    return "\n".join(lines)
