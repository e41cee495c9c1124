# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tutorial's network and how it is trained. Private to the collection."""

from __future__ import annotations

import math
from typing import Any

X = [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
Y = [[3.0], [5.0], [7.0]]
Y_FINE_TUNING = [[4.0], [6.0], [8.0]]
INPUTS, HIDDEN, OUTPUTS = 2, 5, 1

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

CURVE_POINTS = 50


def new_network(torch: Any, seed: int) -> Any:
    """2-5-1 with a sigmoid in the hidden layer and a linear output; always made on the CPU, so always the same."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Sigmoid(), torch.nn.Linear(HIDDEN, OUTPUTS))


def half_squared_error(y: Any, a2: Any) -> Any:
    """L = 1/2 * sum (y - a2)^2"""
    return 0.5 * ((y - a2) ** 2).sum()


def flat(values: Any) -> list[float]:
    """Nested lists as one."""
    return [cell for item in values for cell in flat(item)] if isinstance(values, list) else [float(values)]


def train(torch: Any, network: Any, targets: list[list[float]], steps: int, device: Any) -> dict[str, Any]:
    """Train with Adam what is not frozen, and say how it went."""
    x, y = torch.tensor(X, device=device), torch.tensor(targets, device=device)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE)
    curve: list[list[float]] = []
    every = max(1, steps // CURVE_POINTS)
    for step in range(steps):
        optimizer.zero_grad()
        loss = half_squared_error(y, network(x))
        if step % every == 0:
            curve.append([step, loss.item()])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predictions = network(x)
        end = half_squared_error(y, predictions).item()
    return {
        "loss_start": curve[0][1],
        "loss_end": end,
        "loss_curve": [*curve, [steps, end]],
        "steps": steps,
        "predictions": flat(predictions.tolist()),
        "targets": flat(targets),
    }


def trained(torch: Any, seed: int, device: Any = "cpu", steps: int = TRAINING_STEPS) -> tuple[Any, dict[str, Any]]:
    """A network after training, and how that went."""
    network = new_network(torch, seed).to(device)
    return network, train(torch, network, Y, steps, device)


def freeze(layer: Any) -> None:
    """Let an optimizer leave the layer alone."""
    for parameter in layer.parameters():
        parameter.requires_grad_(False)


def copied(layer: Any) -> list[Any]:
    """The weights of a layer as they are now."""
    return [parameter.detach().clone() for parameter in layer.parameters()]


def identical(torch: Any, before: list[Any], after: list[Any]) -> bool:
    """Bit for bit: torch.equal takes 0.0 and -0.0 for equal, so the bits are compared."""
    return len(before) == len(after) and all(
        torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32)) for a, b in zip(before, after)
    )
