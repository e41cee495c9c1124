# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a run as one line, and when to write it. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import plain
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress import Progress, Step

# Nodes that are waited for are named where there are no more than these.
STRAGGLERS = 3
# Off a terminal: after so many lines the time between two of them doubles, up to so many times the first.
LINES_OF_A_PACE = 5
SLOWEST = 16
BETWEEN = " | "


def segments(progress: Progress, now: float) -> list[tuple[int, str]]:
    """The parts of the line with their weight: what weighs least goes first where the terminal is narrow."""
    found = [(9, clock(now - progress.began))]
    step = progress.shown()
    if step is not None:
        found += _where(progress, step)
        found += _counts(progress, step)
    if progress.fetched:
        found.append((4, f"{size(progress.fetched)} transferred"))
    if step is not None:
        found += _left(progress, step, now)
    return found


def _where(progress: Progress, step: Step) -> list[tuple[int, str]]:
    place = ""
    if step.stage in progress.stages:
        place = f" {progress.stages.index(step.stage) + 1}/{len(progress.stages)}"
    stage = [(8, f"{plain(step.stage)}{place}")] if step.stage else []
    return [*stage, (2, plain(step.name))]


def _counts(progress: Progress, step: Step) -> list[tuple[int, str]]:
    if progress.everyone < 2:
        return []
    of = "" if step.total is None else f" of {step.total}"
    counts = f"{step.done}{of} done, {len(step.running)} running"
    if progress.lost:
        counts += f", {len(progress.lost)} failed"
    if progress.batch == progress.everyone:
        return [(7, counts)]
    first = progress.before + 1
    return [(7, counts), (3, f"nodes {first} to {progress.before + progress.batch} of {progress.everyone}")]


def _left(progress: Progress, step: Step, now: float) -> list[tuple[int, str]]:
    span = step.left(now)
    if span is not None:
        return [(5, f"step: {span_text(*span)} more")]
    last = step.total is not None and step.done + len(step.running) >= step.total and step.done > 0
    if last and 0 < len(step.running) <= STRAGGLERS and progress.everyone > 1:
        return [(6, f"waiting for {plain(fold(step.running))}")]
    return []


def line(progress: Progress, now: float, width: int | None = None) -> str:
    """Everything on one line, with as little left out as the width asks for.

    :param width: of the terminal; None is a line among others, which says whose it is.
    """
    found = segments(progress, now)
    while width is not None and len(found) > 1 and len(_joined(found)) > width:
        found.remove(min(found))
    return "gpufleet " + _joined(found) if width is None else _joined(found)[: max(width, 0)]


def _joined(found: list[tuple[int, str]]) -> str:
    return BETWEEN.join(text for _weight, text in found)


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def duration(seconds: float) -> str:
    """As exact as an estimate can be: under 1 min, 7 min, 25 min, 2 h."""
    minutes = seconds / 60
    if minutes < 1:
        return "under 1 min"
    if minutes < 10:
        return f"{round(minutes)} min"
    if minutes < 90:
        return f"{5 * round(minutes / 5)} min"
    return f"{round(minutes / 60)} h"


def span_text(least: float, most: float) -> str:
    """4 to 5 min, up to 2 min, or 20 min where both are the same."""
    low, high = duration(least), duration(most)
    if low == high:
        return high
    if low.startswith("under"):
        return f"up to {high}"
    (number, unit), (_number, other) = low.split(), high.split()
    return f"{number if unit == other else low} to {high}"


def size(count: int) -> str:
    """Decimal units, as the plan has them."""
    for unit, least in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count / 1000:.0f} kB"


class Pace:
    """When a line is due off a terminal: often at first, seldom in a run that takes hours."""

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self.count = 0
        self.due = now + seconds

    def ask(self, now: float) -> bool:
        """Whether a line is due now; asked with yes, it is taken as written."""
        if now < self.due:
            return False
        self.count += 1
        factor = min(2 ** (self.count // LINES_OF_A_PACE), SLOWEST)
        self.due = now + self.seconds * factor
        return True
