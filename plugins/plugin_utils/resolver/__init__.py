# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From facts and wishes to a plan: a pure function, no I/O. Private to the collection.

``resolve`` is the only thing that chooses anything. Each part of the stack has a file of its own; all of them write
to one ``Decision``: the reasons, the warnings, and the conflicts with the rows of the catalog behind them.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    cuda,
    driver,
    node,
    python,
    torch,
    verify,
    wishes,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision

ROLES = ("nvidia_driver", "cuda_toolkit", "cudnn", "python", "pytorch", "verify")


def resolve(facts: dict[str, Any], wanted: dict[str, Any], catalog: dict[str, Any]) -> dict[str, Any]:
    """Choose the stack for one node.

    :param facts: ``{gpu, cuda, node}`` as the probe gives them.
    :param wanted: the variables that a user may set, by name.
    :param catalog: the content of the catalog's files by name.
    :returns: ``{ok, stages, conflicts, warnings}``; without ``ok`` the stages are not to be carried out.
    """
    decision = Decision(facts, catalog)
    decision.wanted = wishes.read(wanted, decision)
    if decision.conflicts:
        return decision.answer({})
    node.check(decision)
    stages: dict[str, Any] = {}
    stages["nvidia_driver"], served = driver.plan(decision)
    interpreter = python.candidates(decision)
    stages["pytorch"], chosen = torch.plan(decision, served, interpreter)
    stages["python"] = python.plan(decision, chosen)
    stages["cuda_toolkit"] = cuda.plan_toolkit(decision, chosen)
    stages["cudnn"] = cuda.plan_cudnn(decision, stages["cuda_toolkit"], chosen)
    stages["verify"] = verify.plan(decision, stages)
    return decision.answer({role: stages[role] for role in ROLES})
