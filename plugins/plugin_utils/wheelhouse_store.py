# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's wheelhouse: each file crosses the site's uplink once, whatever the number of nodes. Private to the collection."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import download, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.managed_python import PUBLISHED
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses

Row = dict[str, Any]
CONNECTIONS = 4


class Store:
    """A directory of files by SHA-256 and name.

    :param directory: on the controller.
    :param scratch: a directory that all processes of this run share and that goes away with it. What one of them has looked at
        the others need not read again: Ansible works on every node in a process of its own.
    :param offline: nothing is fetched.
    :param signer: whose signature an offline store has to bear; empty takes any.
    """

    def __init__(self, directory: str, scratch: str, offline: bool = False, signer: str = "") -> None:
        self.directory = os.path.abspath(os.path.expanduser(directory))
        self.scratch = scratch
        self.offline = offline
        self.signer = signer

    def path(self, file: Row) -> str:
        """Where a file lies, or will lie."""
        return wheelhouse.place(self.directory, file["name"], file["sha256"])

    def absent(self, files: list[Row]) -> list[Row]:
        """Those that are not there, by name and size alone: for a look, which reads no gigabytes."""
        return [each for each in files if not self._there(each)]

    def bring(self, files: list[Row], indexes: list[str], mirror: str = "") -> int:
        """Have all files at hand, checked; one process at a time.

        :param indexes: addresses of package indexes; one with a password lends it to the files of the same server.
        :param mirror: the site's mirror of the builds of Python, in place of where these are published.
        :returns: how many bytes were fetched.
        :raises GpufleetError: GF-WHEELHOUSE-INCOMPLETE, GF-WHEELHOUSE-UNWRITABLE, and those of ``download.fetch``.
        """
        with self.alone("store"):
            unknown = [each for each in files if not os.path.exists(self._note(each))]
            missing = wheelhouse.lacking(self.directory, unknown)
            if missing:
                self._fetch(missing, indexes, mirror)
            for each in unknown:
                self._write_note(each)
        return sum(each["size"] or os.path.getsize(self.path(each)) for each in missing)

    def _fetch(self, missing: list[Row], indexes: list[str], mirror: str) -> None:
        if self.offline:
            raise incomplete(self.directory, missing)
        with self._writing(), ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
            # list(): the first failure is raised, the others have run to their end and are kept.
            list(pool.map(lambda each: self._fetch_one(each, indexes, mirror), missing))

    def _fetch_one(self, file: Row, indexes: list[str], mirror: str) -> None:
        url = at_mirror(with_password(file["url"], indexes), mirror)
        download.fetch(url, self.path(file), file["sha256"], file["size"])
        os.chmod(self.path(file), 0o644)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Two runs at once share the store: the second waits for the first, and then finds the files there."""
        try:
            os.makedirs(self.directory, exist_ok=True)
            with open(os.path.join(self.directory, ".fetching"), "w", encoding="ascii") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise GpufleetError(
                "GF-WHEELHOUSE-UNWRITABLE",
                f"{error.filename or self.directory} cannot be written: {error.strerror}",
                "the directory of wheels on the controller is not writable, or its disk is full",
                "set gpufleet_wheelhouse_directory to a directory with room that you can write to",
            ) from error

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """One process of this run at a time."""
        with open(os.path.join(self.scratch, f"wheelhouse-{what}"), "w", encoding="ascii") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def first(self, what: str) -> bool:
        """True for the first process of this run that asks this, and no other."""
        try:
            os.close(os.open(self._claim(what), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True

    def forget(self, what: str) -> None:
        """Have the next process that asks be the first."""
        os.unlink(self._claim(what))

    def _claim(self, what: str) -> str:
        return os.path.join(self.scratch, f"first-{_digest(what)}")

    def carried(self, where: str, files: list[Row]) -> list[Row]:
        """Those that this run has not yet carried to a place that nodes share."""
        return [each for each in files if not os.path.exists(self._note(each, where))]

    def carry(self, where: str, files: list[Row]) -> None:
        """Note that they are there now."""
        for each in files:
            self._write_note(each, where)

    def _there(self, file: Row) -> bool:
        try:
            size = os.path.getsize(self.path(file))
        except OSError:
            return False
        return file["size"] is None or size == file["size"]

    def _note(self, file: Row, where: str = "") -> str:
        return os.path.join(self.scratch, "has-" + _digest(f"{self.directory} {where} {file['sha256']}"))

    def _write_note(self, file: Row, where: str = "") -> None:
        with open(self._note(file, where), "w", encoding="ascii"):
            pass


def incomplete(directory: str, missing: list[Row]) -> GpufleetError:
    """What an offline run says where the directory lacks a file."""
    names = ", ".join(each["name"] for each in missing[:5]) + (", …" if len(missing) > 5 else "")
    return GpufleetError(
        "GF-WHEELHOUSE-INCOMPLETE",
        f"{directory} lacks {len(missing)} files that this plan needs: {names}",
        "it was made for other nodes or wishes, or not copied in full",
        "make it anew with playbooks/wheelhouse.yml on a connected machine, from these nodes' facts and this inventory",
    )


def at_mirror(url: str, mirror: str) -> str:
    """The address of a build of Python at the site's mirror."""
    return mirror.rstrip("/") + url[len(PUBLISHED) :] if mirror and url.startswith(PUBLISHED + "/") else url


def with_password(url: str, indexes: list[str]) -> str:
    """The address with the user and password that an index on the same server is given with; locks hold none."""
    known = Addresses()
    for index in indexes:
        known.learn(index)
    return known.whole(url)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
