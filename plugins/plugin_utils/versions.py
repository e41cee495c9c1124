# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing versions of drivers, CUDA, Python and torch. Private to the collection."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterable


@functools.lru_cache(maxsize=4096)
def key(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: ``535.309.01`` is (535, 309, 1); a suffix such as ``+cu118`` is left out."""
    public = version.split("+", 1)[0]
    return tuple(int(part) for part in re.findall(r"\d+", public))


def at_least(version: str, minimum: str) -> bool:
    """Whether ``version`` is ``minimum`` or newer."""
    return key(version) >= key(minimum)


def in_series(version: str, series: str) -> bool:
    """Whether ``version`` is ``series`` itself or belongs to it: 2.0.1 is in 2.0, 2.10.0 is not in 2.1."""
    wanted = key(series)
    return key(version)[: len(wanted)] == wanted


def nearest_first(versions: Iterable[str], wanted: str) -> list[str]:
    """The versions by their distance from ``wanted`` in the sorted list of them; of two as near, the newer first."""
    ordered = sorted(set(versions), key=key)
    place = bisect.bisect_left([key(version) for version in ordered], key(wanted))
    return sorted(ordered, key=lambda version: (abs(ordered.index(version) - place + 0.25), version))


def looks_like_version(text: str) -> bool:
    """Whether the text is numbers with dots, as every version that can be wished for is."""
    return re.fullmatch(r"\d+(\.\d+)*", text) is not None
