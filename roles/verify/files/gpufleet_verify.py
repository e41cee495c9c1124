#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the PyTorch of this Python computes what it should.

Run it with the Python of the environment that is to be checked; it needs that environment's torch and nothing else::

    . /opt/gpufleet/envs/default/current/bin/activate
    python gpufleet_verify.py                      # a table for people
    python gpufleet_verify.py --json               # the same as one JSON document
    python gpufleet_verify.py --expect plan.json   # measured against what was planned

It changes nothing on the machine. It exits 0 when no check failed, 1 when one did, 2 when it could not run at all.

``--expect`` names a JSON object, in which every key may be left out::

    {"torch_version": "2.0.1+cu117",      what torch.__version__ must be, to the letter
     "cuda": "11.7",                      what torch.version.cuda must be; null: built without CUDA
     "cudnn": "8.5",                      what the version of cuDNN must begin with; null: nothing expected
     "torchvision": "0.15.2",             what they must be; null: any version, or none
     "torchaudio": "2.0.2",
     "gpus": 1,                           how many GPUs torch must see
     "compute_capabilities": ["8.0"],     what they must be (in any order)
     "gpu_checks": "run",                 "skip": no check on a GPU, because of gpu_skip_reason
     "gpu_skip_reason": null,
     "driver_pending": false,             true: the driver is installed, not loaded; a reboot is needed
     "seed": 0}

A check without an expectation reports what it measured and is "skipped", never "passed".

The network that is trained is the tutorial's: 2 inputs, 5 hidden neurons, 1 output, the points x = [[1, 2], [2, 3],
[3, 4]] with y = [[3], [5], [7]], the loss L = 1/2 * sum (y - a2)^2, and Adam. The tutorial writes a2 = sigma(z2) for
the output, but a sigmoid never leaves (0, 1) and so never reaches 3, 5 or 7. Therefore the gradients are checked for
both forms (a2 = sigma(z2) as printed, and a2 = z2), and the network that is trained has a linear output, a2 = z2.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import re
import sys
import time
import traceback
from typing import Any, Callable, Iterator

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_COULD_NOT_RUN = 2

LEVELS = ("quick", "standard", "health")

X = [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
Y = [[3.0], [5.0], [7.0]]
Y_FINE_TUNING = [[4.0], [6.0], [8.0]]
INPUTS, HIDDEN, OUTPUTS = 2, 5, 1
DEFAULT_SEED = 0

# Relative error between autograd and the chain rule by hand, float64. Rounding gives 5e-16 at worst over 200 seeds; a
# wrong term in the chain gives an error of the order of 1.
GRADIENT_BOUND = 1e-9

# Training. Over 200 seeds with torch 2.0.1 and with 1.13.1 the loss starts between 26 and 63 and ends at 1.7e-4 at
# worst, half of them below 4e-12. A network that learns nothing of x stays at 4 or more, the best of all constants.
LEARNING_RATE = 0.05
TRAINING_STEPS = 500
TRAINING_LOSS_BOUND = 1e-2

# Fine-tuning from there. The new targets lie 1 higher, so the loss starts at 1.5; the same 200 seeds end at 3.4e-4 at
# worst, half of them below 3e-5.
FINE_TUNING_STEPS = 500
FINE_TUNING_LOSS_BOUND = 1e-2

# Predictions after training on a GPU against those on the CPU, same start, float32. Both have converged to the same
# targets: sqrt(2 * TRAINING_LOSS_BOUND) is the most that either may be off any target, so twice that is the bound.
TRAINING_AGREEMENT_BOUND = 2 * math.sqrt(2 * TRAINING_LOSS_BOUND)

# One kernel in float32 against float64 on the CPU, error relative to the largest value of the result. KERNEL_SIZE
# products are summed: the rounding error is near sqrt(256) * 6e-8 = 1e-6, and on a CPU below 1e-5 in the tests. TF32,
# which keeps ten bits and is switched off here, would give 1e-3.
KERNEL_SIZE = 256
KERNEL_BOUND = 1e-4

# The libraries that a user's LD_LIBRARY_PATH can push in front of those that torch was built with.
CUDA_LIBRARIES = (
    "libcudnn",
    "libcublas",
    "libcublasLt",
    "libcudart",
    "libnccl",
    "libcufft",
    "libcurand",
    "libcusparse",
    "libcusolver",
    "libnvrtc",
)
# libcudart.so.11.0, libcudnn_ops_infer.so.8, and the renamed copies in wheels: libcudart-9335f6a2.so.11.0,
# libcudart.782fcab0.so.11.0
_LIBRARY = re.compile(
    r"({})(?:_[a-z0-9_]+|-builtins)?(?:[-.][0-9a-f]{{8}})?\.so(?:\.|$)".format("|".join(CUDA_LIBRARIES))
)

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
REBOOT_NEEDED = "GF-REBOOT-NEEDED"
NOTHING_EXPECTED = "nothing expected: give --expect to compare it"


class Expectations:
    """What the plan says. ``has`` tells an expectation of null from no expectation."""

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        self._given = dict(given or {})
        wrong = sorted(key for key, kind in EXPECTATION_KINDS.items() if not self._is(key, kind))
        if wrong:
            raise ValueError("--expect: wrong type of value for {}".format(", ".join(wrong)))

    def _is(self, key: str, kind: Any) -> bool:
        value = self._given.get(key)
        return value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))

    def has(self, key: str) -> bool:
        return key in self._given

    def get(self, key: str, otherwise: Any = None) -> Any:
        value = self._given.get(key)
        return otherwise if value is None else value

    @property
    def seed(self) -> int:
        return int(self.get("seed", DEFAULT_SEED))

    @property
    def gpus(self) -> int | None:
        value = self.get("gpus")
        return None if value is None else int(value)

    @property
    def skip_reason(self) -> str | None:
        """Why no GPU is checked, or None."""
        if self.get("gpu_checks") != "skip":
            return None
        return str(self.get("gpu_skip_reason", "the plan says so and gives no reason"))

    @property
    def driver_pending(self) -> bool:
        return bool(self.get("driver_pending", False))


