# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals to remove what processes use: directories, and the GPUs' driver. Private to the collection."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import gpu
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.process_use import users_of


def refuse_trees_in_use(directories: Iterable[str], proc: str = "/proc") -> None:
    """Stop before anything is removed where a process works from one of the directories.

    :raises GpufleetError: GF-ENVIRONMENT-IN-USE, with every directory and process by name.
    """
    users = users_of(directories, proc)
    if users:
        named = "; ".join(f"{directory} by {', '.join(processes)}" for directory, processes in sorted(users.items()))
        raise GpufleetError(
            "GF-ENVIRONMENT-IN-USE",
            f"in use: {named}",
            "jobs or shells on the node run from it",
            "wait for them to end or drain the node, then run remove.yml again; nothing was changed",
        )


def refuse_busy_gpus(gpu_sysroot: str) -> None:
    """Stop before anything is removed where processes use a GPU through the loaded driver.

    :raises GpufleetError: GF-GPU-BUSY.
    """
    facts = gpu.collect(sysroot=gpu_sysroot)
    if facts["driver"]["loaded_version"] is None or not facts["busy"]:
        return
    names = ", ".join(f"{process['name'] or '?'} ({process['pid']})" for process in facts["busy"])
    raise GpufleetError(
        "GF-GPU-BUSY",
        f"processes use the GPU, so its driver is not removed: {names}",
        "jobs are running on the node",
        "wait for them or drain the node, then run remove.yml again; nothing was changed",
    )
