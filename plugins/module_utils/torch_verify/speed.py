# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast this machine computes, for comparison with its equals. Private to the collection."""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable, Iterator

from . import devices, models
from .expectations import Expectations

GIB = 2**30
# Short on purpose: enough for the clocks to rise. The best of several tells the machine, not what else ran on it.
SECONDS = 0.25
ROUNDS = 5
CPU_SIZE, GPU_SIZE = 768, 4096
COPY_BYTES = 256 * 2**20


def rates(torch: Any, device: Any, work: Callable[[], Any], amount: float) -> list[float]:
    """What a piece of work of this size reaches in each round, per second."""
    kind = torch.device(device).type

    def wait() -> None:
        if kind == "cuda":
            torch.cuda.synchronize(device)

    work()
    wait()
    found = []
    for _round in range(ROUNDS):
        started, times = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS / ROUNDS or times == 0:
            work()
            wait()
            times += 1
        found.append(times * amount / (time.perf_counter() - started))
    return found


def row(metric: str, unit: str, value: float, device: int | None = None, better: str = "higher") -> dict[str, Any]:
    """One figure, as the verdict has it."""
    return {"metric": metric, "unit": unit, "better": better, "device": device, "value": float(f"{value:.5g}")}


def product(torch: Any, device: Any, size: int, kind: Any) -> tuple[Callable[[], Any], float]:
    """A product of two square matrices, and its floating-point operations."""
    a, b = (torch.randn(size, size, device=device).to(kind) for _each in range(2))
    return (lambda: a @ b), 2.0 * size**3


def step_milliseconds(torch: Any, device: Any, seed: int) -> float:
    """The median of a training step of the convolutional model."""
    made = models.convolutional(torch, seed)
    models.train(torch, made, device, 3)
    times = []
    for _step in range(9):
        started = time.perf_counter()
        models.train(torch, made, device, 1)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def of_cpu(torch: Any, wanted: Expectations) -> Iterator[dict[str, Any]]:
    """What a node without a GPU is compared by."""
    work, amount = product(torch, "cpu", CPU_SIZE, torch.float32)
    yield row("cpu_matmul", "GFLOP/s", max(rates(torch, "cpu", work, amount)) / 1e9)
    yield row("training_step", "ms", step_milliseconds(torch, "cpu", wanted.seed), better="lower")


def of_gpu(torch: Any, wanted: Expectations, index: int) -> Iterator[dict[str, Any]]:
    """Products in each precision, and copies within the GPU and from and to the host."""
    device = devices.cuda_device(torch, index)
    narrow = {"bf16": torch.bfloat16} if torch.cuda.get_device_capability(index) >= (8, 0) else {}
    for name, kind in {"float32": torch.float32, "fp16": torch.float16, **narrow}.items():
        work, amount = product(torch, device, GPU_SIZE, kind)
        yield row(f"gpu_gemm_{name}", "TFLOP/s", max(rates(torch, device, work, amount)) / 1e12, index)
    there = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    other = torch.empty_like(there)
    # A copy within the GPU reads and writes.
    inside = max(rates(torch, device, lambda: other.copy_(there), 2.0 * COPY_BYTES))
    yield row("gpu_memory_bandwidth", "GiB/s", inside / GIB, index)
    host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    yield row(
        "gpu_host_to_device", "GiB/s", max(rates(torch, device, lambda: there.copy_(host), COPY_BYTES)) / GIB, index
    )
    yield row(
        "gpu_device_to_host", "GiB/s", max(rates(torch, device, lambda: host.copy_(there), COPY_BYTES)) / GIB, index
    )
    yield row("training_step", "ms", step_milliseconds(torch, device, wanted.seed), index, "lower")


def measure(torch: Any, wanted: Expectations) -> list[dict[str, Any]]:
    """All figures of this machine: of its GPUs where it computes on them, else of its CPU."""
    if wanted.skip_reason is not None or not torch.cuda.is_available():
        return list(of_cpu(torch, wanted))
    return [figure for index in range(torch.cuda.device_count()) for figure in of_gpu(torch, wanted, index)]