EXPECTATION_KINDS: dict[str, Any] = {
    "torch_version": str,
    "cuda": str,
    "cudnn": str,
    "torchvision": str,
    "torchaudio": str,
    "gpus": int,
    "compute_capabilities": list,
    "gpu_checks": str,
    "gpu_skip_reason": str,
    "driver_pending": bool,
    "seed": int,
}


# ---- outcomes -------------------------------------------------------------------------------------------------------


def outcome(good: bool, measured: Any, expected: Any, message: str) -> dict[str, Any]:
    """Passed or failed; the message is for the one who reads a failure and is kept only there."""
    return {
        "status": PASSED if good else FAILED,
        "measured": measured,
        "expected": expected,
        "message": "" if good else message,
    }


def skipped(measured: Any, message: str, expected: Any = None) -> dict[str, Any]:
    return {"status": SKIPPED, "measured": measured, "expected": expected, "message": message}


def run_check(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one check; one that raises has failed."""
    started = time.monotonic()
    try:
        result = function()
    except Exception as error:  # whatever a broken torch raises is the finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)} line {where.lineno}"
        text = f"{type(error).__name__}: {error} ({place})"
        result = {"status": FAILED, "measured": None, "expected": None, "message": text}
    return {
        "name": name,
        "status": result["status"],
        "measured": plain(result["measured"]),
        "expected": plain(result["expected"]),
        "seconds": round(time.monotonic() - started, 3),
        "message": result["message"],
    }


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity, which it can't, become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


# ---- versions and libraries -----------------------------------------------------------------------------------------


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


def mapped_files(maps: str) -> list[str]:
    """The files named in the text of /proc/self/maps."""
    fields = (line.split(None, 5) for line in maps.splitlines())
    return sorted({parts[5].strip() for parts in fields if len(parts) == 6 and parts[5].startswith("/")})


def cuda_libraries(paths: list[str]) -> list[str]:
    return [path for path in paths if _LIBRARY.match(os.path.basename(path))]


def foreign(paths: list[str], roots: list[str]) -> list[str]:
    """Those that lie in none of the folders."""
    return [path for path in paths if not any(path.startswith(root.rstrip("/") + "/") for root in roots)]


def environment_roots(torch: Any) -> list[str]:
    """The folders that a library of this environment may come from.

    The one that torch is installed in; and the environment's own where it is one (virtual or conda): a Python of the
    system has /usr as its prefix, and a library in /usr is just what must not be taken for torch's own.
    """
    roots = [os.path.dirname(os.path.dirname(os.path.realpath(torch.__file__)))]
    if sys.prefix != sys.base_prefix or os.path.isdir(os.path.join(sys.prefix, "conda-meta")):
        roots.append(os.path.realpath(sys.prefix))
    return roots


def check_libraries(torch: Any) -> dict[str, Any]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        loaded = cuda_libraries(mapped_files(maps.read()))
    roots = environment_roots(torch)
    strangers = foreign(loaded, roots)
    message = "torch was given libraries that are not its own: {} (LD_LIBRARY_PATH={})".format(
        ", ".join(strangers),
        os.environ.get("LD_LIBRARY_PATH", ""),
    )
    return outcome(not strangers, {"loaded": loaded, "foreign": strangers}, {"foreign": [], "inside": roots}, message)


# ---- tensors and GPUs -----------------------------------------------------------------------------------------------


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


def kernel_errors(torch: Any, device: Any, seed: int) -> dict[str, float]:
    """How far a product, an elementwise function and a convolution on the device are from float64 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(KERNEL_SIZE, KERNEL_SIZE, generator=generator)
    right = torch.randn(KERNEL_SIZE, KERNEL_SIZE, generator=generator)
    image = torch.randn(2, 8, 32, 32, generator=generator)
    weight = torch.randn(4, 8, 3, 3, generator=generator)
    functional = torch.nn.functional

    def compute(where: Any, kind: Any) -> dict[str, Any]:
        a, b, c, d = (tensor.to(device=where, dtype=kind) for tensor in (left, right, image, weight))
        return {"matmul": a @ b, "elementwise": torch.sigmoid(a) * b + a, "convolution": functional.conv2d(c, d)}

    exact = compute("cpu", torch.float64)
    found = {name: tensor.cpu().double() for name, tensor in compute(device, torch.float32).items()}
    return {name: ((found[name] - exact[name]).abs().max() / exact[name].abs().max()).item() for name in exact}


def without_tf32(torch: Any, function: Callable[[], Any]) -> Any:
    """TF32 rounds to ten bits; the kernels are compared with it switched off."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        return function()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def cuda_device(torch: Any, index: int) -> Any:
    return torch.device("cuda", index)


def check_gpu_kernel(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    capability = ".".join(str(part) for part in torch.cuda.get_device_capability(index))
    architectures = list(torch.cuda.get_arch_list())
    expected_capabilities = wanted.get("compute_capabilities", [])
    errors = without_tf32(torch, lambda: kernel_errors(torch, cuda_device(torch, index), wanted.seed))
    measured = {
        "device": torch.cuda.get_device_name(index),
        "compute_capability": capability,
        "architectures": architectures,
        "errors": errors,
    }
    expected = {"error_below": KERNEL_BOUND, "compute_capabilities": expected_capabilities}
    problems = [f"{name} is off by {error:.3g}" for name, error in errors.items() if not error < KERNEL_BOUND]
    if not served_by(capability, architectures):
        problems.append(f"this torch was not compiled for compute capability {capability}")
    if expected_capabilities and capability not in expected_capabilities:
        problems.append(f"compute capability {capability} is not the planned one")
    return outcome(not problems, measured, expected, "; ".join(problems))


# ---- the network: gradients -----------------------------------------------------------------------------------------


def sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z))


def analytic_gradients(parameters: dict[str, Any], sigmoid_output: bool) -> dict[str, Any]:
    """The tutorial's chain rule, dL/dW = dL/da * da/dz * dz/dW, in plain Python: no part of torch checks itself.

    :param parameters: W1 (5 x 2), b1 (5), W2 (1 x 5), b2 (1) as lists.
    :param sigmoid_output: a2 = sigma(z2) as the tutorial prints it; otherwise a2 = z2.
    """
    w1, b1, w2, b2 = (parameters[name] for name in ("W1", "b1", "W2", "b2"))
    grad_w1 = [[0.0] * INPUTS for _row in range(HIDDEN)]
    grad_b1 = [0.0] * HIDDEN
    grad_w2 = [[0.0] * HIDDEN for _row in range(OUTPUTS)]
    grad_b2 = [0.0] * OUTPUTS
    for x, y in zip(X, Y):
        a1 = [sigmoid(sum(w1[j][i] * x[i] for i in range(INPUTS)) + b1[j]) for j in range(HIDDEN)]
        for k in range(OUTPUTS):
            z2 = sum(w2[k][j] * a1[j] for j in range(HIDDEN)) + b2[k]
            a2 = sigmoid(z2) if sigmoid_output else z2
            dl_da2 = a2 - y[k]
            da2_dz2 = a2 * (1.0 - a2) if sigmoid_output else 1.0
            dl_dz2 = dl_da2 * da2_dz2
            grad_b2[k] += dl_dz2
            for j in range(HIDDEN):
                grad_w2[k][j] += dl_dz2 * a1[j]
                dl_da1 = dl_dz2 * w2[k][j]
                dl_dz1 = dl_da1 * a1[j] * (1.0 - a1[j])
                grad_b1[j] += dl_dz1
                for i in range(INPUTS):
                    grad_w1[j][i] += dl_dz1 * x[i]
    return {"W1": grad_w1, "b1": grad_b1, "W2": grad_w2, "b2": grad_b2}


def autograd_gradients(torch: Any, parameters: dict[str, Any], sigmoid_output: bool) -> dict[str, Any]:
    """The same gradients by torch, in float64."""
    tensors = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in parameters.items()}
    x, y = torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)
    a1 = torch.sigmoid(x @ tensors["W1"].t() + tensors["b1"])
    z2 = a1 @ tensors["W2"].t() + tensors["b2"]
    a2 = torch.sigmoid(z2) if sigmoid_output else z2
    half_squared_error(y, a2).backward()
    return {name: tensor.grad.tolist() for name, tensor in tensors.items()}


def flat(values: Any) -> list[float]:
    return [cell for item in values for cell in flat(item)] if isinstance(values, list) else [float(values)]


def relative_error(found: Any, exact: Any) -> float:
    """The largest difference between two gradients, relative to the largest value of the exact one."""
    pairs = list(zip(flat(found), flat(exact)))
    if len(flat(found)) != len(flat(exact)) or not all(math.isfinite(a) and math.isfinite(b) for a, b in pairs):
        return math.inf
    largest = max(abs(b) for a, b in pairs)
    difference = max(abs(a - b) for a, b in pairs)
    if largest == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return difference / largest


def check_gradients(torch: Any, wanted: Expectations, sigmoid_output: bool) -> dict[str, Any]:
    network = new_network(torch, wanted.seed).double()
    names = ("W1", "b1", "W2", "b2")
    parameters = {name: tensor.detach().tolist() for name, tensor in zip(names, network.parameters())}
    found = autograd_gradients(torch, parameters, sigmoid_output)
    exact = analytic_gradients(parameters, sigmoid_output)
    errors = {name: relative_error(found[name], exact[name]) for name in names}
    worst = max(errors, key=lambda name: errors[name])
    message = f"autograd and the chain rule differ by {errors[worst]:.3g} in dL/d{worst}"
    return outcome(
        all(error < GRADIENT_BOUND for error in errors.values()),
        {"relative_errors": errors, "gradients": found},
        {"relative_error_below": GRADIENT_BOUND, "gradients": exact},
        message,
    )


# ---- the network: training ------------------------------------------------------------------------------------------


def new_network(torch: Any, seed: int) -> Any:
    """2-5-1 with a sigmoid in the hidden layer and a linear output; always made on the CPU, so always the same."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Sigmoid(), torch.nn.Linear(HIDDEN, OUTPUTS))


def half_squared_error(y: Any, a2: Any) -> Any:
    """L = 1/2 * sum (y - a2)^2"""
    return 0.5 * ((y - a2) ** 2).sum()


def train(torch: Any, network: Any, targets: list[list[float]], steps: int, device: Any) -> dict[str, Any]:
    """Train with Adam what is not frozen, and say how it went."""
    x, y = torch.tensor(X, device=device), torch.tensor(targets, device=device)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE)
    start = half_squared_error(y, network(x)).item()
    for _step in range(steps):
        optimizer.zero_grad()
        half_squared_error(y, network(x)).backward()
        optimizer.step()
    with torch.no_grad():
        predictions = network(x)
        end = half_squared_error(y, predictions).item()
    return {
        "loss_start": start,
        "loss_end": end,
        "steps": steps,
        "predictions": flat(predictions.tolist()),
        "targets": flat(targets),
    }


