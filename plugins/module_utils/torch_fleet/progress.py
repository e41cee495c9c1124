# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this rank is doing, told from moment to moment, and its end. Private to the collection."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from typing import Any

# In the order in which they come: who is behind is told by the place.
PHASES = ("import", "rendezvous", "connect", "pairs", "all_reduce", "halves", "pairs again", "training", "finish")
BEAT_SECONDS = 0.5


class Progress:
    """The step this rank is in, told to those who watch, and a watch over the time it takes."""

    def __init__(self, folder: str | None, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.limit: float | None = None
        self.step: dict[str, Any] = {}
        self.since = time.monotonic()
        self.answered = threading.Lock()
        self.results: dict[str, Any] = {}

    def enter(self, phase: str, index: int = 0, detail: str = "") -> None:
        """Say what comes now; ``at`` orders the steps, so that the one who is behind can be told."""
        self.step = {"at": [PHASES.index(phase), index], "phase": phase, "detail": detail}
        self.since = time.monotonic()
        self.put("step.json", self.step)

    def put(self, name: str, content: Any) -> None:
        if self.folder is None:
            return
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)
        os.replace(path + ".new", path)

    def watch(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            if self.folder is not None:
                self.put("beat.json", time.monotonic())
            waited = time.monotonic() - self.since
            if self.limit is not None and waited > self.limit:
                self.end({"kind": "waited", "text": f"nothing came for {self.limit:g} seconds"})
            time.sleep(BEAT_SECONDS)

    def end(self, error: dict[str, str] | None) -> None:
        """Leave the answer and the process, without waiting for threads of a library that never end."""
        with self.answered:
            answer = {"rank": self.rank, "error": error, "step": self.step, **self.results}
            if self.folder is None:
                sys.stdout.write(json.dumps(plain(answer), sort_keys=True) + "\n")
                sys.stdout.flush()
            self.put("answer.json", plain(answer))
            sys.stderr.flush()
            os._exit(0 if error is None else 1)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity, which it can't, become text.

    torch_verify has the same: each of the two scripts is whole by itself on the node.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
