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


class Measured(NamedTuple):
    """A link: the best of its exchanges, and the median."""

    hosts: tuple[str, ...]
    gib_s: float
    median: float

    @property
    def at_best(self) -> float:
        """What it may well do: a link whose own exchanges differ by a factor may be better by that factor."""
        return self.gib_s * self.gib_s / max(self.median, TINY)


def slow_ones(pairs: list[Row]) -> list[Slow]:
    """Nodes whose best link is slow, then links that are slow between good nodes.

    :param pairs: {hosts, rates (of every exchange)}.
    """
    measured = [Measured(tuple(pair["hosts"]), max(pair["rates"]), median(pair["rates"])) for pair in pairs]
    best: dict[str, Measured] = {}
    for link in measured:
        for host in link.hosts:
            best[host] = max(best.get(host, link), link, key=lambda one: one.gib_s)
    if len(best) < FEWEST_NODES:
        return []
    least, usual = _least([link.gib_s for link in best.values()])
    names = [host for host, link in best.items() if link.at_best < least]
    slow = [Slow((host,), best[host].gib_s, usual) for host in names]
    others = [link for link in measured if not set(link.hosts) & set(names)]
    if not others:
        return slow
    least, usual = _least([link.gib_s for link in others])
    return slow + [Slow(link.hosts, link.gib_s, usual) for link in others if link.at_best < least]


def _least(values: list[float]) -> tuple[float, float]:
    """What lies below is an outlier, by the spread of the values and by a factor that means something; and the median."""
    logs = [math.log(max(number, TINY)) for number in values]
    middle = median(logs)
    spread = MAD_TO_SIGMA * median(abs(number - middle) for number in logs)
    return math.exp(middle - max(OUTLIER * spread, math.log(LEAST_FACTOR))), math.exp(middle)
