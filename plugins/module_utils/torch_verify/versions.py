# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of torch and of what is built for it. Private to the collection."""

from __future__ import annotations

import importlib
from typing import Any

from .expectations import Expectations
from .outcomes import NOTHING_EXPECTED, outcome, skipped


def compare_version(measured: str | None, wanted: Expectations, key: str, what: str) -> dict[str, Any]:
    """Equal to the letter: "2.0.1" is not "2.0.1+cu117", and "1.10.0+cu102" is no 2.0."""
    if not wanted.has(key):
        return skipped(measured, NOTHING_EXPECTED)
    expected = wanted.get(key)
    return outcome(measured == expected, measured, expected, f"{what} is {measured}, but {expected} was planned")


def check_torch_version(torch: Any, wanted: Expectations) -> dict[str, Any]:
    if wanted.has("torch_version") and not wanted.get("torch_version"):
        return skipped(str(torch.__version__), "nothing expected: the plan names no version")
    return compare_version(str(torch.__version__), wanted, "torch_version", "torch.__version__")


def check_torch_cuda_version(torch: Any, wanted: Expectations) -> dict[str, Any]:
    return compare_version(torch.version.cuda, wanted, "cuda", "torch.version.cuda")


def cudnn_text(number: int | None) -> str | None:
    """8500 is 8.5.0, and since cuDNN 9 90100 is 9.1.0."""
    if number is None:
        return None
    major, rest = divmod(number, 10000 if number >= 90000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def same_cudnn(measured: str | None, expected: str) -> bool:
    """Torch knows three parts of the version; the plan may name fewer, or all four."""
    parts = expected.split(".")[:3]
    return measured is not None and measured.split(".")[: len(parts)] == parts


def check_torch_cudnn_version(torch: Any, wanted: Expectations) -> dict[str, Any]:
    measured = cudnn_text(torch.backends.cudnn.version())
    expected = wanted.get("cudnn")
    if expected is None:
        return skipped(measured, NOTHING_EXPECTED)
    message = f"torch uses cuDNN {measured}, but {expected} was planned"
    return outcome(same_cudnn(measured, expected), measured, expected, message)


def same_release(measured: str, expected: str) -> bool:
    """Compared without the local part, which wheels of the same release carry or not: 0.15.2 is 0.15.2+cu117."""
    return measured.partition("+")[0] == expected.partition("+")[0]


def check_import(name: str, wanted: Expectations) -> dict[str, Any]:
    """Torchvision or torchaudio: its compiled part only loads beside the torch that it was built for."""
    expected = wanted.get(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        if expected is None:
            return skipped(None, f"{name} is not installed, and none is expected")
        return outcome(False, None, expected, f"{name} {expected} was planned, but it is not installed")
    measured = str(module.__version__)
    if expected is None:
        return outcome(True, measured, "can be imported", "")
    message = f"{name} is {measured}, but {expected} was planned"
    return outcome(same_release(measured, expected), measured, expected, message)
