# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look up all that goes from a node, and all that stays. Private to the collection.

Everything is looked up and written into a ``Plan``, which changes nothing; then every reason to refuse is asked for;
only then things go (``removal``).
"""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    receipts,
    removal_baseline,
    removal_paths,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_baseline import KINDS, within
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages import Manager
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_wish import (
    ON_DEMAND,
    STAGES,
    WITH_ITS_TREE,
    Plan,
    Wish,
    known,
    spare_shared,
)

ASKED_SINCE = "somebody asked for it since"


def known_receipts(wish: Wish) -> dict[str, dict[str, Any]]:
    """``{role: receipt}`` of the node; of a role that was cut off, what its receipt would say."""
    found: dict[str, dict[str, Any]] = {}
    for role in STAGES:
        receipt = receipts.read_json(receipts.receipt_path(within(wish.root, wish.state_dir), role))
        if receipt is not None:
            found[role] = receipt
    for role, baseline in removal_baseline.unfinished(wish.state_dir, wish.root).items():
        if role in STAGES:
            found[role] = removal_baseline.as_receipt(baseline, found.get(role, {}), wish.root)
    return found


def make_plan(wish: Wish, manager: Manager, kernel: str) -> Plan:
    """Look up all that goes and all that stays. Changes nothing.

    :param kernel: the running kernel's release: its package stays whoever brought it.
    :raises GpufleetError: GF-REMOVE-NEEDED where a stage rests on one that is to go.
    """
    there = known_receipts(wish)
    going = {role: there[role] for role in STAGES if role in there and role in wish.stages}
    plan = Plan(wish, stages=list(going), staying={role: there[role] for role in there if role not in going})
    if "python" in going and "pytorch" in plan.staying:
        raise GpufleetError(
            "GF-REMOVE-NEEDED",
            "python cannot go before pytorch: the environments use its interpreter",
            "gpufleet_remove names python and not pytorch",
            "gpufleet_remove: [verify, pytorch, python]",
        )
    spare_shared(plan)
    removal_paths.look_up(plan, going)
    _plan_packages(plan, going, manager, kernel)
    _plan_receipts(plan, going)
    return plan


def _plan_packages(plan: Plan, going: dict[str, dict[str, Any]], manager: Manager, kernel: str) -> None:
    added: set[str] = set()
    asked: set[str] = set()
    for role, receipt in going.items():
        if "added_packages" not in receipt and receipt.get("packages"):
            for name in receipt["packages"]:
                plan.kept[f"package {name}"] = f"the receipt of {role} does not say whether this collection added it"
        added |= set(receipt.get("added_packages", []))
        asked |= set(receipt.get("asked_packages", []))
    present = manager.present(added)
    why = _reasons_to_stay(plan, set(present), asked, kernel)
    why.update(manager.needed(sorted(set(present) - set(why))))
    plan.packages = {name: version for name, version in sorted(present.items()) if name not in why}
    plan.kept.update({f"package {name}": reason for name, reason in sorted(why.items())})
    auto = {name for receipt in going.values() for name in receipt.get("auto_packages", [])}
    auto |= {name for name, reason in why.items() if reason.endswith(" needs it")}
    users = removal_baseline.automatic_packages(plan.wish.root)
    staying = {name for receipt in plan.staying.values() for name in receipt.get("asked_packages", [])}
    plan.automatic = sorted((auto & set(installed_versions(root=plan.wish.root))) - users - staying)


def _reasons_to_stay(plan: Plan, present: set[str], asked: set[str], kernel: str) -> dict[str, str]:
    why = {}
    automatic = removal_baseline.automatic_packages(plan.wish.root)
    needed = {name: role for role, receipt in plan.staying.items() for name in receipt.get("packages", {})}
    for name in sorted(present):
        if name in needed:
            why[name] = f"the stage {needed[name]} stays and has it"
        elif kernel and name.startswith(("linux-image-", "kernel-core", "kernel-modules")) and name.endswith(kernel):
            why[name] = "it is the kernel that runs"
        elif automatic and name not in automatic and name not in asked:
            why[name] = ASKED_SINCE
    return why


def _plan_receipts(plan: Plan, going: dict[str, dict[str, Any]]) -> None:
    """A receipt goes; where something of it is kept, what it knows of that stays, so that it can be removed later."""
    for stage, receipt in going.items():
        remainder = _remainder(plan, stage, receipt)
        if remainder is not None:
            plan.remainders[stage] = remainder
        if remainder != receipt:
            plan.forgotten.append(stage)
    everything = set(STAGES) <= set(plan.wish.stages) and not plan.remainders
    plan.state = everything and os.path.isdir(within(plan.wish.root, plan.wish.state_dir))


def _remainder(plan: Plan, stage: str, receipt: dict[str, Any]) -> dict[str, Any] | None:
    kept = {path for path, why in plan.kept.items() if why.endswith(ON_DEMAND) or why == WITH_ITS_TREE}
    rest = {kind: {path: state for path, state in known(receipt, kind).items() if path in kept} for kind in KINDS}
    wanted = [name for name in receipt.get("added_packages", []) if _may_go_later(plan, name)]
    environments = stage == "pytorch" and any(path.startswith(plan.wish.prefix + "/envs/") for path in kept)
    if not wanted and not environments and not any(rest.values()):
        return None
    return {
        "schema": receipts.SCHEMA,
        "role": stage,
        "digest": "removed",
        "packages": {},
        **rest,
        "added_packages": wanted,
        "asked_packages": [name for name in receipt.get("asked_packages", []) if name in wanted],
        "auto_packages": [],
        "before": receipt.get("before", {}),
        "directories": receipt.get("directories", []),
    }


def _may_go_later(plan: Plan, name: str) -> bool:
    return plan.kept.get(f"package {name}", ASKED_SINCE) != ASKED_SINCE
