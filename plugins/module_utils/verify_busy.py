# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No check computes on a GPU that somebody works on. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_holders import Look, named


def require_free(seen: Look) -> None:
    """Whether the checks may compute on the GPUs.

    :raises GpufleetError: GF-VERIFY-BUSY where a process uses one, or where that can't be told.
    """
    if seen.users:
        raise GpufleetError(
            "GF-VERIFY-BUSY",
            f"processes use the GPU, so nothing was computed on it: {named(seen.users)}",
            "jobs are running on the node; the checks would slow them down, and they the checks",
            "run this play again when they have ended, or set verify_busy: true; the former verdict stays",
        )
    if seen.unseen:
        raise GpufleetError(
            "GF-VERIFY-BUSY",
            f"{seen.unseen} processes hide their open files, so nobody can say whether the GPU is in use",
            "this ran without root's rights, or in a container that may not look at the others' processes",
            "run with become: true, or set verify_busy: true; nothing was computed on the GPU",
        )
