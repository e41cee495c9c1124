# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of gpu_facts names every key of the facts, and no other."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu, gpu_health

ROOT = Path(__file__).resolve().parents[4]
MODULE = ROOT / "plugins/modules/gpu_facts.py"
# What an empty list or a null of a node without all of it would hide.
FILLED: dict[str, Any] = {
    "tegra": {"model": "", "soc": "", "l4t_version": ""},
    "driver.package": {"name": "", "version": ""},
    "driver.runfile": {"version": "", "problems": []},
    "devices.mig.instances": [{"uuid": "", "name": "", "memory_mib": 0}],
    "devices.ecc.remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": False, "failure": False},
    "devices.processes": [{"pid": 1, "name": ""}],
    "busy": [{"pid": 1, "name": ""}],
    "health.xid": gpu_health.xids(b"NVRM: Xid (PCI:0000:3b:00): 79, x\n"),
    "errors": [{"code": "", "message": ""}],
}


def documented(contains: dict[str, Any]) -> dict[str, Any]:
    return {key: documented(entry.get("contains", {})) for key, entry in contains.items()}


def answered(value: Any, path: str = "") -> dict[str, Any]:
    value = FILLED.get(path, value)
    if isinstance(value, list):
        value = value[0] if value else {}
    if not isinstance(value, dict):
        return {}
    return {key: answered(entry, f"{path}.{key}".lstrip(".")) for key, entry in value.items()}


def blocks() -> dict[str, str]:
    found = {}
    for statement in ast.parse(MODULE.read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            found[ast.unparse(statement.targets[0])] = str(statement.value.value)
    return found


def test_every_key_is_documented() -> None:
    entries = yaml.safe_load(blocks()["RETURN"])["ansible_facts"]["contains"]["gpufleet_gpu"]["contains"]
    facts = gpu.collect(str(ROOT / "tests/fixtures/nodes/h100-x8-nvswitch"))
    assert documented(entries) == answered(facts)


def test_all_gpus_have_the_same_keys() -> None:
    for node in ("h100-x8-nvswitch", "nouveau-bound", "debian12-a100"):
        facts = gpu.collect(str(ROOT / "tests/fixtures/nodes" / node))
        assert len({tuple(device) for device in facts["devices"]}) == 1