def trained(torch: Any, seed: int, device: Any = "cpu", steps: int = TRAINING_STEPS) -> tuple[Any, dict[str, Any]]:
    network = new_network(torch, seed).to(device)
    return network, train(torch, network, Y, steps, device)


def training_problems(result: dict[str, Any], bound: float) -> list[str]:
    """NaN compares as false, hence the form of the comparisons."""
    problems = []
    if not result["loss_end"] < bound:
        problems.append(f"the loss is {result['loss_end']:.4g} after {result['steps']} steps")
    if not result["loss_start"] > bound:
        problems.append(f"the loss was {result['loss_start']:.4g} before training: nothing was learnt")
    return problems


def check_training(torch: Any, wanted: Expectations) -> dict[str, Any]:
    result = trained(torch, wanted.seed)[1]
    result["seed"] = wanted.seed
    problems = training_problems(result, TRAINING_LOSS_BOUND)
    return outcome(not problems, result, {"loss_below": TRAINING_LOSS_BOUND}, "; ".join(problems))


def check_gpu_training(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """Trained on the GPU from the same start, the network answers as the one trained on the CPU."""
    on_cpu = trained(torch, wanted.seed)[1]
    result = trained(torch, wanted.seed, cuda_device(torch, index))[1]
    pairs = zip(result["predictions"], on_cpu["predictions"])
    difference = max(abs(a - b) for a, b in pairs)
    result["difference_from_cpu"] = difference
    problems = training_problems(result, TRAINING_LOSS_BOUND)
    if not difference < TRAINING_AGREEMENT_BOUND:
        problems.append(f"its predictions differ from the CPU's by {difference:.4g}")
    expected = {"loss_below": TRAINING_LOSS_BOUND, "difference_from_cpu_below": TRAINING_AGREEMENT_BOUND}
    return outcome(not problems, result, expected, "; ".join(problems))


def freeze(layer: Any) -> None:
    for parameter in layer.parameters():
        parameter.requires_grad_(False)


def copied(layer: Any) -> list[Any]:
    return [parameter.detach().clone() for parameter in layer.parameters()]


def identical(torch: Any, before: list[Any], after: list[Any]) -> bool:
    """Bit for bit: torch.equal takes 0.0 and -0.0 for equal, so the bits are compared."""
    return len(before) == len(after) and all(
        torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32)) for a, b in zip(before, after)
    )


