# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks of a run without internet: those that the wheelhouse brought, and no others. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import lock_file, locks, versions, wheelhouse_seal
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import KeptLocks, RunLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.locks import Lock, Wish
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

Row = dict[str, Any]
# The lock of uv itself, with its version.
UV_LOCK = re.compile(r"pylock\.uv-([0-9_]+)-")


def run_locks(directory: str, write: bool, scratch: str, store: Store, renew: bool = False) -> RunLocks:
    """The locks of a run: with a store that is all there is, those that came with it.

    :raises GpufleetError: where that store is not what was sealed; looked at once a run.
    """
    if not store.offline:
        return RunLocks(directory, write=write, scratch=scratch, renew=renew)
    with store.alone("seal"):
        if store.first("seal"):
            try:
                wheelhouse_seal.verify(store.directory, store.signer)
            except GpufleetError:
                store.forget("seal")
                raise
    return OfflineLocks(os.path.join(store.directory, wheelhouse_seal.LOCKS), write=False, scratch=scratch)


class OfflineLocks(KeptLocks):
    """No index is asked; a lock that is not there is a conflict, not an unknown size."""

    def uv(self, architecture: str, glibc: str | None, index_url: str | None = None) -> Row:
        """The uv that the wheelhouse has; the controller needs none of its own."""
        ending = Wish([], locks.UV_PYTHON, architecture, glibc, "uv").file("").partition("uv")[2]
        packed = [match for name in _names(self.directory) if (match := UV_LOCK.match(name)) and name.endswith(ending)]
        if not packed:
            raise _missing(self.directory, "uv")
        path = os.path.join(self.directory, max(packed, key=lambda match: versions.key(match[1])).string)
        return locks.uv_tool(lock_file.parse(path, lock_file.read(path) or ""))

    def _in_place(self, wish: Wish) -> Lock:
        raise _missing(self.directory, "these wishes")


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _missing(directory: str, what: str) -> GpufleetError:
    return GpufleetError(
        "GF-OFFLINE-LOCK",
        f"{directory} has no lock for {what} on this node's platform",
        "the wheelhouse was made for other nodes, or the wishes have changed since",
        "make it anew with playbooks/wheelhouse.yml on a connected machine, from these nodes' facts and this inventory",
    )
