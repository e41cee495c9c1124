# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which links between nodes are slower than their equals. Private to the collection.

A slow node makes every one of its links slow, a bad link only itself. So nodes are compared by the best link that each
has, and links only where both of their nodes have a good one.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any, NamedTuple

Row = dict[str, Any]

# The robust z-score of Iglewicz and Hoaglin, of logarithms: bandwidths differ by factors.
OUTLIER, MAD_TO_SIGMA = 3.5, 1.4826
# Links come in steps of two and more (10, 25, 50, 100 Gbit/s; half of the lanes). Less is the noise of a shared network.
LEAST_FACTOR = 2.0
# In place of no bandwidth at all, which has no logarithm.
TINY = 1e-12
# With two nodes there is one link, and nothing to compare it with.
FEWEST_NODES = 3


class Slow(NamedTuple):
    """A node (one name) or a link (two) that is slower than the others, and by how much."""

    names: tuple[str, ...]
    gib_s: float
    usual: float


def slow_ones(pairs: list[Row]) -> list[Slow]:
    """Nodes whose best link is slow, then links that are slow between good nodes."""
    best: dict[str, float] = {}
    for pair in pairs:
        for host in pair["hosts"]:
            best[host] = max(best.get(host, 0.0), pair["gib_s"])
    if len(best) < FEWEST_NODES:
        return []
    least = _least(list(best.values()))
    names = [host for host, rate in best.items() if rate < least]
    slow = [Slow((host,), best[host], median(best.values())) for host in names]
    others = [pair for pair in pairs if not set(pair["hosts"]) & set(names)]
    rates = [pair["gib_s"] for pair in others]
    least = _least(rates)
    return slow + [Slow(tuple(pair["hosts"]), pair["gib_s"], median(rates)) for pair in others if pair["gib_s"] < least]


def _least(values: list[float]) -> float:
    """What lies below is an outlier: by the spread of the values, and by a factor that means something."""
    logs = [math.log(max(number, TINY)) for number in values]
    middle = median(logs)
    spread = MAD_TO_SIGMA * median(abs(number - middle) for number in logs)
    return math.exp(middle - max(OUTLIER * spread, math.log(LEAST_FACTOR)))
