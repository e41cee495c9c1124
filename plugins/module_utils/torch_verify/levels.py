# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checks a level has, in their order, and running them. Private to the collection."""

from __future__ import annotations

import platform
import time
from typing import Any, Iterator

from . import compilers, gradients, kernels, libraries, link, lora, precision, soak, speed, standard, training, versions
from .devices import check_cuda_available, check_gpu_device, gpu_checks
from .expectations import Expectations
from .outcomes import FAILED, run_check

LEVELS = ("quick", "standard", "health")
Check = "tuple[str, Callable[[], dict[str, Any]]]"


def quick(torch: Any, wanted: Expectations) -> Iterator[Any]:
    """That the planned torch is there and computes rightly."""
    yield "torch_version", lambda: versions.check_torch_version(torch, wanted)
    yield "torch_cuda_version", lambda: versions.check_torch_cuda_version(torch, wanted)
    yield "torch_cudnn_version", lambda: versions.check_torch_cudnn_version(torch, wanted)
    yield "torchvision", lambda: versions.check_import("torchvision", wanted)
    yield "torchaudio", lambda: versions.check_import("torchaudio", wanted)
    yield "tensor", lambda: kernels.check_tensor(torch)
    yield "precision", lambda: precision.check_cpu(torch, wanted)
    yield "cuda_available", lambda: check_cuda_available(torch, wanted)
    yield from gpu_checks(torch, wanted, "gpu_device", lambda index: check_gpu_device(torch, wanted, index))
    yield from gpu_checks(torch, wanted, "gpu_kernel", lambda index: kernels.check_gpu_kernel(torch, wanted, index))
    yield from gpu_checks(torch, wanted, "gpu_precision", lambda index: precision.check_gpu(torch, wanted, index))
    yield "mlp_gradients", lambda: gradients.check_gradients(torch, wanted, sigmoid_output=False)
    yield "mlp_gradients_sigmoid_output", lambda: gradients.check_gradients(torch, wanted, sigmoid_output=True)
    yield "mlp_training", lambda: training.check_training(torch, wanted)
    yield from gpu_checks(
        torch, wanted, "gpu_training", lambda index: training.check_gpu_training(torch, wanted, index)
    )
    yield "fine_tuning", lambda: training.check_fine_tuning(torch, wanted)
    yield "reproducible", lambda: training.check_reproducible(torch, wanted)


def beyond(torch: Any, wanted: Expectations) -> Iterator[Any]:
    """Level standard: what people do with it."""
    narrow = torch.bfloat16
    yield "convolutional_training", lambda: standard.training(torch, wanted, "convolutional")
    yield "transformer_training", lambda: standard.training(torch, wanted, "transformer")
    yield "amp_training", lambda: standard.training(torch, wanted, "convolutional", narrow=narrow)
    for name, kind, half in (
        ("gpu_convolutional_training", "convolutional", None),
        ("gpu_transformer_training", "transformer", None),
        ("gpu_amp_training", "convolutional", torch.float16),
    ):
        yield from gpu_checks(
            torch,
            wanted,
            name,
            lambda index, kind=kind, half=half: standard.gpu_training(torch, wanted, kind, index, half),  # type: ignore[misc]
        )
    yield "data_loader", lambda: standard.check_data_loader(torch, wanted)
    yield "checkpoint", lambda: standard.check_checkpoint(torch, wanted)
    yield from gpu_checks(
        torch, wanted, "gpu_checkpoint", lambda index: standard.check_gpu_checkpoint(torch, wanted, index)
    )
    yield "compile", lambda: compilers.check_compile(torch, wanted)
    yield from gpu_checks(torch, wanted, "gpu_compile", lambda index: compilers.check_gpu_compile(torch, wanted, index))
    yield "cuda_extension", lambda: compilers.check_extension(torch, wanted)
    yield "lora", lambda: lora.check_lora(torch, wanted)


def endurance(torch: Any, wanted: Expectations) -> Iterator[Any]:
    """Level health: the links under load, and the same numbers for a while."""
    yield from gpu_checks(torch, wanted, "gpu_link", lambda index: link.check_gpu_link(torch, wanted, index))
    yield from gpu_checks(torch, wanted, "gpu_nvlink", lambda index: soak.check_gpu_nvlink(torch, wanted, index))
    yield "soak", lambda: soak.check_cpu(torch, wanted)
    yield from gpu_checks(torch, wanted, "gpu_soak", lambda index: soak.check_gpu(torch, wanted, index))


def all_checks(torch: Any, wanted: Expectations, level: str = "quick") -> Iterator[Any]:
    """Every check in order. The libraries come last: by then torch has loaded all that the others needed."""
    yield from quick(torch, wanted)
    if level != "quick":
        yield from beyond(torch, wanted)
    if level == "health":
        yield from endurance(torch, wanted)
    yield "libraries", lambda: libraries.check_libraries(torch)


def report(torch: Any, wanted: Expectations, level: str = "quick") -> dict[str, Any]:
    """The answer of the script."""
    started = time.monotonic()
    checks = [run_check(name, function) for name, function in all_checks(torch, wanted, level)]
    ok = not any(check["status"] == FAILED for check in checks)
    return {
        "schema": 2,
        "ok": ok,
        "level": level,
        "python": platform.python_version(),
        "checks": checks,
        # Of a machine that computes wrongly nobody wants to know how fast it does.
        "performance": speed.measure(torch, wanted) if ok and level != "quick" else [],
        "seconds": round(time.monotonic() - started, 3),
    }
