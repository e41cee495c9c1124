# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the tutorial's network learns, is tuned, and does so alike each time. Private to the collection."""

from __future__ import annotations

from typing import Any

from . import devices, network
from .expectations import Expectations
from .outcomes import outcome


def training_problems(result: dict[str, Any], bound: float) -> list[str]:
    """NaN compares as false, hence the form of the comparisons."""
    problems = []
    if not result["loss_end"] < bound:
        problems.append(f"the loss is {result['loss_end']:.4g} after {result['steps']} steps")
    if not result["loss_start"] > bound:
        problems.append(f"the loss was {result['loss_start']:.4g} before training: nothing was learnt")
    return problems


def check_training(torch: Any, wanted: Expectations) -> dict[str, Any]:
    result = network.trained(torch, wanted.seed)[1]
    result["seed"] = wanted.seed
    problems = training_problems(result, network.TRAINING_LOSS_BOUND)
    return outcome(not problems, result, {"loss_below": network.TRAINING_LOSS_BOUND}, "; ".join(problems))


def check_gpu_training(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """Trained on the GPU from the same start, the network answers as the one trained on the CPU."""
    on_cpu = network.trained(torch, wanted.seed)[1]
    result = network.trained(torch, wanted.seed, devices.cuda_device(torch, index))[1]
    pairs = zip(result["predictions"], on_cpu["predictions"])
    difference = max(abs(a - b) for a, b in pairs)
    result["difference_from_cpu"] = difference
    problems = training_problems(result, network.TRAINING_LOSS_BOUND)
    if not difference < network.TRAINING_AGREEMENT_BOUND:
        problems.append(f"its predictions differ from the CPU's by {difference:.4g}")
    expected = {
        "loss_below": network.TRAINING_LOSS_BOUND,
        "difference_from_cpu_below": network.TRAINING_AGREEMENT_BOUND,
    }
    return outcome(not problems, result, expected, "; ".join(problems))


def check_fine_tuning(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """The first layer frozen, the second trained on new targets."""
    net = network.trained(torch, wanted.seed)[0]
    first, second = net[0], net[2]
    network.freeze(first)
    first_before, second_before = network.copied(first), network.copied(second)
    result = network.train(torch, net, network.Y_FINE_TUNING, network.FINE_TUNING_STEPS, "cpu")
    result["frozen_identical"] = network.identical(torch, first_before, network.copied(first))
    result["trained_changed"] = not network.identical(torch, second_before, network.copied(second))
    problems = training_problems(result, network.FINE_TUNING_LOSS_BOUND)
    if not result["frozen_identical"]:
        problems.append("the frozen layer has changed")
    if not result["trained_changed"]:
        problems.append("the layer that was to be trained has not changed")
    expected = {"loss_below": network.FINE_TUNING_LOSS_BOUND, "frozen_identical": True, "trained_changed": True}
    return outcome(not problems, result, expected, "; ".join(problems))


def check_reproducible(torch: Any, wanted: Expectations) -> dict[str, Any]:
    first, second = (network.copied(network.trained(torch, wanted.seed)[0]) for _run in range(2))
    other = network.copied(network.trained(torch, wanted.seed + 1, steps=1)[0])
    measured = {
        "same_seed_identical": network.identical(torch, first, second),
        "other_seed_differs": not network.identical(torch, first, other),
    }
    expected = {"same_seed_identical": True, "other_seed_differs": True}
    return outcome(measured == expected, measured, expected, f"the seed does not decide the result: {measured}")
