"""Break one thing at a time under a real torch, and print what the check makes of it as JSON.

Run by the environment's Python: ``python break_things.py gpufleet_verify.py``.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from unittest import mock

spec = importlib.util.spec_from_file_location("gpufleet_verify", sys.argv[1])
verify = importlib.util.module_from_spec(spec)
sys.modules["gpufleet_verify"] = verify
spec.loader.exec_module(verify)

import torch  # noqa: E402

NO_GPU = verify.Expectations({"gpus": 0, "gpu_checks": "skip", "gpu_skip_reason": "none"})
CASES = {}


def case(check):
    """Register a function that returns a context in which the check runs."""

    def register(function):
        CASES[function.__name__] = (check, function)
        return function

    return register


def patched(name, value, target=verify):
    return mock.patch.object(target, name, value)


@case("mlp_gradients")
def formula_off_by_a_ten_millionth():
    right = verify.analytic_gradients

    def wrong(parameters, sigmoid_output):
        found = right(parameters, sigmoid_output)
        found["W1"] = [[cell * 1.0000001 for cell in row] for row in found["W1"]]
        return found

    return patched("analytic_gradients", wrong)


@case("mlp_gradients_sigmoid_output")
def formula_with_a_linear_output():
    right = verify.analytic_gradients
    return patched("analytic_gradients", lambda parameters, sigmoid_output: right(parameters, False))


@case("mlp_gradients")
def autograd_gives_nan():
    right = verify.autograd_gradients

    def wrong(*arguments):
        return {**right(*arguments), "b2": [float("nan")]}

    return patched("autograd_gradients", wrong)


@case("tensor")
def zeros_hold_a_one():
    def zeros(*shape):
        tensor = torch.empty(*shape).fill_(0.0)
        tensor[4, 2] = 1.0
        return tensor

    return patched("zeros", zeros, torch)


@case("tensor")
def zeros_of_another_shape():
    return patched("zeros", lambda *shape: torch.empty(3, 5).fill_(0.0), torch)


@case("tensor")
def zeros_of_another_type():
    return patched("zeros", lambda *shape: torch.empty(5, 3, dtype=torch.float64).fill_(0.0), torch)


@case("fine_tuning")
def first_layer_not_frozen():
    return patched("freeze", lambda layer: None)


@case("fine_tuning")
def frozen_layer_moves_by_one_bit():
    right = verify.train

    def wrong(torch_, network, targets, steps, device):
        result = right(torch_, network, targets, steps, device)
        if targets is verify.Y_FINE_TUNING:
            with torch.no_grad():
                network[0].bias.view(torch.int32)[0] ^= 1
        return result

    return patched("train", wrong)


@case("mlp_training")
def nothing_is_learnt():
    return patched("LEARNING_RATE", 0.0)


@case("mlp_training")
def loss_is_nan():
    return patched("half_squared_error", lambda y, a2: ((y - a2) * float("nan")).sum())


@case("mlp_training")
def loss_is_always_zero():
    return patched("half_squared_error", lambda y, a2: ((y - a2) * 0.0).sum())


@case("reproducible")
def seed_is_ignored():
    return patched("manual_seed", lambda seed: None, torch)


@case("tensor")
def check_raises():
    def zeros(*shape):
        raise RuntimeError("no such operator")

    return patched("zeros", zeros, torch)


@case("libraries")
@contextlib.contextmanager
def library_from_elsewhere():
    with open("/proc/self/maps", encoding="utf-8") as maps:
        own, *_more = [path for path in verify.mapped_files(maps.read()) if "libcudart" in path]
    with tempfile.TemporaryDirectory() as folder:
        ctypes.CDLL(shutil.copy(own, os.path.join(folder, "libcudart.so.11.0")))
        yield


@case("cuda_available")
def gpu_that_the_plan_does_not_know():
    stack = contextlib.ExitStack()
    stack.enter_context(patched("is_available", lambda: True, torch.cuda))
    stack.enter_context(patched("device_count", lambda: 1, torch.cuda))
    return stack


def stand_in(capability=(8, 0), architectures=("sm_80",)):
    """The CPU in the place of one GPU: what surrounds the kernels is tested, not the kernels."""
    stack = contextlib.ExitStack()
    for name, value in (
        ("get_device_capability", lambda index: capability),
        ("get_device_name", lambda index: "NVIDIA stand-in"),
        ("get_arch_list", lambda: list(architectures)),
    ):
        stack.enter_context(patched(name, value, torch.cuda))
    stack.enter_context(patched("cuda_device", lambda torch_, index: torch.device("cpu")))
    return stack


def wrong_product():
    right = torch.sigmoid
    stack = stand_in()
    stack.enter_context(patched("sigmoid", lambda t: right(t) * (1.001 if t.dtype is torch.float32 else 1.0), torch))
    return stack


def training_differs():
    right = verify.trained
    stack = stand_in()

    def trained(torch_, seed, device="cpu", steps=verify.TRAINING_STEPS):
        network, result = right(torch_, seed, device, steps)
        if device != "cpu":
            result["predictions"][1] += 0.5
        return network, result

    stack.enter_context(patched("trained", trained))
    return stack


ON_GPU = {
    "right": ("gpu_kernel:0", stand_in),
    "right_training": ("gpu_training:0", stand_in),
    "architecture_not_served": ("gpu_kernel:0", lambda: stand_in(architectures=("sm_37", "sm_90"))),
    "another_capability": ("gpu_kernel:0", lambda: stand_in(capability=(8, 6))),
    "wrong_result": ("gpu_kernel:0", wrong_product),
    "training_differs": ("gpu_training:0", training_differs),
}
A100 = verify.Expectations({"gpus": 1, "gpu_checks": "run", "compute_capabilities": ["8.0"]})

# Only while the checks are listed: Adam would believe it, too, and ask for a stream.
with patched("is_available", lambda: True, torch.cuda), patched("device_count", lambda: 1, torch.cuda):
    of_one_gpu = dict(verify.all_checks(torch, A100))
on_gpu = {}
for name, (check, context) in ON_GPU.items():
    with context():
        on_gpu[name] = verify.run_check(check, of_one_gpu[check])
results = {}
for name, (check, broken) in CASES.items():
    whole = dict(verify.all_checks(torch, NO_GPU))
    with broken():
        results[name] = verify.run_check(check, whole[check])
exact = verify.kernel_errors(torch, torch.device("cpu"), 0)
json.dump(
    {"cases": results, "on_gpu": on_gpu, "kernel_errors": exact, "kernel_bound": verify.KERNEL_BOUND},
    sys.stdout,
    allow_nan=False,
)
