# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check answers. Private to the collection."""

from __future__ import annotations

import math
import os
import time
import traceback
from typing import Any, Callable

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
REBOOT_NEEDED = "GF-REBOOT-NEEDED"
NOTHING_EXPECTED = "nothing expected: give --expect to compare it"


def outcome(good: bool, measured: Any, expected: Any, message: str) -> dict[str, Any]:
    """Passed or failed; the message is for the one who reads a failure and is kept only there."""
    return {
        "status": PASSED if good else FAILED,
        "measured": measured,
        "expected": expected,
        "message": "" if good else message,
    }


def skipped(measured: Any, message: str, expected: Any = None) -> dict[str, Any]:
    return {"status": SKIPPED, "measured": measured, "expected": expected, "message": message}


def run_check(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one check; one that raises has failed."""
    started = time.monotonic()
    try:
        result = function()
    except Exception as error:  # whatever a broken torch raises is the finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)} line {where.lineno}"
        text = f"{type(error).__name__}: {error} ({place})"
        result = {"status": FAILED, "measured": None, "expected": None, "message": text}
    return {
        "name": name,
        "status": result["status"],
        "measured": plain(result["measured"]),
        "expected": plain(result["expected"]),
        "seconds": round(time.monotonic() - started, 3),
        "message": result["message"],
    }


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity, which it can't, become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
