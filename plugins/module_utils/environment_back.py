# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments that are on the node already become the active ones, without a download. Private to the collection."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from ansible_collections.gpufleet.stack.plugins.module_utils import environment_history, environment_switch
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import COMPLETE
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_proof import prove_start
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.file_rights import rights
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json


@dataclass(frozen=True)
class Step:
    """One link and the environment that it is to lead to."""

    path: str
    link: str
    lock_wait: float = 60.0

    @property
    def name(self) -> str:
        """The environment's name: its directory holds the link."""
        return os.path.basename(os.path.dirname(self.link))


def switch_all(steps: list[Step], check_mode: bool = False) -> list[tuple[Step, str]]:
    """Let every link lead to its environment: all of them, or none.

    :returns: the steps that were taken, with the environment that was active before.
    :raises GpufleetError: GF-ENVIRONMENT-MISSING, GF-TORCH-IMPORT, GF-PATH-OCCUPIED, GF-BUSY, GF-RIGHTS
    """
    for step in steps:
        _must_be_whole(step)
    todo = [step for step in steps if not environment_switch.leads_to(step.link, step.path)]
    befores = [(step, os.path.realpath(step.link)) for step in todo]
    if check_mode or not todo:
        return befores
    with ExitStack() as stack:
        stack.enter_context(rights(todo[0].path))
        for step in sorted(todo, key=lambda each: each.link):
            stack.enter_context(environment_switch.alone(step))
        done: list[tuple[Step, str]] = []
        try:
            for step, before in befores:
                environment_history.note(step.link, step.path)
                environment_switch.point(step.link, step.path)
                done.append((step, before))
        except BaseException:
            for step, before in done:
                environment_switch.point(step.link, before)
            raise
    return befores


def _must_be_whole(step: Step) -> None:
    if read_json(os.path.join(step.path, COMPLETE)) is None:
        raise GpufleetError(
            "GF-ENVIRONMENT-MISSING",
            f"{step.path} is no finished environment",
            "it was pruned (pytorch_keep), removed by hand, or never finished",
            "name its version (pytorch_version) and run the playbook: it is built again",
        )
    prove_start(step.name, step.path)
