# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node's plan as ``now -> wanted`` for each stage. Private to the collection."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def stage_rows(plan: Row) -> dict[str, Row]:
    """``{now, wanted, action, because}`` for each role.

    ``action`` is ``change`` (the role will run), ``keep`` (its receipt holds) or ``none`` (nothing is wanted of it).
    """
    stages, facts = plan["stages"], plan["facts"]
    found = {
        "nvidia_driver": _driver(stages["nvidia_driver"], facts),
        "cuda_toolkit": _toolkit(stages["cuda_toolkit"], facts),
        "cudnn": _cudnn(stages["cudnn"], facts),
        "python": _python(stages["python"], facts),
        "pytorch": _pytorch(stages["pytorch"], facts),
        "verify": _verify(plan),
    }
    return {
        role: {"now": now, "wanted": wanted if stages[role]["wanted"] else None, **_standing(stages[role])}
        for role, (now, wanted) in found.items()
    }


def reboot(plan: Row) -> bool | None:
    """Whether the GPUs serve only after a reboot; None where the run will show it."""
    stage = plan["stages"]["nvidia_driver"]
    said = stage.get("reboot")
    if not stage["needed"] or said is not None:
        return bool(said)
    return None if plan["stages"]["verify"].get("driver_pending") else False


def _standing(stage: Row) -> Row:
    action = "none" if not stage["wanted"] else "change" if stage["needed"] else "keep"
    return {"action": action, "because": stage["because"]}


def _driver(stage: Row, facts: Row) -> tuple[str | None, str | None]:
    driver = facts["gpu"]["driver"]
    details = ", ".join(str(stage[key]) for key in ("source", "flavour") if stage.get(key))
    now = driver["installed_version"] or driver["loaded_version"]
    return now, f"{stage['version']} ({details})" if details else stage.get("version")


def _toolkit(stage: Row, facts: Row) -> tuple[str | None, str | None]:
    # The default one first: it is what /usr/local/cuda leads to.
    found = sorted(facts["cuda"].get("toolkits", []), key=lambda toolkit: not toolkit["default"])
    return _versions(found), _versions(stage["toolkits"])


def _cudnn(stage: Row, facts: Row) -> tuple[str | None, str | None]:
    return _versions(facts["cuda"].get("cudnn", [])), _versions(stage["cudnns"])


def _python(stage: Row, facts: Row) -> tuple[str | None, str | None]:
    if stage.get("provider") == "managed":
        # The probe does not look for it: its receipt says whether it is there.
        return None, f"{stage['version']} (managed)"
    there = [python for python in facts["node"]["pythons"] if python["path"] == stage["interpreter"]]
    return (str(there[0].get("full_version") or there[0]["version"]) if there else None), stage["version"]


def _pytorch(stage: Row, facts: Row) -> tuple[str | None, str | None]:
    current = {found["environment"]: found["version"] for found in facts["cuda"]["torch"] if found.get("current", True)}
    environments = stage["environments"]
    if len(environments) == 1:
        return current.get(environments[0]["name"]), environments[0]["torch_version"]
    now = [f"{each['name']} {current[each['name']]}" for each in environments if each["name"] in current]
    return ", ".join(now) or None, ", ".join(f"{each['name']} {each['torch_version']}" for each in environments)


def _verify(plan: Row) -> tuple[str | None, str | None]:
    verdict = plan.get("verdict") or {}
    return (("passed" if verdict["ok"] else "failed") if "ok" in verdict else None), "passed"


def _versions(rows: list[Row]) -> str | None:
    return ", ".join(dict.fromkeys(str(row["version"]) for row in rows if row["version"])) or None
