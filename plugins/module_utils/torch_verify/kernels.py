# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small kernels against float64 on the CPU. Private to the collection."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

from . import devices
from .expectations import Expectations
from .outcomes import outcome

# One kernel in float32 against float64 on the CPU, error relative to the largest value of the result. KERNEL_SIZE
# products are summed: the rounding error is near sqrt(256) * 6e-8 = 1e-6, and on a CPU below 1e-5 in the tests. TF32,
# which keeps ten bits and is switched off here, would give 1e-3.
KERNEL_SIZE = 256
KERNEL_BOUND = 1e-4


def check_tensor(torch: Any) -> dict[str, Any]:
    return tensor_outcome(torch.zeros(5, 3))


def tensor_outcome(tensor: Any) -> dict[str, Any]:
    """The tutorial's torch.zeros(5, 3)."""
    values = tensor.tolist()
    rows = values if isinstance(values, list) else [values]
    cells = [cell for row in rows for cell in (row if isinstance(row, list) else [row])]
    measured = {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "nonzero": sum(1 for cell in cells if cell != 0),
    }
    expected = {"shape": [5, 3], "dtype": "torch.float32", "nonzero": 0}
    return outcome(measured == expected, measured, expected, f"torch.zeros(5, 3) gave {measured}")


def inputs(torch: Any, seed: int) -> dict[str, Any]:
    """Two matrices, an image and the weights of a convolution, in float32."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "a": (KERNEL_SIZE, KERNEL_SIZE),
        "b": (KERNEL_SIZE, KERNEL_SIZE),
        "image": (2, 8, 32, 32),
        "weight": (4, 8, 3, 3),
    }
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def compute(torch: Any, given: dict[str, Any], where: Any, kind: Any) -> dict[str, Any]:
    """A product, an elementwise function and a convolution on a device, in one type."""
    moved = {name: tensor.to(device=where, dtype=kind) for name, tensor in given.items()}
    a, b = moved["a"], moved["b"]
    convolution = torch.nn.functional.conv2d(moved["image"], moved["weight"])
    return {"matmul": a @ b, "elementwise": torch.sigmoid(a) * b + a, "convolution": convolution}


def error(found: Any, exact: Any) -> float:
    """The largest difference, relative to the largest value of what is exact."""
    return float(((found.cpu().double() - exact).abs().max() / exact.abs().max()).item())


def kernel_errors(torch: Any, device: Any, seed: int) -> dict[str, float]:
    """How far float32 on the device is from float64 on the CPU."""
    given = inputs(torch, seed)
    exact = compute(torch, given, "cpu", torch.float64)
    found = compute(torch, given, device, torch.float32)
    return {name: error(found[name], exact[name]) for name in exact}


@contextlib.contextmanager
def tf32(torch: Any, allowed: bool) -> Iterator[None]:
    """Let products of float32 be rounded to the ten bits of TF32 inside, or not."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def check_gpu_kernel(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    capability = ".".join(str(part) for part in torch.cuda.get_device_capability(index))
    architectures = list(torch.cuda.get_arch_list())
    expected_capabilities = wanted.get("compute_capabilities", [])
    with tf32(torch, False):
        errors = kernel_errors(torch, devices.cuda_device(torch, index), wanted.seed)
    measured = {
        "device": torch.cuda.get_device_name(index),
        "compute_capability": capability,
        "architectures": architectures,
        "errors": errors,
    }
    expected = {"error_below": KERNEL_BOUND, "compute_capabilities": expected_capabilities}
    problems = [f"{name} is off by {error:.3g}" for name, error in errors.items() if not error < KERNEL_BOUND]
    if not devices.served_by(capability, architectures):
        problems.append(f"this torch was not compiled for compute capability {capability}")
    if expected_capabilities and capability not in expected_capabilities:
        problems.append(f"compute capability {capability} is not the planned one")
    return outcome(not problems, measured, expected, "; ".join(problems))
