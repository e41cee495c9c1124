# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of nodes: their order, and many of them on few columns (``gpu[01-12,14]``). Private to the collection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

# The last number of the first label: gpu01.example.org is numbered by 01, node3-gpu07 by 07.
NUMBERED = re.compile(r"^([^.]*?)(\d+)((?:[^.\d]*)(?:\..*)?)$", re.DOTALL)
ADDRESS = re.compile(r"^(.*[.:])(\d+)()$", re.DOTALL)
# More digits than this are no count of nodes but a serial number; they are listed, not computed with.
MOST_DIGITS = 9


def natural(name: str) -> list[tuple[int, int, str]]:
    """The key that sorts node2 before node10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), part) if part.isdecimal() and len(part) <= MOST_DIGITS else (1, 0, part) for part in parts]


def fold(names: Iterable[str]) -> str:
    """All names on one line, numbers in a row as ranges."""
    return ", ".join(folded(names))


def folded(names: Iterable[str]) -> list[str]:
    """One entry for each series of names, in natural order; what has no number stands alone."""
    series: dict[tuple[str, str], list[str]] = {}
    order: list[tuple[str, str]] = []
    for name in sorted(set(names), key=natural):
        head, digits, tail = _split(name)
        if (head, tail) not in series:
            order.append((head, tail))
        series.setdefault((head, tail), []).append(digits)
    return [entry for head, tail in order for entry in _entries(head, series[head, tail], tail)]


def _split(name: str) -> tuple[str, str, str]:
    pattern = ADDRESS if re.fullmatch(r"[\d.]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:]+", name) else NUMBERED
    match = pattern.match(name)
    if match is None or len(match.group(2)) > MOST_DIGITS:
        return name, "", ""
    return match.group(1), match.group(2), match.group(3)


def _entries(head: str, numbers: list[str], tail: str) -> list[str]:
    if "" in numbers or len(numbers) == 1:
        return [f"{head}{digits}{tail}" for digits in numbers]
    # 09 and 10 are one series because of 09's zero; 9 and 10 are one because neither has any.
    padded = {len(digits) for digits in numbers if digits.startswith("0") and len(digits) > 1}
    by_width: dict[int, list[int]] = {}
    for digits in numbers:
        by_width.setdefault(len(digits) if len(digits) in padded else 0, []).append(int(digits))
    ranges = ",".join(_ranges(found, width) for width, found in sorted(by_width.items(), reverse=True))
    return [f"{head}[{ranges}]{tail}"]


def _ranges(numbers: list[int], width: int) -> str:
    parts = []
    ordered = sorted(numbers)
    for _step, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]):
        values = [value for _place, value in run]
        ends = [values[0]] if len(values) == 1 else [values[0], values[-1]]
        parts.append("-".join(f"{value:0{width}d}" if width else str(value) for value in ends))
    return ",".join(parts)
