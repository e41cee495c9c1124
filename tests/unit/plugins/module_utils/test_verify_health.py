# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the level health makes of the facts of recorded and of ailing nodes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verify_health

DEVICE = {
    "index": 0,
    "ecc": {
        "uncorrected": 0,
        "remapped_rows": {"correctable": 1, "uncorrectable": 0, "pending": False, "failure": False},
    },
}
GPU: dict[str, Any] = {
    "devices": [DEVICE],
    "health": {"xid": [], "source": "kernel"},
    "fabric": {"needed": True, "manager_active": True, "manager_matches": True},
}


def found(**changes: Any) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in verify_health.checks({**copy.deepcopy(GPU), **changes})}


def statuses(**changes: Any) -> set[str]:
    return {check["status"] for check in found(**changes).values()}


def device(**ecc: Any) -> list[dict[str, Any]]:
    return [{**DEVICE, "ecc": {**DEVICE["ecc"], **ecc}}]  # type: ignore[dict-item]


def test_a_healthy_node_passes() -> None:
    assert statuses() == {"passed"}


def test_a_consumer_card_that_tells_nothing_raises_nothing() -> None:
    quiet = {"needed": False, "manager_active": None, "manager_matches": None}
    silent = device(uncorrected=None, remapped_rows=None)
    assert statuses(devices=silent, health={"xid": None, "source": None}, fabric=quiet) == {"skipped"}
    assert statuses(devices=[], health={"xid": None, "source": None}, fabric=quiet) == {"skipped"}


def test_a_programs_own_mistake_is_no_fault_of_the_gpu() -> None:
    rows = [{"code": 31, "pci_address": "0000:3b:00.0", "message": None, "count": 4}]
    assert found(health={"xid": rows, "source": "kernel"})["gpu_xid"]["status"] == "passed"


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("gpu_ecc", {"devices": device(uncorrected=3)}, "GPU 0 has had 3 uncorrected memory errors"),
        (
            "gpu_remapped_rows",
            {"devices": device(remapped_rows={"pending": False, "failure": True})},
            "exchange the card",
        ),
        ("gpu_remapped_rows", {"devices": device(remapped_rows={"pending": True, "failure": False})}, "must be reset"),
        (
            "gpu_xid",
            {
                "health": {
                    "xid": [{"code": 79, "pci_address": "0000:3b:00.0", "message": None, "count": 2}],
                    "source": "kernel",
                }
            },
            "Xid 79 on 0000:3b:00.0, 2 times: it fell off the bus",
        ),
        ("gpu_fabric", {"fabric": {"needed": True, "manager_active": False, "manager_matches": True}}, "does not run"),
        (
            "gpu_fabric",
            {"fabric": {"needed": True, "manager_active": True, "manager_matches": False}},
            "another version",
        ),
    ],
)
def test_what_ails_a_node_fails_its_own_check(name: str, changes: dict[str, Any], text: str) -> None:
    checks = found(**changes)
    assert text in checks[name]["message"]
    assert [each for each, check in checks.items() if check["status"] == "failed"] == [name]
