# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rank is asked to do, and what is usual. Private to the collection."""

from __future__ import annotations

import json
from typing import Any

DEFAULTS: dict[str, Any] = {
    "backend": "gloo",
    # Bytes of what is summed over all ranks.
    "sizes": [4, 4100, 1048576, 16777216],
    "seed": 0,
    # Seconds that a rank waits for another in one step, and for all of them to come at the beginning.
    "stall": 30,
    "start": 60,
    # The first rank of each node: links between nodes are measured by these.
    "leaders": None,
}


def read(path: str | None) -> dict[str, Any]:
    """What stands in a file, and what is usual for the rest; all of that without one."""
    if path is None:
        return dict(DEFAULTS)
    with open(path, encoding="utf-8") as file:
        return {**DEFAULTS, **json.load(file)}
