# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums over all ranks, which have to be exact; and who is at fault where they are not. Private to the collection."""

from __future__ import annotations

import time
from typing import Any

from .run import Run

MIB = 1 << 20
GIB = float(1 << 30)

# A size that would take longer than this, going by the last one's bandwidth, is left out.
SIZE_SECONDS = 10.0
# Repeated where the first sum took less than this.
REPEAT_SECONDS = 0.5
REPEATS = 3
# Largest integer up to which every integer is a float32.
EXACT = 1 << 24


def pattern(run: Run, count: int) -> Any:
    """Whole numbers so small that every sum over all ranks is exact in float32."""
    most = max(1, min(1021, EXACT // (run.world * (run.world + 1) // 2)))
    numbers = run.torch.arange(count, dtype=run.torch.int64, device=run.device)
    return (numbers % most + 1).to(run.torch.float32)


def summed(run: Run, numbers: Any, members: list[int], group: Any = None) -> tuple[float, bool]:
    """Sum ``numbers`` times rank + 1 over the members; the seconds, and whether it came out right."""
    tensor = numbers * (run.rank + 1)
    run.wait_for_device()
    started = time.monotonic()
    if group is None:
        run.dist.all_reduce(tensor)
    else:
        run.dist.all_reduce(tensor, group=group)
    run.wait_for_device()
    seconds = time.monotonic() - started
    return seconds, bool(run.torch.equal(tensor, numbers * sum(rank + 1 for rank in members)))


def check_sums(run: Run) -> None:
    """All-reduce of every size, compared with the sum that is known."""
    found: list[dict[str, Any]] = run.progress.results.setdefault("all_reduce", [])
    everyone = list(range(run.world))
    right, rate = True, None
    for index, size in enumerate(run.brief["sizes"]):
        run.progress.enter("all_reduce", index, f"{size} bytes")
        if run.decide(int(rate is not None and size / rate > SIZE_SECONDS)):
            found.append({"bytes": size, "seconds": None, "gib_s": None, "right": None})
            continue
        numbers = pattern(run, max(1, size // 4))
        seconds, good = summed(run, numbers, everyone)
        for _repeat in range(run.decide(REPEATS if seconds < REPEAT_SECONDS else 0)):
            again, still_good = summed(run, numbers, everyone)
            seconds, good = min(seconds, again), good and still_good
        # Of small sums it is the latency that is measured.
        rate = size / seconds if size >= MIB else None
        found.append({"bytes": size, "seconds": seconds, "gib_s": size / seconds / GIB, "right": good})
        right = right and good
    flags = run.gather(run.torch.tensor([float(right)], device=run.device))
    if not all(flag.item() == 1.0 for flag in flags):
        check_halves(run)


def check_halves(run: Run) -> None:
    """Sum over halves of the ranks, two for every bit of a rank's number: the wrong ones spell the rank at fault."""
    found: list[dict[str, Any]] = run.progress.results.setdefault("halves", [])
    numbers = pattern(run, 1024)
    for bit in range(max(1, (run.world - 1).bit_length())):
        for value in (0, 1):
            members = [rank for rank in range(run.world) if rank >> bit & 1 == value]
            run.progress.enter("halves", 2 * bit + value, f"ranks with bit {bit} = {value}")
            group = run.dist.new_group(members)
            if run.rank in members:
                found.append({"bit": bit, "value": value, "right": summed(run, numbers, members, group)[1]})
