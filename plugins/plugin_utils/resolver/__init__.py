# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From facts and wishes to a plan: a pure function, no I/O. Private to the collection.

``resolve`` is the only thing that chooses anything. Each part of the stack has a file of its own; all of them write
to one ``Decision``: the reasons, the warnings, and the conflicts with the rows of the catalog behind them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    cudnn,
    driver,
    driver_stage,
    fixes,
    gpus,
    node,
    parts,
    profiles,
    python,
    selection,
    toolkit,
    torch,
    verify,
    wishes,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import facts as facts_reader
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision

ROLES = ("nvidia_driver", "cuda_toolkit", "cudnn", "python", "pytorch", "verify")
# Of such a node too little is known to choose anything.
HOPELESS = ("GF-DISTRIBUTION", "GF-ARCHITECTURE", "GF-GPU-UNKNOWN")


def resolve(facts: dict[str, Any], wanted: dict[str, Any], catalog: dict[str, Any]) -> dict[str, Any]:
    """Choose the stack for one node.

    :param facts: ``{gpu, cuda, node}`` as the probe gives them.
    :param wanted: the variables that a user may set, by name.
    :param catalog: the content of the catalog's files by name.
    :returns: ``{ok, stages, conflicts, warnings}``; without ``ok`` the stages are not to be carried out. Each of a
        conflict's ``fixes`` is a dictionary of wishes with which the node resolves.
    """
    clean, wrong = facts_reader.read(facts)
    if wrong:
        return _unreadable(wrong)
    known: dict[Any, Any] = {}

    def again(wishes_then: dict[str, Any]) -> Decision:
        then = Decision(clean, catalog, _with_defaults(wishes_then), known)
        _choose(then, wishes_then)
        return then

    decision = Decision(clean, catalog, _with_defaults(wanted), known)
    choices = _choose(decision, wanted)
    stages = _stages(decision, choices) if choices else {}
    fixes.find(decision, wanted, again)
    for conflict in decision.conflicts:
        del conflict["about"]
    return {
        "ok": not decision.conflicts,
        "stages": stages,
        "conflicts": decision.conflicts,
        "warnings": decision.warnings,
    }


class _Choices(NamedTuple):
    driver: driver.Choice | None
    environments: list[selection.Environment]
    toolkit: dict[str, Any]
    cudnn: dict[str, Any]


def _with_defaults(wanted: dict[str, Any]) -> dict[str, Any]:
    return {**wishes.DEFAULTS, **{name: value for name, value in wanted.items() if name in wishes.DEFAULTS}}


def _choose(decision: Decision, asked: dict[str, Any]) -> _Choices | None:
    """Everything that can end in a conflict; None where there is nothing to choose among."""
    wishes.check(decision, asked)
    if decision.conflicts:
        return None
    node.check(decision)
    gpus.check(decision)
    if any(conflict["code"] in HOPELESS for conflict in decision.conflicts):
        return None
    drivers = driver.choices(decision)
    pythons = python.candidates(decision)
    choice, chosen = selection.choose(decision, drivers, pythons)
    if choice is not None:
        parts.check(decision, choice.option)
    torch.explain(decision, drivers, pythons, chosen)
    profiles.check(decision, chosen)
    toolkits = toolkit.plan(decision, chosen, choice.driver if choice else None)
    return _Choices(choice, chosen, toolkits, cudnn.plan(decision, toolkits, chosen))


def _stages(decision: Decision, choices: _Choices) -> dict[str, Any]:
    stages = {
        "nvidia_driver": driver_stage.plan(decision, choices.driver),
        "cuda_toolkit": choices.toolkit,
        "cudnn": choices.cudnn,
        "python": python.plan(decision, choices.environments),
        "pytorch": torch.plan(decision, choices.driver, choices.environments),
    }
    stages["verify"] = verify.plan(decision, stages)
    _say_what_is_guessed(decision)
    return stages


def _say_what_is_guessed(decision: Decision) -> None:
    if decision.guessed:
        parts = "; ".join(sorted(decision.guessed))
        decision.warn("GF-CATALOG-UNVERIFIED", f"the plan rests on entries that nobody has verified yet: {parts}")


def _unreadable(wrong: list[str]) -> dict[str, Any]:
    conflict = {
        "code": "GF-FACTS-INVALID",
        "message": f"the facts of the node cannot be read: {wrong[0]}",
        "because": wrong,
        "fixes": [],
        "advice": ["gather them again with this version of the collection (ansible-playbook playbooks/plan.yml)"],
    }
    return {"ok": False, "stages": {}, "conflicts": [conflict], "warnings": []}
