# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an environment stands. Private to the collection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import environment_hook
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_files import (
    check_packages,
    part_of,
    site_packages,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import (
    BUILDING,
    COMPLETE,
    LOCK_FILE,
    Wanted,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest, link_target, read_json


@dataclass
class Survey:
    """How an environment stands: all empty means as it should be."""

    present: bool = False
    skeleton: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    linked: bool = False
    checked_bytes: int = 0
    fetched_bytes: int = 0

    def healthy(self) -> bool:
        """Whether the environment itself needs no work."""
        return self.present and not self.skeleton and not self.damaged

    def action(self) -> str:
        """What has to be done."""
        if not self.present:
            return "built"
        if not self.healthy():
            return "repaired"
        return "none" if self.linked else "relinked"

    def reasons(self) -> list[str]:
        """Why, in words."""
        if not self.present:
            return ["the environment is not there"]
        reasons = [f"{name}: {problem}" for name, problem in sorted(self.damaged.items())] + self.skeleton
        return reasons + ([] if self.linked else ["the link current does not lead to it"])


def survey(wanted: Wanted) -> Survey:
    """How the environment stands: every file of every locked package is read. Changes nothing."""
    state = Survey(linked=os.path.realpath(wanted.link) == os.path.realpath(wanted.path))
    if not os.path.isdir(wanted.path) or not os.listdir(wanted.path):
        return state
    complete = read_json(os.path.join(wanted.path, COMPLETE))
    unfinished = os.path.exists(os.path.join(wanted.path, BUILDING)) and complete is None and not state.linked
    if unfinished:
        return state
    if complete is None and not os.path.exists(os.path.join(wanted.path, "pyvenv.cfg")):
        raise GpufleetError(
            "GF-PATH-OCCUPIED",
            f"{wanted.path} is there and is not an environment",
            "somebody put other files where the environment belongs",
            f"move it away: mv {wanted.path} {wanted.path}.moved",
        )
    state.present = True
    state.skeleton = _check_skeleton(wanted, complete)
    if complete is None or not wanted.shared:
        state.damaged, state.checked_bytes = check_packages(wanted.path, wanted.lock_text, complete)
    return state


def _check_skeleton(wanted: Wanted, complete: dict[str, Any] | None) -> list[str]:
    python = os.path.join(wanted.path, "bin", "python")
    problems = []
    if os.path.realpath(python) != os.path.realpath(wanted.interpreter) or not os.access(python, os.X_OK):
        problems.append(f"{python} does not lead to {wanted.interpreter}")
    for name, digest in part_of(complete, "skeleton").items():
        if file_digest(os.path.join(wanted.path, name)) != digest:
            problems.append(f"{os.path.join(wanted.path, name)} was edited or is gone")
    problems += environment_hook.problems(wanted.path, site_packages(wanted.path))
    if complete is not None and file_digest(os.path.join(wanted.path, LOCK_FILE)) != wanted.lock_sha256:
        problems.append(f"{os.path.join(wanted.path, LOCK_FILE)} was edited or is gone")
    return problems


def standing(link: str) -> dict[str, str | None]:
    """What ``current`` leads to now."""
    complete = read_json(os.path.join(link, COMPLETE))
    return {"current": link_target(link), "torch": complete.get("torch_version") if complete else None}
