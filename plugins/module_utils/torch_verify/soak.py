# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same work again and again, compared bit for bit: silent corruption shows as a difference. Private to the collection."""

from __future__ import annotations

import time
from typing import Any

from . import devices, link, management
from .expectations import Expectations
from .outcomes import PASSED, outcome, skipped

SECONDS = 60
CPU_SIZE, GPU_SIZE = 512, 4096


def soak(torch: Any, device: Any, size: int, seconds: float, seed: int) -> dict[str, Any]:
    """Multiply the same matrices for a while. The same kernel on the same numbers gives the same bits each time."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(size, size, generator=generator).to(device) for _each in range(2))
    first = a @ b
    bits = first.view(torch.int32)
    products = differing = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        products += 1
        differing += int(not torch.equal((a @ b).view(torch.int32), bits))
    finite = bool(torch.isfinite(first).all().item())
    return {
        "seconds": round(time.monotonic() - started, 1),
        "products": products,
        "differing": differing,
        "finite": finite,
    }


def check(torch: Any, wanted: Expectations, device: Any, size: int) -> dict[str, Any]:
    """No product may differ from the first one."""
    seconds = wanted.get("soak_seconds", SECONDS)
    measured = soak(torch, device, size, seconds, wanted.seed)
    expected = {"differing": 0, "finite": True}
    if not measured["finite"]:
        return outcome(False, measured, expected, "a product of finite numbers is not finite")
    differing, products = measured["differing"], measured["products"]
    message = f"{differing} of {products} products differ from the first: memory or arithmetic fails"
    return outcome(differing == 0 and products > 0, measured, expected, message)


def check_cpu(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """On the CPU."""
    return check(torch, wanted, "cpu", CPU_SIZE)


def check_gpu(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """On one GPU; nothing may slow it down for heat or want of power meanwhile."""
    device, address = devices.cuda_device(torch, index), link.pci_address(index)
    try:
        gpu = management.Management(address) if address else None
    except OSError as error:
        return outcome(False, None, None, str(error))
    if gpu is None:
        return check(torch, wanted, device, GPU_SIZE)
    with management.watched(gpu) as samples:
        found = check(torch, wanted, device, GPU_SIZE)
    return slowed(found, sorted(samples.faults), samples.clocks, gpu.highest_clock())


def slowed(found: dict[str, Any], faults: list[str], clocks: list[int], highest: int | None) -> dict[str, Any]:
    """What the work came to, with the clocks meanwhile."""
    lowest = min(clocks, default=None)
    measured = {**found["measured"], "clock_mhz": lowest, "highest_clock_mhz": highest, "slowed_by": faults}
    if found["status"] == PASSED and faults:
        return outcome(
            False,
            measured,
            {"slowed_by": []},
            f"the GPU was slowed down by {', '.join(faults)}: look at its cooling and power",
        )
    return {**found, "measured": measured}


def check_gpu_nvlink(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """All NVLinks of a GPU are up, or none where it has no bridge or no switch."""
    address = link.pci_address(index)
    try:
        links = management.Management(address).links() if address else []
    except OSError as error:
        return outcome(False, None, None, str(error))
    if not links:
        return skipped(None, "this GPU has no NVLink")
    good, message = management.links_outcome(links)
    return outcome(good, {"links": len(links), "up": sum(links)}, {"up": "all or none"}, message)
