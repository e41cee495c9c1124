# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ranks tell each other by the store, before and after anything collective. Private to the collection."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

from .run import Run


def assemble(run: Run, name: str, mine: Any, seconds: float) -> dict[int, Any]:
    """What every rank has put under the name; rank 0 collects it for all, so that the store answers few questions.

    Counters say what is there: adding 0 asks without waiting, in every release of torch.
    """
    put(run, f"{name}/{run.rank}", json.dumps(mine))
    if run.rank == 0:
        deadline = time.monotonic() + seconds
        missing = set(range(run.world))
        while missing and time.monotonic() < deadline:
            missing = {rank for rank in missing if not is_there(run, f"{name}/{rank}")}
            time.sleep(0.05)
        there = sorted(set(range(run.world)) - missing)
        found = {rank: json.loads(run.store.get(f"gpufleet/{name}/{rank}").decode()) for rank in there}
        put(run, f"{name}/all", json.dumps(found))
    run.store.wait([f"gpufleet/{name}/all"], timedelta(seconds=seconds + run.brief["stall"]))
    found = json.loads(run.store.get(f"gpufleet/{name}/all").decode())
    return {int(rank): value for rank, value in found.items()}


def put(run: Run, key: str, value: str) -> None:
    run.store.set(f"gpufleet/{key}", value)
    run.store.add(f"gpufleet/{key}/there", 1)


def is_there(run: Run, key: str) -> bool:
    return int(run.store.add(f"gpufleet/{key}/there", 0)) > 0
