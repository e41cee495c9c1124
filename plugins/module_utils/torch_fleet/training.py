# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training by all ranks, compared with that in one process. Private to the collection."""

from __future__ import annotations

from typing import Any

from . import network
from .run import Run

STEPS, LEARNING_RATE = 40, 0.05
# Largest difference from the training in one process, in float64: adding in another order gives 1e-13.
BOUND = 1e-7


def train_together(run: Run) -> tuple[Any, Any]:
    """DistributedDataParallel: the parameters at the end, and this rank's own gradients of every step."""
    seed = run.brief["seed"]
    # Another start on every rank: DDP has to give them that of rank 0.
    model = network.new(run, seed + run.rank).to(run.device)
    own: dict[int, Any] = {}
    for index, parameter in enumerate(model.parameters()):
        parameter.register_hook(lambda gradient, index=index: own.__setitem__(index, gradient.detach().clone()))
    on_gpu = {"device_ids": [run.device.index]} if run.device.type == "cuda" else {}
    parallel = run.torch.nn.parallel.DistributedDataParallel(model, **on_gpu)
    optimizer = run.torch.optim.Adam(parallel.parameters(), lr=LEARNING_RATE)
    x, y = (tensor.to(run.device) for tensor in network.points(run, run.rank))
    gradients = []
    for step in range(STEPS):
        run.progress.enter("training", step, f"step {step + 1} of {STEPS}")
        optimizer.zero_grad()
        network.loss(parallel, x, y).backward()
        gradients.append(network.flat(run, [own[index] for index in sorted(own)]))
        optimizer.step()
    return network.flat(run, model.parameters()), run.torch.stack(gradients)


def train_alone(run: Run) -> tuple[Any, float, float]:
    """The same in this process, with the points of all ranks: the parameters, and the loss before and after."""
    model = network.new(run, run.brief["seed"])
    optimizer = run.torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    shares = [network.points(run, rank) for rank in range(run.world)]
    x, y = (run.torch.cat([share[part] for share in shares]) for part in (0, 1))
    losses = []
    for _step in range(STEPS):
        optimizer.zero_grad()
        loss = network.loss(model, x, y) / run.world
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    losses.append((network.loss(model, x, y) / run.world).item())
    return network.flat(run, model.parameters()), losses[0], losses[-1]


def strangers(run: Run, gradients: list[Any]) -> list[int]:
    """The ranks whose gradients are not what this process computes for them, in the first step that has such."""
    model = network.new(run, run.brief["seed"])
    optimizer = run.torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    shares = [network.points(run, rank) for rank in range(run.world)]
    for step in range(STEPS):
        wrong = []
        for rank, (x, y) in enumerate(shares):
            optimizer.zero_grad()
            network.loss(model, x, y).backward()
            expected = network.flat(run, [parameter.grad for parameter in model.parameters()])
            # A comparison with NaN is false.
            near = difference(gradients[rank][step], expected) < BOUND
            if not near:
                wrong.append(rank)
        if wrong:
            return wrong
        average = run.torch.stack([gradient[step] for gradient in gradients]).mean(0)
        place = 0
        for parameter in model.parameters():
            parameter.grad = average[place : place + parameter.numel()].reshape(parameter.shape)
            place += parameter.numel()
        optimizer.step()
    return []


def difference(one: Any, other: Any) -> float:
    return float((one - other).abs().max().item())


def check_training(run: Run) -> None:
    """What all have learnt together, and how far it is from what one process learns."""
    parameters, gradients = train_together(run)
    run.progress.enter("training", STEPS, "compare gradients")
    all_gradients = [tensor.cpu() for tensor in run.gather(gradients)]
    parameters = parameters.cpu()
    run.progress.enter("training", STEPS + 1, "train in one process")
    alone, first, last = train_alone(run)
    apart = difference(parameters, alone)
    run.progress.results["training"] = {
        "parameters": network.digest(parameters),
        "difference": apart,
        "equal": apart < BOUND,
        "bound": BOUND,
        "strangers": [] if apart < BOUND else strangers(run, all_gradients),
        "loss_start": first,
        "loss_end": last,
    }
