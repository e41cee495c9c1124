# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gradients of the network by the chain rule, in plain Python, and by torch. Private to the collection."""

from __future__ import annotations

import math
from typing import Any

from .expectations import Expectations
from .network import HIDDEN, INPUTS, OUTPUTS, X, Y, flat, half_squared_error, new_network
from .outcomes import outcome

# Relative error between autograd and the chain rule by hand, float64. Rounding gives 5e-16 at worst over 200 seeds; a
# wrong term in the chain gives an error of the order of 1.
GRADIENT_BOUND = 1e-9


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
