# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Products and convolutions in every precision that is trained in, against float64. Private to the collection."""

from __future__ import annotations

from typing import Any

from . import devices, kernels
from .expectations import Expectations
from .outcomes import outcome

# Error relative to the largest value of the result, which sums 256 products (72 of the convolution). Rounding the inputs
# to the ten bits of TF32 and float16 gives 4.6e-4 and 6.6e-4 at worst over 200 seeds (rounded by hand on a CPU), bfloat16
# on a CPU 5.1e-3. The bounds leave three times that.
BOUNDS = {"float32": kernels.KERNEL_BOUND, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1.5e-2}


def errors(torch: Any, device: Any, name: str, seed: int) -> dict[str, float]:
    """How far a product and a convolution of this precision on the device are from float64 on the CPU."""
    kind = torch.float32 if name == "tf32" else getattr(torch, name)
    inputs = kernels.inputs(torch, seed)
    exact = kernels.compute(torch, inputs, "cpu", torch.float64)
    with kernels.tf32(torch, name == "tf32"):
        found = kernels.compute(torch, inputs, device, kind)
    return {each: kernels.error(found[each], exact[each]) for each in ("matmul", "convolution")}


def check(torch: Any, device: Any, names: list[str], wanted: Expectations) -> dict[str, Any]:
    """Each of these precisions on one device."""
    measured = {name: errors(torch, device, name, wanted.seed) for name in names}
    problems = [
        f"{kernel} in {name} is off by {error:.3g}"
        for name, row in measured.items()
        for kernel, error in row.items()
        if not error < BOUNDS[name]  # NaN is no smaller than anything
    ]
    return outcome(not problems, measured, {"error_below": {name: BOUNDS[name] for name in names}}, "; ".join(problems))


def check_cpu(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """What CPUs train in."""
    return check(torch, "cpu", ["float32", "bfloat16"], wanted)


def check_gpu(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """What this GPU computes in: bfloat16 and TF32 came with compute capability 8.0."""
    narrow = ["tf32", "bfloat16"] if torch.cuda.get_device_capability(index) >= (8, 0) else []
    return check(torch, devices.cuda_device(torch, index), ["float32", "float16", *narrow], wanted)
