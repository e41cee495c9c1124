"""Break one thing at a time under a real torch, and print what the check makes of it as JSON.

Run by the environment's Python: ``python break_things.py gpufleet_verify.pyz``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sys
import tempfile
from unittest import mock

sys.path.insert(0, sys.argv[1])

import torch
from gpufleet_verify import devices, gradients, kernels, levels, libraries, models, network
from gpufleet_verify.expectations import Expectations
from gpufleet_verify.outcomes import run_check

NO_GPU = Expectations({"gpus": 0, "gpu_checks": "skip", "gpu_skip_reason": "none", "soak_seconds": 1})
CASES = {}


def case(check):
    """Register a function that returns a context in which the check runs."""

    def register(function):
        CASES[function.__name__] = (check, function)
        return function

    return register


def patched(name, value, target):
    return mock.patch.object(target, name, value)


@case("mlp_gradients")
def formula_off_by_a_ten_millionth():
    right = gradients.analytic_gradients

    def wrong(parameters, sigmoid_output):
        found = right(parameters, sigmoid_output)
        found["W1"] = [[cell * 1.0000001 for cell in row] for row in found["W1"]]
        return found

    return patched("analytic_gradients", wrong, gradients)


@case("mlp_gradients_sigmoid_output")
def formula_with_a_linear_output():
    right = gradients.analytic_gradients
    return patched("analytic_gradients", lambda parameters, sigmoid_output: right(parameters, False), gradients)


@case("mlp_gradients")
def autograd_gives_nan():
    right = gradients.autograd_gradients

    def wrong(*arguments):
        return {**right(*arguments), "b2": [float("nan")]}

    return patched("autograd_gradients", wrong, gradients)


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
    return patched("freeze", lambda layer: None, network)


@case("fine_tuning")
def frozen_layer_moves_by_one_bit():
    right = network.train

    def wrong(torch_, net, targets, steps, device):
        result = right(torch_, net, targets, steps, device)
        if targets is network.Y_FINE_TUNING:
            with torch.no_grad():
                net[0].bias.view(torch.int32)[0] ^= 1
        return result

    return patched("train", wrong, network)


@case("mlp_training")
def nothing_is_learnt():
    return patched("LEARNING_RATE", 0.0, network)


@case("mlp_training")
def loss_is_nan():
    return patched("half_squared_error", lambda y, a2: ((y - a2) * float("nan")).sum(), network)


@case("mlp_training")
def loss_is_always_zero():
    return patched("half_squared_error", lambda y, a2: ((y - a2) * 0.0).sum(), network)


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
        own, *_more = [path for path in libraries.mapped_files(maps.read()) if "libcudart" in path]
    with tempfile.TemporaryDirectory() as folder:
        ctypes.CDLL(shutil.copy(own, os.path.join(folder, "libcudart.so.11.0")))
        yield


@case("cuda_available")
def gpu_that_the_plan_does_not_know():
    stack = contextlib.ExitStack()
    stack.enter_context(patched("is_available", lambda: True, torch.cuda))
    stack.enter_context(patched("device_count", lambda: 1, torch.cuda))
    return stack


def changed_product(change):
    """Products with the operator @ as ``change`` makes them of the right one."""
    right = torch.Tensor.__matmul__
    return patched("__matmul__", lambda a, b: change(right(a, b)), torch.Tensor)


@case("precision")
def product_in_bfloat16_is_nan():
    return changed_product(lambda result: result * float("nan") if result.dtype is torch.bfloat16 else result)


@case("precision")
def product_in_bfloat16_is_off_by_a_twentieth():
    return changed_product(lambda result: result * 1.05 if result.dtype is torch.bfloat16 else result)


@case("soak")
def one_bit_of_the_third_product_flips():
    count = iter(range(1_000_000))

    def flip(result):
        if next(count) == 3:
            result.view(torch.int32)[7, 7] ^= 1
        return result

    return changed_product(flip)


@case("soak")
def every_product_is_nan():
    return changed_product(lambda result: result.fill_(float("nan")))


def losses(value):
    return patched("cross_entropy", lambda answers, targets: (answers * value).sum(), torch.nn.functional)


@case("convolutional_training")
def loss_of_the_images_is_nan():
    return losses(float("nan"))


@case("transformer_training")
def attention_sees_nothing():
    right = models.transformer

    def blind(torch_, seed):
        model, rows, targets = right(torch_, seed)
        return model, torch.zeros_like(rows), targets

    return patched("transformer", blind, models)


@case("amp_training")
def loss_in_mixed_precision_stays():
    return losses(0.0)


@case("data_loader")
def workers_bring_other_items():
    right = torch.utils.data.DataLoader

    def loader(items, batch, num_workers, **more):
        found = list(right(items, batch, num_workers=0, **more))
        return found[1:] + found[:1] if num_workers else found

    return patched("DataLoader", loader, torch.utils.data)


@case("data_loader")
def workers_bring_an_item_twice():
    right = torch.utils.data.DataLoader

    def loader(items, batch, num_workers, **more):
        found = list(right(items, batch, num_workers=0, **more))
        return [*found[:-1], found[0]] if num_workers else found

    return patched("DataLoader", loader, torch.utils.data)


@case("checkpoint")
def one_bit_flips_on_the_disk():
    right = torch.save

    def save(state, path):
        with torch.no_grad():
            next(iter(state["model"].values())).view(torch.int32).view(-1)[0] ^= 1
        right(state, path)

    return patched("save", save, torch)


def stand_in(capability=(8, 0), architectures=("sm_80",)):
    """The CPU in the place of one GPU: what surrounds the kernels is tested, not the kernels."""
    stack = contextlib.ExitStack()
    for name, value in (
        ("get_device_capability", lambda index: capability),
        ("get_device_name", lambda index: "NVIDIA stand-in"),
        ("get_arch_list", lambda: list(architectures)),
    ):
        stack.enter_context(patched(name, value, torch.cuda))
    stack.enter_context(patched("cuda_device", lambda torch_, index: torch.device("cpu"), devices))
    return stack


def wrong_product():
    right = torch.sigmoid
    stack = stand_in()
    stack.enter_context(patched("sigmoid", lambda t: right(t) * (1.001 if t.dtype is torch.float32 else 1.0), torch))
    return stack


def training_differs():
    right = network.trained
    stack = stand_in()

    def trained(torch_, seed, device="cpu", steps=network.TRAINING_STEPS):
        net, result = right(torch_, seed, device, steps)
        if device != "cpu":
            result["predictions"][1] += 0.5
        return net, result

    stack.enter_context(patched("trained", trained, network))
    return stack


ON_GPU = {
    "right": ("gpu_kernel:0", stand_in),
    "right_training": ("gpu_training:0", stand_in),
    "architecture_not_served": ("gpu_kernel:0", lambda: stand_in(architectures=("sm_37", "sm_90"))),
    "another_capability": ("gpu_kernel:0", lambda: stand_in(capability=(8, 6))),
    "wrong_result": ("gpu_kernel:0", wrong_product),
    "training_differs": ("gpu_training:0", training_differs),
}
A100 = Expectations({"gpus": 1, "gpu_checks": "run", "compute_capabilities": ["8.0"]})

# Only while the checks are listed: Adam would believe it, too, and ask for a stream.
with patched("is_available", lambda: True, torch.cuda), patched("device_count", lambda: 1, torch.cuda):
    of_one_gpu = dict(levels.all_checks(torch, A100, "health"))
on_gpu = {}
for name, (check, context) in ON_GPU.items():
    with context():
        on_gpu[name] = run_check(check, of_one_gpu[check])
results = {}
for name, (check, broken) in CASES.items():
    whole = dict(levels.all_checks(torch, NO_GPU, "health"))
    with broken():
        results[name] = run_check(check, whole[check])
exact = kernels.kernel_errors(torch, torch.device("cpu"), 0)
json.dump(
    {"cases": results, "on_gpu": on_gpu, "kernel_errors": exact, "kernel_bound": kernels.KERNEL_BOUND},
    sys.stdout,
    allow_nan=False,
)
