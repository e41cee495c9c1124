# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks of one run: each is read or made once, however many nodes need it. Private to the collection."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import lock_file, locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses, without_credentials
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_difference import difference
from ansible_collections.gpufleet.stack.plugins.plugin_utils.locks import Lock, Wish

Row = dict[str, Any]
PROBE_SECONDS = 3


class RunLocks:
    """Where a run finds its locks.

    :param directory: the locks that are kept, on the controller.
    :param write: whether a new lock is kept there. Otherwise it lives as long as the run does.
    :param scratch: a directory that all processes of this run share and that goes away with it; Ansible works on every
        node in a process of its own, and what one of them found out the others need not find out again.
    :param renew: whether every lock is made anew, whatever lies there.
    """

    def __init__(self, directory: str, write: bool, scratch: str | None = None, renew: bool = False) -> None:
        self.directory = directory
        self.write = write
        self.scratch = scratch
        self.renew = renew
        self.addresses = Addresses()
        self._known: dict[str, Any] = {}

    def kept(self, wish: Wish) -> Lock | None:
        """The lock for this wish that lies in the directory, or that this run has made already; else None."""
        key = f"made {wish!r}"
        made = self._known.get(key)
        if not isinstance(made, Lock):
            made = self._made(wish)
        if made is not None:
            self._known[key] = made
            return made
        if self.renew:
            return None
        kept: Lock | None = self._once(f"kept {wish!r}", lambda: lock_file.kept(wish, self.directory))
        return kept

    def lock(self, wish: Wish) -> Lock:
        """The lock for this wish, made where there is none."""
        kept = self.kept(wish)
        if kept is None:
            kept = self._once(f"made {wish!r}", lambda: self._make(wish))
        return kept

    def uv(self, architecture: str, glibc: str | None, index_url: str | None = None) -> Row:
        """The wheel that brings uv to a node."""
        key = f"uv {architecture} {glibc} {index_url}"
        return dict(self._once(key, lambda: locks.uv_tool(self.lock(locks.uv_wish(architecture, glibc, index_url)))))

    def changed(self, lock: Lock) -> list[str] | None:
        """What is new in a lock that this run made in the place of another one, None where it did not."""
        note = self._note("changed", lock.path)
        if note is None:
            found: list[str] | None = self._known.get(f"changed {lock.path}")
            return found
        try:
            with open(note, encoding="utf-8") as stream:
                told: list[str] | None = json.load(stream)
                return told
        except FileNotFoundError:
            return None

    def reachable(self, url: str) -> bool:
        """Whether an index answers at all, asked once a run and waited for three seconds."""
        return bool(self._once(f"reach {url}", lambda: self._remembered(url)))

    def _made(self, wish: Wish) -> Lock | None:
        """What another process of this run made, in the scratch directory or in the place of what lay there."""
        if self.scratch is None:
            return None
        if not self.write:
            return lock_file.kept(wish, self.scratch)
        note = self._note("changed", wish.file(self.directory))
        return lock_file.kept(wish, self.directory) if note is not None and os.path.exists(note) else None

    def _make(self, wish: Wish) -> Lock:
        if not self.write:
            # A look is not worth the minute that uv gives an index to come back.
            for url in filter(None, (wish.index_url, *sorted(set(wish.indexes.values())))):
                self._must_answer(url)
        return self._in_place(wish)

    def _in_place(self, wish: Wish) -> Lock:
        """Make it where this run may write, one process at a time; in memory where that is nowhere."""
        place = self.directory if self.write else self.scratch
        if place is None:
            return self._new(wish, self.directory, write=False)
        with alone(place):
            # Another process may have been first.
            made = self._made(wish) or (None if self.renew else lock_file.kept(wish, place))
            return made or self._new(wish, place, write=True)

    def _new(self, wish: Wish, place: str, write: bool) -> Lock:
        former = lock_file.former(wish, self.directory)
        made = locks.make(wish, place, self.addresses, write=write)
        self._tell(wish.file(place), difference(former, made) if former is not None else None)
        return made

    def _tell(self, path: str, changes: list[str] | None) -> None:
        """For the other processes of this run, whose nodes get the same lock."""
        self._known[f"changed {path}"] = changes
        note = self._note("changed", path)
        if note is not None:
            with open(note, "w", encoding="utf-8") as stream:
                json.dump(changes, stream)

    def _note(self, kind: str, about: str) -> str | None:
        if self.scratch is None:
            return None
        return os.path.join(self.scratch, f"{kind}-{hashlib.sha256(about.encode()).hexdigest()[:16]}")

    def _must_answer(self, url: str) -> None:
        if not self.reachable(url):
            raise GpufleetError(
                "GF-INDEX-UNREACHABLE",
                f"the package index does not answer ({without_credentials(url)}): nothing within {PROBE_SECONDS} s",
                "no network, a proxy that is not set (https_proxy), a wrong address, or an index that is down",
                "try the address with curl from the controller; set pytorch_index_url to a mirror that answers",
            )

    def _remembered(self, url: str) -> bool:
        note = self._note("answers", url)
        if note is None or self.scratch is None:
            return answers(url)
        with alone(self.scratch):
            if not os.path.exists(note):
                found = answers(url)
                with open(note, "w", encoding="utf-8") as stream:
                    stream.write("yes" if found else "no")
            with open(note, encoding="utf-8") as stream:
                return stream.read() == "yes"

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        """The answer of the first time, its failure too: a dead index is not asked a thousand times."""
        if key not in self._known:
            try:
                self._known[key] = make()
            except GpufleetError as error:
                self._known[key] = error
        if isinstance(self._known[key], GpufleetError):
            raise self._known[key]
        return self._known[key]


class KeptLocks(RunLocks):
    """The locks that are there already: for what is not carried out no index is asked."""

    def reachable(self, url: str) -> bool:
        """Nobody asks, so nothing is known against it."""
        return True

    def _in_place(self, wish: Wish) -> Lock:
        raise GpufleetError("GF-INDEX-UNREACHABLE", "no lock is kept", "the index was not asked", "run without --tags")


def answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether something speaks HTTP at this address. In a thread, as looking up a name heeds no time limit."""
    said: list[bool] = []

    def ask() -> None:
        try:
            open_url(url, method="HEAD", timeout=seconds).close()
            said.append(True)
        except HTTPError as error:
            # Gateways answer for an index that is down.
            said.append(error.code not in (502, 503, 504))
        except Exception:
            said.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(said and said[0])


@contextmanager
def alone(directory: str) -> Iterator[None]:
    """Many nodes need the same lock at once; the first makes it, the others read it."""
    try:
        os.makedirs(directory, exist_ok=True)
        handle = open(os.path.join(directory, ".making"), "w", encoding="utf-8")  # noqa: SIM115 - closed by the with below
    except OSError as error:
        raise lock_file.unwritable(f"locks cannot be kept in {directory}", error) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
