# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line at the bottom of a terminal, below what else is written there. Private to the collection."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

CLEAR = "\r\x1b[K"
# ansible-runner, and AWX with it, keeps every line that is written.
READ_BY_RUNNER = "AWX_ISOLATED_DATA_DIR"


def on_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be drawn anew."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and READ_BY_RUNNER not in os.environ


class Screen:
    """Draws the line, and takes it away before Ansible writes anything else."""

    def __init__(self, display: Any) -> None:
        self._drawn = ""
        # Ansible forks with this object in its memory; the processes of tasks leave the terminal alone.
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._display = display
        self._write = display.display
        display.display = self._pass_on

    def _pass_on(self, *arguments: Any, **options: Any) -> Any:
        if os.getpid() != self._pid:
            return self._write(*arguments, **options)
        with self._lock:
            self.erase()
            return self._write(*arguments, **options)

    def width(self) -> int:
        """One column less than there are: a full line would wrap, and could not be taken away."""
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            columns = 0
        return (columns or 80) - 1

    def draw(self, text: str) -> None:
        """Put the text in the place of the former one."""
        with self._lock:
            if text != self._drawn:
                sys.stderr.write(CLEAR + text)
                sys.stderr.flush()
                self._drawn = text

    def erase(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._drawn and os.getpid() == self._pid:
                sys.stderr.write(CLEAR)
                sys.stderr.flush()
                self._drawn = ""

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.erase()
        self._display.display = self._write
