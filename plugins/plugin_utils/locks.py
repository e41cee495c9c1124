# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks: the exact wheels of an environment, resolved once on the controller. Private to the collection.

As long as what a lock was made for is what is wanted, the file is used as it is and no index is asked.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import lock_file, lock_resolve, lock_wheels
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses
from ansible_collections.gpufleet.stack.plugins.plugin_utils.controller_uv import uv_path, uv_version
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_file import Lock, Wish

# uv's wheels fit any Python; a fixed one makes the lock the same whatever the controller runs.
UV_PYTHON = "3.11"

__all__ = ["Lock", "Wish", "ensure_lock", "make", "uv_path", "uv_tool", "uv_version", "uv_wish"]


def ensure_lock(
    requirements: list[str],
    python: str,
    architecture: str,
    glibc: str | None,
    lock_directory: str,
    name: str,
    index_url: str | None = None,
    indexes: dict[str, str] | None = None,
    write: bool = True,
) -> Lock:
    """The lock for a wish: the one at hand, else a new one. The parameters are those of ``Wish``, and:

    :param lock_directory: where locks are kept on the controller.
    :param write: False leaves the directory as it is; the lock is then made in memory only.
    :raises GpufleetError: GF-UV-MISSING, GF-INDEX-UNREACHABLE, GF-RESOLVE, GF-LOCK-INVALID, GF-LOCK-PLATFORM.
    """
    wish = Wish(requirements, python, architecture, glibc, name, index_url, indexes or {})
    kept = lock_file.kept(wish, lock_directory)
    return kept if kept is not None else make(wish, lock_directory, write=write)


def make(wish: Wish, directory: str, addresses: Addresses | None = None, write: bool = True) -> Lock:
    """A new lock for this wish, whatever lies there."""
    known = addresses or Addresses()
    for url in (wish.index_url or "", *wish.indexes.values()):
        known.learn(url)
    packages = lock_resolve.resolve(wish, known)
    wheels = lock_wheels.choose(packages, wish.python, wish.architecture, wish.glibc)
    lock_wheels.fill_in_sizes(wheels, known)
    path, text = wish.file(directory), lock_file.render(wish, wheels)
    if write:
        lock_file.write(path, text)
    return lock_file.parse(path, text)


def uv_wish(architecture: str, glibc: str | None, index_url: str | None = None) -> Wish:
    """The lock of the wheel that brings the controller's uv to a node."""
    version = uv_version()
    return Wish([f"uv=={version}"], UV_PYTHON, architecture, glibc, f"uv-{version}", index_url)


def uv_tool(lock: Lock) -> dict[str, Any]:
    """``{version, url, sha256, size}`` of uv's wheel."""
    return {key: lock.wheels[0][key] for key in ("version", "url", "sha256", "size")}
