# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measured figures of a node, and what each may be compared with. Private to the collection.

Equals have the same GPU, driver and torch, for figures of the processor the same processor and torch; what else changes a
figure on a healthy node (MIG, ECC, the slot's generation) divides them further. What is not known has no equals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = dict[str, Any]
BETTER = ("higher", "lower")
# Figures of a GPU that go over its slot, and those that the processor has a part in.
TRANSFERS = ("gpu_host_to_device", "gpu_device_to_host")
WITH_PROCESSOR = (*TRANSFERS, "training_step")


class Figure(NamedTuple):
    """One measured value, with those it was measured at before."""

    host: str
    device: int | None
    environment: str | None
    metric: str
    unit: str
    better: str
    value: float
    group: str
    earlier: tuple[float, ...]


def judged(node: Row) -> bool:
    """Whether there is a verdict about the plan that the node has now."""
    plan, verdict = node.get("plan"), node.get("verdict")
    if not plan or not plan.get("ok") or not verdict:
        return False
    return bool(verdict["plan_digest"] == plan["stages"]["verify"]["digest"])


def figures(host: str, plan: Row, verdict: Row) -> list[Figure]:
    """Every figure of the node that has a group of equals, be it the only one in it."""
    driver = _driver(plan, verdict)
    before = _earlier(verdict, driver)
    found = []
    for row in _rows(verdict.get("performance")):
        group = _group(row, plan, verdict, driver)
        if group is not None:
            found.append(
                Figure(
                    host=host,
                    device=row["device"],
                    environment=row.get("environment"),
                    metric=row["metric"],
                    unit=row["unit"],
                    better=row["better"],
                    value=float(row["value"]),
                    group=group,
                    earlier=tuple(before.get(_which(row), ())),
                )
            )
    return found


def _rows(performance: Any) -> Iterable[Row]:
    for row in performance or []:
        value = row.get("value")
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if number and row.get("better") in BETTER:
            yield {"device": None, "unit": "", **row}


def _which(row: Row) -> tuple[Any, ...]:
    return row.get("environment"), row["metric"], row["unit"], row["device"]


def _driver(plan: Row, verdict: Row) -> str | None:
    """The driver that was loaded when the figures were measured: the facts may be older."""
    version = verdict.get("driver") or plan["facts"]["gpu"]["driver"].get("loaded_version")
    return str(version) if version else None


def _torch(verdict: Row) -> str:
    """The versions of torch as the history of a verdict writes them."""
    environments = [each for each in verdict.get("environments") or [] if each.get("torch_version")]
    versions = [str(each.get("torch_version")) for each in environments]
    if len(environments) > 1:
        versions = [f"{each.get('name')} {version}" for each, version in zip(environments, versions, strict=True)]
    return ", ".join(versions)


def _earlier(verdict: Row, driver: str | None) -> dict[tuple[Any, ...], list[float]]:
    """What each figure was in former verdicts with the same driver and torch in which nothing had failed."""
    found: dict[tuple[Any, ...], list[float]] = {}
    torch = _torch(verdict)
    for former in verdict.get("history") or []:
        same = former.get("driver") == driver and former.get("torch") == torch
        if same and former.get("ok", True) and former.get("at") != verdict.get("at"):
            for row in _rows(former.get("performance")):
                found.setdefault(_which(row), []).append(float(row["value"]))
    return found


def _group(row: Row, plan: Row, verdict: Row, driver: str | None) -> str | None:
    """What all equals of a figure have in common, as a person reads it."""
    environments = verdict.get("environments") or []
    named = [each for each in environments if each.get("name") == row.get("environment")] or environments[:1]
    torch = f"torch {named[0].get('torch_version')}" if named else None
    if row["device"] is None:
        parts = [_processor(plan["facts"]["node"]), torch]
    else:
        parts = [_gpu(row, plan["facts"]["gpu"], named), driver and f"driver {driver}", torch]
        host = _processor(plan["facts"]["node"])
        parts += [host] if host and row["metric"] in WITH_PROCESSOR else []
    return ", ".join(map(str, parts)) if all(parts) else None


def _processor(node: Row) -> str | None:
    cpu = node.get("cpu") or {}
    return f"{cpu['model']} ({cpu['threads']} threads)" if cpu.get("model") and cpu.get("threads") else None


def _gpu(row: Row, gpu: Row, environments: list[Row]) -> str | None:
    """The GPU as torch names it, else as the facts do, with what else its speed depends on."""
    said = _as_torch_says(environments, row["device"])
    device = _device(gpu, row["device"], said)
    name = said or _share(device) or device.get("name")
    if not name:
        return None
    ecc = (device.get("ecc") or {}).get("enabled")
    generation = (device.get("pcie") or {}).get("generation_max")
    parts = [name] + (["MIG"] if device.get("mig", {}).get("enabled") and "MIG" not in name else [])
    parts += [] if ecc is None else ["ECC on" if ecc else "ECC off"]
    if row["metric"] in TRANSFERS and generation is not None:
        parts.append(f"PCIe {generation}.0")
    return ", ".join(parts)


def _device(gpu: Row, index: int, said: str | None) -> Row:
    """The facts of the GPU that torch calls by this number; empty where they do not tell.

    CUDA numbers GPUs of several kinds by their speed and not by their slots: then one of the same name stands for it.
    """
    devices = [each for each in gpu["devices"] if not each.get("passthrough")]
    divided = [each for each in devices if each["mig"].get("instances")]
    seen = divided[:1] or [each for each in devices if not each["mig"].get("enabled")]
    if said is None:
        kinds = {each.get("name") for each in seen}
        return seen[index] if index < len(seen) and len(kinds) == 1 else {}
    alike = [each for each in seen if said.startswith(each.get("name") or said)]
    return seen[index] if index < len(seen) and seen[index] in alike else next(iter(alike), {})


def _share(device: Row) -> str | None:
    """With MIG torch computes on the first instance."""
    instances = device.get("mig", {}).get("instances") or []
    return str(instances[0].get("name") or "") or None if instances else None


def _as_torch_says(environments: list[Row], index: int) -> str | None:
    for environment in environments:
        for check in environment.get("checks") or []:
            if check["name"] == f"gpu_kernel:{index}" and isinstance(check.get("measured"), Mapping):
                name = check["measured"].get("device")
                return str(name) if name else None
    return None
