# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of a record, gathered by its rules, with the links of the node kept as links. Private to the collection."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Union

from ansible_collections.gpufleet.stack.plugins.module_utils import record_texts
from ansible_collections.gpufleet.stack.plugins.module_utils.record_rules import Rule
from ansible_collections.gpufleet.stack.plugins.module_utils.record_scrub import Scrubber
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_PIECE = 64 * 1024
_LARGEST = 64 * 1024 * 1024
_MOST_LINKS = 40

# What stands at a path: a file's content, a link's target, or None for a directory.
Entry = Union[bytes, str, None]


def matching(node: Sysroot, pattern: str) -> Iterator[str]:
    """The paths of the node that a pattern means, links in between followed as the node would."""
    paths = [""]
    for part in pattern.strip("/").split("/"):
        if re.search(r"[*?[]", part):
            paths = [found for path in paths for found in node.listing(path or "/", part)]
        else:
            paths = [f"{path}/{part}" for path in paths]
    for path in paths:
        if os.path.lexists(node.below(os.path.join(node.real(os.path.dirname(path)), os.path.basename(path)))):
            yield path


class Tree:
    """Collects what a record holds: ``entries`` are paths without their first slash."""

    def __init__(self, node: Sysroot, scrubber: Scrubber) -> None:
        self._node = node
        self._scrubber = scrubber
        self.entries: dict[str, Entry] = {}

    def _put(self, path: str, entry: Entry) -> None:
        name = self._scrubber.text(path.lstrip("/"))
        if name and name not in self.entries:
            self.entries[name] = entry

    def put_text(self, path: str, text: str) -> None:
        """A file that is not on the node: what else is known of it."""
        self.entries[path.lstrip("/")] = text.encode()

    def _follow(self, path: str, last: bool) -> str:
        """The real path; every link on the way is recorded, the last part's only where ``last`` is set."""
        done, todo, links = "", [part for part in path.split("/") if part], 0
        while todo:
            part = todo.pop(0)
            if part in (".", ".."):
                done = os.path.dirname(done) if part == ".." else done
                continue
            step = f"{done}/{part}"
            try:
                target = os.readlink(self._node.below(step)) if todo or last else ""
            except OSError:
                target = ""
            links += bool(target)
            if not target or links > _MOST_LINKS:
                done = step
                continue
            self._put(step, self._scrubber.text(target))
            done = "" if target.startswith("/") else done
            todo = [piece for piece in target.split("/") if piece] + todo
        return done

    def add(self, rule: Rule, path: str) -> None:
        """Records one path as its rule says; what can't be read is left out."""
        real = self._follow(path, last=rule.kind != "link")
        below = self._node.below(real)
        if rule.kind == "link":
            if os.path.islink(below):
                self._put(real, self._scrubber.text(os.readlink(below)))
        elif rule.kind == "directory":
            if os.path.isdir(below):
                self._put(real, None)
        elif os.path.isdir(below) or not os.path.lexists(below):
            return  # it leads nowhere, which its links alone tell
        elif rule.stub is not None:
            self._put(real, rule.stub(below))
        else:
            content = self._content(below)
            if content is not None and rule.kind == "cache":
                self._put(real, record_texts.loader(content, self._scrubber.text))
            elif content is not None and rule.treat is not None:
                self._put(real, self._scrubbed(rule.treat(content)))

    def _scrubbed(self, content: bytes) -> bytes:
        try:
            return self._scrubber.text(content.decode()).encode()
        except UnicodeDecodeError:
            return content  # no text: a value of the firmware's

    @staticmethod
    def _content(path: str) -> bytes | None:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return b""  # a device or a pipe would block or never end
            with open(path, "rb") as stream:
                # In pieces: a file of the kernel's settings refuses to be read in one that is too large.
                pieces = iter(partial(stream.read, _PIECE), b"")
                return b"".join(islice(pieces, _LARGEST // _PIECE))
        except OSError:
            return None
