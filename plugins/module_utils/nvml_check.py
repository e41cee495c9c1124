# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NVML answered, checked before anybody builds on it. Private to the collection.

A broken library answers numbers that can't be and text that is none, a record of a node may have been edited: every
value is of its type and within sense afterwards, or None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_text import clean, clean_or_none

ABSURD = "GF-NVML-ABSURD"
_MOST_MEMORY_MIB = 4 * 1024 * 1024
_MOST_PROCESSES = 1024
_MOST_INSTANCES = 16
_MOST_ERRORS = 64
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
_CAPABILITY = re.compile(r"[1-9]\d?\.\d$")
_DRIVER = re.compile(r"\d{2,4}\.\d+(\.\d+)*$")
_CUDA = re.compile(r"\d{1,2}\.\d{1,2}$")


def absurd(message: str) -> dict[str, str]:
    """An entry of ``errors`` for something that NVML can't mean."""
    return {"code": ABSURD, "message": clean(message, 512)}


def _number(value: Any, least: int = 0, most: int = 2**63) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and least <= value <= most else None


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _matching(value: Any, pattern: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and pattern.match(value) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any, most: int) -> list[Any]:
    return value[:most] if isinstance(value, list) else []


def system(value: Any) -> dict[str, Any]:
    """The versions that the driver says of itself."""
    said = _dict(value)
    return {
        "driver_version": _matching(said.get("driver_version"), _DRIVER),
        "cuda_version": _matching(said.get("cuda_version"), _CUDA),
    }


def _memory(value: Any) -> int | None:
    return _number(value, 1, _MOST_MEMORY_MIB)


def _mig(value: Any) -> dict[str, Any]:
    said = _dict(value)
    instances = [
        {
            "uuid": clean_or_none(instance.get("uuid")),
            "name": clean_or_none(instance.get("name")),
            "memory_mib": _memory(instance.get("memory_mib")),
        }
        for instance in _list(said.get("instances"), _MOST_INSTANCES)
        if isinstance(instance, dict)
    ]
    return {"enabled": _bool(said.get("enabled")), "instances": instances}


def _ecc(value: Any) -> dict[str, Any]:
    said = _dict(value)
    rows = said.get("remapped_rows")
    remapped = None
    if isinstance(rows, dict):
        remapped = {
            "correctable": _number(rows.get("correctable")),
            "uncorrectable": _number(rows.get("uncorrectable")),
            "pending": _bool(rows.get("pending")),
            "failure": _bool(rows.get("failure")),
        }
    return {
        "enabled": _bool(said.get("enabled")),
        "uncorrected": _number(said.get("uncorrected")),
        "corrected": _number(said.get("corrected")),
        "remapped_rows": remapped,
    }


def _pcie(value: Any) -> dict[str, Any]:
    said = _dict(value)
    most = {"generation": 9, "generation_max": 9, "width": 32, "width_max": 32}
    return {key: _number(said.get(key), 1, limit) for key, limit in most.items()}


def _processes(value: Any) -> list[dict[str, int]] | None:
    if not isinstance(value, list):
        return None
    pids = {_number(_dict(process).get("pid"), 1, 2**22) for process in value[:_MOST_PROCESSES]}
    return [{"pid": pid} for pid in sorted(pid for pid in pids if pid is not None)]


def device(value: Any) -> tuple[dict[str, Any] | None, list[dict[str, str]]]:
    """A GPU's record with nothing in it that can't be, and what had to be taken out."""
    said = _dict(value)
    index = _number(said.get("index"), 0, 4096)
    if index is None:
        return None, [absurd("a GPU without a number is left out")]
    checked = {
        "index": index,
        "pci_address": _matching(said.get("pci_address"), _ADDRESS),
        "pci_device_id": _number(said.get("pci_device_id"), 0, 0xFFFF),
        "name": clean_or_none(said.get("name")),
        "uuid": clean_or_none(said.get("uuid")),
        "compute_capability": _matching(said.get("compute_capability"), _CAPABILITY),
        "memory_mib": _memory(said.get("memory_mib")),
        "mig": _mig(said.get("mig")),
        "ecc": _ecc(said.get("ecc")),
        "pcie": _pcie(said.get("pcie")),
        "persistence": _bool(said.get("persistence")),
        "virtualization_mode": _number(said.get("virtualization_mode"), 0, 255),
        "processes": _processes(said.get("processes")),
    }
    errors = [
        absurd(f"GPU {index}: {key} {said[key]!r} can't be and is left out")
        for key in ("pci_address", "compute_capability", "memory_mib")
        # No memory of its own, or a function that it lacks: an answer, not a lie.
        if checked[key] is None and said.get(key) not in (None, 0)
    ]
    return checked, errors


def devices(values: Iterable[Any]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """All GPUs checked; of two that claim the same place only the first is kept, of a UUID said twice likewise."""
    found: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    taken: set[str] = set()
    for value in values:
        checked, problems = device(value)
        errors += problems
        if checked is None:
            continue
        address, uuid = checked["pci_address"], checked["uuid"]
        if address in taken:
            errors.append(absurd(f"GPU {checked['index']} has the PCI address of another, {address}, and is left out"))
            continue
        if uuid in taken:
            errors.append(absurd(f"GPU {checked['index']} has the UUID of another, {uuid}"))
            checked["uuid"] = None
        taken.update(text for text in (address, uuid) if text)
        found.append(checked)
    return found, errors


def error(value: Any) -> dict[str, str]:
    """An entry of ``errors`` as the child or a record gave it."""
    said = _dict(value)
    code = said.get("code")
    known = isinstance(code, str) and re.match(r"[A-Z]{2}-NVML(-[A-Z]{1,16}){1,3}$", code)
    return {
        "code": str(code) if known else "GF-NVML-ERROR",
        "message": clean_or_none(said.get("message"), 512) or "NVML said nothing more",
    }


def errors(values: Iterable[Any]) -> list[dict[str, str]]:
    """The first entries of ``errors``, each of them checked."""
    return [error(value) for value in list(values)[:_MOST_ERRORS]]