def check_fine_tuning(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """The first layer frozen, the second trained on new targets."""
    network = trained(torch, wanted.seed)[0]
    first, second = network[0], network[2]
    freeze(first)
    first_before, second_before = copied(first), copied(second)
    result = train(torch, network, Y_FINE_TUNING, FINE_TUNING_STEPS, "cpu")
    result["frozen_identical"] = identical(torch, first_before, copied(first))
    result["trained_changed"] = not identical(torch, second_before, copied(second))
    problems = training_problems(result, FINE_TUNING_LOSS_BOUND)
    if not result["frozen_identical"]:
        problems.append("the frozen layer has changed")
    if not result["trained_changed"]:
        problems.append("the layer that was to be trained has not changed")
    expected = {"loss_below": FINE_TUNING_LOSS_BOUND, "frozen_identical": True, "trained_changed": True}
    return outcome(not problems, result, expected, "; ".join(problems))


def check_reproducible(torch: Any, wanted: Expectations) -> dict[str, Any]:
    first, second = (copied(trained(torch, wanted.seed)[0]) for _run in range(2))
    other = copied(trained(torch, wanted.seed + 1, steps=1)[0])
    measured = {
        "same_seed_identical": identical(torch, first, second),
        "other_seed_differs": not identical(torch, first, other),
    }
    expected = {"same_seed_identical": True, "other_seed_differs": True}
    return outcome(measured == expected, measured, expected, f"the seed does not decide the result: {measured}")


# ---- all together ---------------------------------------------------------------------------------------------------


def all_checks(torch: Any, wanted: Expectations) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every check in order. The libraries come last: by then torch has loaded all that the others needed."""
    yield "torch_version", lambda: check_torch_version(torch, wanted)
    yield "torch_cuda_version", lambda: check_torch_cuda_version(torch, wanted)
    yield "torch_cudnn_version", lambda: check_torch_cudnn_version(torch, wanted)
    yield "torchvision", lambda: check_import("torchvision", wanted)
    yield "torchaudio", lambda: check_import("torchaudio", wanted)
    yield "tensor", lambda: check_tensor(torch)
    yield "cuda_available", lambda: check_cuda_available(torch, wanted)
    yield from gpu_checks(torch, wanted, "gpu_kernel", lambda index: check_gpu_kernel(torch, wanted, index))
    yield "mlp_gradients", lambda: check_gradients(torch, wanted, sigmoid_output=False)
    yield "mlp_gradients_sigmoid_output", lambda: check_gradients(torch, wanted, sigmoid_output=True)
    yield "mlp_training", lambda: check_training(torch, wanted)
    yield from gpu_checks(torch, wanted, "gpu_training", lambda index: check_gpu_training(torch, wanted, index))
    yield "fine_tuning", lambda: check_fine_tuning(torch, wanted)
    yield "reproducible", lambda: check_reproducible(torch, wanted)
    yield "libraries", lambda: check_libraries(torch)


def report(torch: Any, wanted: Expectations) -> dict[str, Any]:
    started = time.monotonic()
    checks = [run_check(name, function) for name, function in all_checks(torch, wanted)]
    return {
        "schema": 1,
        "ok": not any(check["status"] == FAILED for check in checks),
        "python": platform.python_version(),
        "checks": checks,
        "seconds": round(time.monotonic() - started, 3),
    }


def brief(check: dict[str, Any]) -> str:
    """What a reader of the table wants to know of a check."""
    if check["message"]:
        return str(check["message"])
    measured = check["measured"]
    if isinstance(measured, dict) and "loss_end" in measured:
        return f"loss {measured['loss_start']:.4g} -> {measured['loss_end']:.2g} in {measured['steps']} steps"
    if isinstance(measured, dict) and "relative_errors" in measured:
        return f"largest relative error {max(measured['relative_errors'].values()):.1e}"
    if isinstance(measured, dict) and "loaded" in measured:
        return f"{len(measured['loaded'])} CUDA libraries loaded, all of this environment"
    if isinstance(measured, dict) and "device" in measured:
        return f"{measured['device']}, compute capability {measured['compute_capability']}"
    if isinstance(measured, dict):
        return ", ".join(f"{key} {value}" for key, value in measured.items())
    return str(measured)


def table(result: dict[str, Any]) -> str:
    checks = result["checks"]
    width = max(len(check["name"]) for check in checks)
    lines = []
    for check in checks:
        text = brief(check)
        if check["status"] == SKIPPED and check["measured"] is not None:
            text = f"{json.dumps(check['measured'])} ({text})"
        lines.append(f"{check['status']:<7}  {check['name']:<{width}}  {text}")
    count = {status: sum(1 for check in checks if check["status"] == status) for status in (PASSED, FAILED, SKIPPED)}
    lines.append("")
    lines.append(
        f"{'OK' if result['ok'] else 'NOT OK'}: {count[PASSED]} passed, {count[FAILED]} failed, "
        f"{count[SKIPPED]} skipped in {result['seconds']:.1f} s"
    )
    return "\n".join(lines)


def read_expectations(path: str | None) -> Expectations:
    if path is None:
        return Expectations()
    with open(path, encoding="utf-8") as file:
        given = json.load(file)
    if not isinstance(given, dict):
        raise ValueError(f"--expect: {path} does not hold a JSON object")  # it is the file that is wrong
    return Expectations(given)


def quiet_stdout() -> Any:
    """Standard output for the result alone: what libraries print there goes to standard error instead."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prove that the PyTorch of this Python computes what it should.")
    parser.add_argument("--expect", metavar="FILE.json", help="what the plan says; see the head of this file")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--level", choices=LEVELS, default=LEVELS[0], help="how much is checked")
    options = parser.parse_args(arguments)
    try:
        wanted = read_expectations(options.expect)
    except (OSError, ValueError) as error:
        print(f"gpufleet_verify: {error}", file=sys.stderr)
        return EXIT_COULD_NOT_RUN
    out = quiet_stdout()
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a half-removed environment raises anything
        print(f"gpufleet_verify: {sys.executable} cannot import torch: {error}", file=sys.stderr)
        return EXIT_COULD_NOT_RUN
    result = report(torch, wanted)
    print(json.dumps(result, allow_nan=False, sort_keys=True) if options.json else table(result), file=out)
    out.close()
    return EXIT_PASSED if result["ok"] else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
