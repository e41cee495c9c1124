# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks of one run: each is read or made once, however many nodes need it. Private to the collection."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks

Row = dict[str, Any]
PROBE_SECONDS = 3


class RunLocks:
    """Where a run finds its locks.

    :param directory: the locks that are kept, on the controller.
    :param write: whether a new lock is kept there. Otherwise it lives as long as the run does.
    :param scratch: a directory that all processes of this run share and that goes away with it; Ansible works on every
        node in a process of its own, and what one of them found out the others need not find out again.
    """

    def __init__(self, directory: str, write: bool, scratch: str | None = None) -> None:
        self.directory = directory
        self.write = write
        self.scratch = scratch
        self._known: dict[str, Any] = {}

    def kept(self, **wish: Any) -> locks.Lock | None:
        """The lock for these wishes that lies in the directory, or that this run has made already; else None."""
        for directory in filter(None, (self.directory, None if self.write else self.scratch)):
            found: locks.Lock | None = self._once(f"kept {directory} {_key(wish)}", partial(_read, directory, **wish))
            if found is not None:
                return found
        return None

    def lock(self, **wish: Any) -> locks.Lock:
        """The lock for these wishes, made where there is none."""
        kept = self.kept(**wish)
        return kept if kept is not None else self._once(f"made {_key(wish)}", lambda: self._make(wish))

    def uv(self, architecture: str, glibc: str | None, index_url: str | None = None) -> Row:
        """The wheel that brings uv to a node."""
        wish: dict[str, Any] = {"architecture": architecture, "glibc": glibc, "index_url": index_url}

        def make() -> Row:
            name = f"uv-{locks.uv_version()}"
            requirement = name.replace("-", "==", 1)
            known = _read(self.directory, requirements=[requirement], name=name, python="3.11", **wish)
            if known is not None:
                return {key: known.wheels[0][key] for key in ("version", "url", "sha256", "size")}
            return dict(
                self._in_place(
                    lambda place, write: locks.uv_tool(
                        architecture=architecture, glibc=glibc, lock_directory=place, index_url=index_url, write=write
                    )
                )
            )

        return dict(self._once(f"uv {_key(wish)}", make))

    def reachable(self, url: str) -> bool:
        """Whether an index answers at all, asked once a run and waited for three seconds."""
        return bool(self._once(f"reach {url}", lambda: self._remembered(url)))

    def _make(self, wish: Row) -> locks.Lock:
        if not self.write:
            # A look is not worth the minute that uv gives an index to come back.
            for url in filter(None, (wish.get("index_url"), wish.get("extra_index_url"))):
                self._must_answer(url)
        made: locks.Lock = self._in_place(
            lambda place, write: locks.ensure_lock(lock_directory=place, write=write, **wish)
        )
        return made

    def _in_place(self, make: Callable[[str, bool], Any]) -> Any:
        """Make something where this run may write, one process at a time; in memory where that is nowhere."""
        place = self.directory if self.write else self.scratch
        if place is None:
            return make(self.directory, False)
        with alone(place):
            return make(place, True)

    def _must_answer(self, url: str) -> None:
        if not self.reachable(url):
            raise GpufleetError(
                "GF-INDEX-UNREACHABLE",
                f"the package index does not answer ({locks.without_credentials(url)}): nothing within {PROBE_SECONDS} s",
                "no network, a proxy that is not set (https_proxy), a wrong address, or an index that is down",
                "try the address with curl from the controller; set pytorch_index_url to a mirror that answers",
            )

    def _remembered(self, url: str) -> bool:
        if self.scratch is None:
            return answers(url)
        note = os.path.join(self.scratch, f"answers-{hashlib.sha256(url.encode()).hexdigest()[:16]}")
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

    def _in_place(self, make: Callable[[str, bool], Any]) -> Any:
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
        raise GpufleetError(
            "GF-LOCK-INVALID",
            f"locks cannot be kept in {directory}: {error.strerror}",
            "the directory of locks on the controller is not writable, or its disk is full",
            "set gpufleet_lock_directory to a directory that you can write to",
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _key(wish: Row) -> str:
    return repr(sorted(wish.items()))


def _read(
    directory: str,
    *,
    requirements: list[str],
    python: str,
    architecture: str,
    glibc: str | None,
    name: str,
    index_url: str | None = None,
    extra_index_url: str | None = None,
) -> locks.Lock | None:
    """The lock in this directory, where it was made for just this; no index is asked."""
    path = os.path.join(directory, locks._file_name(name, python, architecture, glibc))
    text = locks._read(path)
    made_for = {
        "architecture": architecture,
        "extra_index": locks.without_credentials(extra_index_url or ""),
        "glibc": glibc,
        "index": locks.without_credentials(index_url or ""),
        "python": python,
        "requirements": sorted(requirements),
    }
    return locks._lock(path, text) if text is not None and locks._made_for(path, text) == made_for else None
