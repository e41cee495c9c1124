# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of many measured values is worse than the others. Private to the collection.

Median and MAD describe the others: half of the values may be wrong without moving them. How far off is too far follows
from how many values there are and how many are tested in the run, not from a threshold that somebody chose.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, median

# One run in a hundred over nothing but healthy nodes names one of them, however many values it tests.
LEVEL = 0.01
# Of fewer values the middle half is two of them, which says nothing about how far they spread.
FEWEST = 5
# Of a normal distribution the MAD is this quantile times the standard deviation.
MAD_OF_SIGMA = NormalDist().inv_cdf(0.75)
# Where more than half of the values are the same: the share of them that is looked at then, and its quantile.
WIDER = 0.9
WIDER_OF_SIGMA = NormalDist().inv_cdf((1 + WIDER) / 2)
# What the MAD knows of a spread, measured against the standard deviation (its efficiency for normal values).
EFFICIENCY = 0.37
# No figure is taken to be truer than three digits: values that differ in the fourth are the same.
DIGITS = 3


def worse(values: Sequence[float], better: str, tests: int) -> list[int]:
    """The places of the values that are outliers on the worse side; none where there are too few to tell.

    :param better: ``higher`` or ``lower``.
    :param tests: how many values the whole run tests, these among them.
    """
    if len(values) < FEWEST:
        return []
    middle = median(values)
    spread = sigma([value - middle for value in values], step(values, middle))
    most = bound(degrees(len(values)), tests) * spread
    return [place for place, value in enumerate(values) if shortfall(value, middle, better) > most]


def shortfall(value: float, middle: float, better: str) -> float:
    """How much worse than the middle a value is; negative where it is better."""
    return middle - value if better == "higher" else value - middle


def sigma(deviations: Sequence[float], smallest: float) -> float:
    """The standard deviation of most values, and of what rounding to steps of ``smallest`` adds to it.

    :param deviations: of each value from where it was expected.
    """
    sizes = sorted(map(abs, deviations))
    found = median(sizes) / MAD_OF_SIGMA
    if not found:
        # The worst one is left out: where all others are the same, it alone would say how far they spread.
        found = sizes[min(len(sizes) - 1, math.ceil(WIDER * len(sizes))) - 1] / WIDER_OF_SIGMA
    return math.hypot(found, smallest / math.sqrt(12))


def step(values: Sequence[float], middle: float) -> float:
    """The smallest difference that counts: a unit of the middle's third digit, or the steps in which the values come."""
    third = 10.0 ** (math.floor(math.log10(abs(middle))) + 1 - DIGITS) if middle else 0.0
    levels = sorted(set(values))
    # Of two levels one may be the outlier, so that their distance says nothing.
    between = min((high - low for low, high in itertools.pairwise(levels)), default=0.0) if len(levels) > 2 else 0.0
    return max(third, between, _last_digit(levels))


def _last_digit(values: Iterable[float]) -> float:
    """The unit of the last digit that any of the values has; whole numbers have ones."""
    return float(10.0 ** -max(map(_digits, values)))


def _digits(value: float) -> int:
    """How many digits a value has behind the point."""
    number, _e, exponent = repr(value).partition("e")
    return max(0, len(number.partition(".")[2].rstrip("0")) - int(exponent or 0))


def degrees(count: int) -> int:
    """The degrees of freedom of a spread that was found from the MAD of so many values."""
    return max(1, math.ceil(EFFICIENCY * count))


@functools.lru_cache(maxsize=None)
def bound(freedom: int, tests: int) -> float:
    """How many standard deviations off a value has to be, for a spread that is itself uncertain: a quantile of Student's t.

    Of a few values the MAD is often far too small, so that with the normal quantile every tenth group of eight healthy
    values would have an outlier; with many values both are the same.
    """
    chance = 1 - (1 - LEVEL) ** (1 / tests)
    low, high = 0.0, 1.0
    while _beyond(high, freedom) > chance:
        low, high = high, high * 2
    for _step in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, freedom) > chance else (low, middle)
    return high


def _beyond(value: float, freedom: int) -> float:
    """The chance that Student's t is above a value: a finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7)."""
    angle = math.atan2(value, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    share = sine * total
    if odd:
        share = 2 / math.pi * (angle + (share if freedom > 1 else 0.0))
    return (1 - share) / 2
