# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the facts say of the health of the GPUs, as checks of the level health. Private to the collection."""

from __future__ import annotations

from typing import Any, Dict

Row = Dict[str, Any]

# Xids that tell of the GPU or its link and not of a program's mistake (NVIDIA, "Xid Errors"): memory that could not be
# corrected, a GPU that fell off the bus, NVLink, the GPU's own processor, contained and uncontained memory errors.
XIDS = {
    48: "an uncorrectable memory error",
    62: "its processor halted",
    63: "a row of memory was to be remapped",
    64: "a row of memory could not be remapped",
    74: "NVLink failed",
    79: "it fell off the bus",
    92: "many corrected memory errors",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "its processor did not answer",
    120: "its processor failed",
    140: "memory errors that could not be corrected",
}


def checks(gpu: Row) -> list[Row]:
    """The checks of one node, from ``gpufleet_gpu``; what nobody could tell is skipped, and so is all where there is no GPU."""
    return [
        _check("gpu_ecc", *_ecc(gpu["devices"])),
        _check("gpu_remapped_rows", *_remapped(gpu["devices"])),
        _check("gpu_xid", *_xid(gpu["health"])),
        _check("gpu_fabric", *_fabric(gpu["fabric"])),
    ]


def _check(name: str, measured: Any, problems: list[str] | None, why: str) -> Row:
    status = "skipped" if problems is None else "failed" if problems else "passed"
    message = why if problems is None else "; ".join(problems)
    return {"name": name, "status": status, "measured": measured, "expected": None, "seconds": 0.0, "message": message}


def _ecc(devices: list[Row]) -> tuple[Any, list[str] | None, str]:
    counts = {
        device["index"]: device["ecc"]["uncorrected"] for device in devices if device["ecc"]["uncorrected"] is not None
    }
    if not counts:
        return None, None, "no GPU here counts memory errors"
    problems = [f"GPU {index} has had {count} uncorrected memory errors" for index, count in counts.items() if count]
    return {str(index): count for index, count in counts.items()}, problems, ""


def _remapped(devices: list[Row]) -> tuple[Any, list[str] | None, str]:
    rows = {device["index"]: device["ecc"].get("remapped_rows") for device in devices}
    known = {index: row for index, row in rows.items() if row}
    if not known:
        return None, None, "no GPU here remaps rows of its memory"
    problems = [
        f"GPU {index} could not remap a row: exchange the card" for index, row in known.items() if row["failure"]
    ]
    problems += [f"GPU {index} must be reset to remap a row" for index, row in known.items() if row["pending"]]
    return {str(index): row for index, row in known.items()}, problems, ""


def _xid(health: Row) -> tuple[Any, list[str] | None, str]:
    found = health["xid"]
    if found is None:
        return None, None, "the kernel's log could not be read, or no driver writes into it"
    problems = [
        f"Xid {row['code']} on {row['pci_address']}, {row['count']} times: {XIDS[row['code']]}"
        for row in found
        if row["code"] in XIDS
    ]
    return found, problems, ""


def _fabric(fabric: Row) -> tuple[Any, list[str] | None, str]:
    if not fabric["needed"]:
        return None, None, "this node needs no fabric manager"
    problems = [] if fabric["manager_active"] is not False else ["the fabric manager does not run"]
    problems += (
        [] if fabric["manager_matches"] is not False else ["the fabric manager is of another version than the driver"]
    )
    return fabric, problems, ""
