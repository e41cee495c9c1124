# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a run is, from what Ansible tells as it goes. Private to the collection.

Plain counting: names and times in, a state out. ``progress_text`` writes it as a line; the callback is a thin shell around both.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

# Nodes that must have finished a step before anything is said about those that have not.
GROUND = 3
# A step that is over sooner needs no estimate.
SHORTEST = 10.0


@dataclass
class Step:
    """One task, as it goes over the nodes."""

    order: int
    stage: str
    name: str
    # None where nobody can tell how many nodes will come to it, as in a rescue.
    total: int | None
    running: dict[str, float] = field(default_factory=dict)
    done: int = 0
    # How long it took on each node that was not skipped, in order.
    seconds: list[float] = field(default_factory=list)
    slots: int = 0

    def finish(self, host: str, now: float, skipped: bool) -> None:
        """A node is through with it."""
        began = self.running.pop(host, now)
        self.done += 1
        if not skipped:
            insort(self.seconds, now - began)

    def left(self, now: float) -> tuple[float, float] | None:
        """Seconds that this step will take yet, at least and at most; None where there is no ground to say so.

        The quicker and the slower of the nodes that finished stand for those that wait or are at it. Where all that run have
        taken longer than any that finished, nothing that was seen tells when they will end.
        """
        if self.total is None or len(self.seconds) < GROUND or not self.running:
            return None
        quick, slow = (self.seconds[len(self.seconds) * part // 4] for part in (1, 3))
        if min(now - began for began in self.running.values()) > self.seconds[-1]:
            return None
        working = len(self.seconds) / self.done
        waiting = max(0, self.total - self.done - len(self.running)) * working
        least, _whole = self._work(quick, waiting, now)
        _shared, most = self._work(slow, waiting, now)
        return (least, most) if most >= SHORTEST else None

    def _work(self, each: float, waiting: float, now: float) -> tuple[float, float]:
        """What is left where the work is shared out evenly, and where it comes in whole rounds, as with equal nodes."""
        rest = [max(0.0, each - (now - began)) for began in self.running.values()]
        slots = max(self.slots, 1)
        shared = (waiting * each + sum(rest)) / slots
        return max([shared, *rest]), ceil(waiting / slots) * each + max(rest)


class Progress:
    """The state of a run. Not safe for threads: who shares it locks it."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.stages: list[str] = []
        self.nodes: set[str] = set()
        # Nodes of the play, of this batch of it, and of the batches before.
        self.everyone = 0
        self.in_batch: set[str] = set()
        self.before = 0
        self.lost: set[str] = set()
        self.fetched = 0
        self.steps: dict[str, Step] = {}
        self.current: Step | None = None
        # Where each node is.
        self.at: dict[str, Step] = {}

    def begin_play(self, batch: Iterable[str], everyone: Iterable[str], stages: list[str]) -> None:
        """A play begins, or the next batch of it."""
        nodes, all_nodes = set(batch), set(everyone)
        self.before = len((self.nodes & all_nodes) - nodes) if len(nodes) < len(all_nodes) else 0
        self.nodes |= nodes
        self.in_batch, self.everyone = nodes, len(all_nodes)
        self.stages = stages
        self.steps, self.current, self.at = {}, None, {}

    @property
    def batch(self) -> int:
        """Nodes of this batch."""
        return len(self.in_batch)

    def begin_step(self, key: str, stage: str, name: str, total: int | None) -> None:
        """A task begins; nodes that are lost do not come to it."""
        if key in self.steps:
            return
        self.steps = {known: step for known, step in self.steps.items() if step.running}
        at_most = len(self.in_batch - self.lost)
        order = 1 + max((step.order for step in self.steps.values()), default=self.current.order if self.current else 0)
        self.current = Step(order, stage, name, total if total is None else min(total, at_most))
        self.steps[key] = self.current

    def start(self, key: str, host: str, now: float) -> None:
        """A node begins with a task. One that had failed was rescued."""
        self.lost.discard(host)
        step = self.steps.get(key)
        if step is not None:
            # Not of every task is there a result: some releases of Ansible tell of none for one that includes others.
            former = self.at.get(host)
            if former is not None and host in former.running:
                former.finish(host, now, skipped=True)
            self.at[host] = step
            step.running[host] = now
            step.slots = max(step.slots, len(step.running))

    def finish(self, key: str, host: str, now: float, skipped: bool = False, lost: bool = False) -> None:
        """A node is through with a task, well or not."""
        if lost:
            self.lost.add(host)
        step = self.steps.get(key)
        if step is not None:
            step.finish(host, now, skipped)

    def shown(self) -> Step | None:
        """The step that holds the others up: the earliest that some node is at, otherwise the last one."""
        busy = [step for step in self.steps.values() if step.running]
        return min(busy, key=lambda step: step.order) if busy else self.current
