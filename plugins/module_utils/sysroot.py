# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of a node that stands below a directory of another machine. Private to the collection.

Links of a recorded node name targets of that node: followed by the operating system they would leave the record.
"""

from __future__ import annotations

import fnmatch
import os


class Sysroot:
    """Reads the node below ``root``; every path given and answered is absolute, as the node itself sees it."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._live = os.path.abspath(root) == "/"

    def below(self, path: str) -> str:
        """The path with the root before it, nothing followed."""
        return os.path.join(self.root, path.lstrip("/"))

    def place(self, path: str) -> str:
        """Where this machine finds what stands at the path, links followed."""
        # Of a node that runs here the operating system follows links itself, at a tenth of the time.
        return path if self._live else self.below(self.real(path))

    def real(self, path: str) -> str:
        """The path with all links followed, as ``os.path.realpath`` would on the node."""
        done, todo, steps = "/", [part for part in path.split("/") if part], 0
        while todo:
            part = todo.pop(0)
            if part in (".", ".."):
                done = os.path.dirname(done) if part == ".." else done
                continue
            step = os.path.join(done, part)
            try:
                target = os.readlink(self.below(step))
            except OSError:
                done = step  # no link, or nothing at all: taken as it is, as realpath does
                continue
            steps += 1
            if steps > 40:
                return step  # links that go in circles
            done = "/" if target.startswith("/") else done
            todo = [piece for piece in target.split("/") if piece] + todo
        return done

    def exists(self, path: str) -> bool:
        """Whether something stands there, links followed."""
        return os.path.exists(self.place(path))

    def is_dir(self, path: str) -> bool:
        """Whether a directory stands there, links followed."""
        return os.path.isdir(self.place(path))

    def listing(self, path: str, pattern: str = "*") -> list[str]:
        """The sorted paths in a directory whose names match; empty where there is none."""
        try:
            names = os.listdir(self.place(path))
        except OSError:
            return []
        if pattern != "*":
            names = fnmatch.filter(names, pattern)
        return [os.path.join(path, name) for name in sorted(names)]

    def text(self, path: str, limit: int = 1024 * 1024) -> str | None:
        """The text of a file, or None where it can't be read."""
        try:
            with open(self.place(path), encoding="utf-8", errors="replace") as stream:
                return stream.read(limit)
        except OSError:
            return None
