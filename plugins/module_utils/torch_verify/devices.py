# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What torch sees of the GPUs. Private to the collection."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator

from .expectations import Expectations
from .outcomes import NOTHING_EXPECTED, REBOOT_NEEDED, outcome, skipped


def no_gpu_message(wanted: Expectations) -> str:
    if wanted.driver_pending:
        return (
            f"{REBOOT_NEEDED}: the planned driver is installed, but not loaded yet; reboot this node, then verify again"
        )
    return "torch sees no NVIDIA GPU: is a driver loaded, and new enough for this torch? (nvidia-smi says)"


def check_cuda_available(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """CUDA available exactly where the plan has GPUs, and as many of them."""
    available = bool(torch.cuda.is_available())
    measured = {"available": available, "count": torch.cuda.device_count() if available else 0}
    if wanted.skip_reason is not None and wanted.gpus:
        return skipped(measured, wanted.skip_reason)
    if wanted.gpus is None:
        return skipped(measured, NOTHING_EXPECTED)
    expected = {"available": wanted.gpus > 0, "count": wanted.gpus}
    if wanted.driver_pending:
        return outcome(False, measured, expected, no_gpu_message(wanted))
    if available or not wanted.gpus:
        message = f"torch sees {measured['count']} GPU(s), but the plan has {wanted.gpus}"
    else:
        message = no_gpu_message(wanted)
    return outcome(measured == expected, measured, expected, message)


def gpu_checks(
    torch: Any, wanted: Expectations, name: str, function: Callable[[int], dict[str, Any]]
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """One check for each GPU that is planned or seen; one that is skipped, or failed, where that makes no sense."""
    if wanted.skip_reason is not None:
        reason = wanted.skip_reason
        yield name, lambda: skipped(None, reason)
        return
    if wanted.driver_pending:
        yield name, lambda: outcome(False, None, None, no_gpu_message(wanted))
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not seen and not wanted.gpus:
        yield name, lambda: skipped(None, "torch sees no GPU, and none is expected")
        return
    for index in range(max(seen, wanted.gpus or 0)):
        if index < seen:
            yield f"{name}:{index}", lambda index=index: function(index)  # type: ignore[misc]
        else:
            yield f"{name}:{index}", lambda: outcome(False, None, None, no_gpu_message(wanted))


def served_by(capability: str, architectures: list[str]) -> bool:
    """Whether a GPU can run what torch was compiled for.

    Machine code (sm_80) runs on the same major version with an equal or higher minor one; intermediate code
    (compute_90) is compiled by the driver for every later GPU.
    """
    major, minor = (int(part) for part in capability.split("."))
    for architecture in architectures:
        found = re.match(r"(sm|compute)_(\d+)(\d)[a-z]?$", architecture)
        if not found:
            continue
        kind, built = found.group(1), (int(found.group(2)), int(found.group(3)))
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return True
        if kind == "compute" and built <= (major, minor):
            return True
    return False


def cuda_device(torch: Any, index: int) -> Any:
    """The GPU of that number, as torch takes it."""
    return torch.device("cuda", index)


# The driver keeps a part of the memory to itself, and NVML counts it while torch does not.
MEMORY_SHARE = 0.9
MIB = 2**20


def check_gpu_device(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """Whether this is one of the GPUs that the facts name, with its memory."""
    properties = torch.cuda.get_device_properties(index)
    measured = {"name": properties.name, "memory_mib": properties.total_memory // MIB}
    planned = [row for row in wanted.get("devices", []) if row.get("name")]
    if not planned:
        return skipped(measured, NOTHING_EXPECTED)
    # Divided and hidden GPUs shift the numbers: the name tells which rows may be meant.
    rows = [row for row in planned if row["name"] == measured["name"]]
    if not rows:
        names = ", ".join(sorted({row["name"] for row in planned}))
        return outcome(False, measured, planned, f"this GPU is {measured['name']}, but the facts name {names}")
    least = [MEMORY_SHARE * row["memory_mib"] for row in rows if row.get("memory_mib")]
    good = not least or measured["memory_mib"] >= min(least)
    return outcome(good, measured, rows, f"torch sees {measured['memory_mib']} MiB of its memory only")
