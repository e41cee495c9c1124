# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchanges between two nodes at a time: whether the data arrives, and how fast. Private to the collection."""

from __future__ import annotations

import time
from typing import Any, Iterator

from .run import Run

MIB = 1 << 20
GIB = float(1 << 30)

# Each node exchanges with every other, or with this many where there are more.
PAIR_ROUNDS = 32
# An exchange takes as many bytes as go in this time, and so many at most.
PAIR_SECONDS = 0.25
PAIR_BYTES = {"gloo": 4 * MIB, "nccl": 64 * MIB}
PAIR_FIRST_BYTES = MIB // 4
REPEATS = 3


def rounds(members: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Who exchanges with whom, as in a tournament: in every round each member has one partner, or none."""
    ring: list[int | None] = [*members, *([None] if len(members) % 2 else [])]
    half = len(ring) // 2
    for _round in range(len(ring) - 1):
        pairs = zip(ring[:half], reversed(ring[half:]))
        yield [(min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None]
        ring = [ring[0], ring[-1], *ring[1:-1]]


def measure_pairs(run: Run, phase: str) -> None:
    """Exchange with one rank of each other node. What comes is compared with what was sent."""
    found: list[dict[str, Any]] = run.progress.results.setdefault("pairs", [])
    for index, pairs in enumerate(rounds(run.leaders)):
        if index == PAIR_ROUNDS:
            break
        for low, high in pairs:
            if run.rank in (low, high):
                peer = high if run.rank == low else low
                run.progress.enter(phase, index, f"with rank {peer}")
                found.append(measure_link(run, peer))


def measure_link(run: Run, peer: int) -> dict[str, Any]:
    """The first exchange waits until both are there, the second tells how many bytes are worth while.

    Only the times of the lower rank mean something: the other's last bytes may still be on their way.
    """
    exchange(run, peer, PAIR_FIRST_BYTES)
    seconds = exchange(run, peer, PAIR_FIRST_BYTES)[0]
    most = PAIR_BYTES[run.brief["backend"]]
    wanted = int(PAIR_FIRST_BYTES * PAIR_SECONDS / max(seconds, 1e-9))
    length = run.torch.tensor([max(PAIR_FIRST_BYTES // 4, min(most, wanted))], dtype=run.torch.int64, device=run.device)
    (run.dist.send if run.rank < peer else run.dist.recv)(length, peer)
    size = int(length.item())
    results = [exchange(run, peer, size) for _repeat in range(REPEATS)]
    rates = [2 * size / seconds / GIB for seconds, _right in results]
    return {"peer": peer, "bytes": size, "gib_s": rates, "right": all(right for _seconds, right in results)}


def exchange(run: Run, peer: int, size: int) -> tuple[float, bool]:
    """Send and receive; the seconds of both, and whether what came is what the peer sends."""
    mine, theirs = letter(run, run.rank, size), letter(run, peer, size)
    came = run.torch.zeros_like(theirs)
    run.wait_for_device()
    started = time.monotonic()
    if run.rank < peer:
        run.dist.send(mine, peer)
        run.dist.recv(came, peer)
    else:
        run.dist.recv(came, peer)
        run.dist.send(mine, peer)
    run.wait_for_device()
    seconds = time.monotonic() - started
    return seconds, bool(run.torch.equal(came, theirs))


def letter(run: Run, sender: int, size: int) -> Any:
    numbers = run.torch.arange(max(1, size // 4), dtype=run.torch.int32, device=run.device)
    return numbers * 31 + sender
