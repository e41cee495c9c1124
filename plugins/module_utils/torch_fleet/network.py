# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tutorial's network, and what each rank learns from: three points, y = x1 + x2. Private to the collection."""

from __future__ import annotations

import hashlib
from typing import Any

from .run import Run

POINTS = 3


def new(run: Run, seed: int) -> Any:
    """The network before it has learnt anything; float64, so that little depends on the order of adding."""
    run.torch.manual_seed(seed)
    nn = run.torch.nn
    return nn.Sequential(nn.Linear(2, 5), nn.Sigmoid(), nn.Linear(5, 1)).double()


def points(run: Run, rank: int) -> tuple[Any, Any]:
    """The points of a rank: the same on every machine, as they are made on the CPU."""
    generator = run.torch.Generator().manual_seed(run.brief["seed"] * 1000003 + rank)
    x = run.torch.rand(POINTS, 2, generator=generator, dtype=run.torch.float64) * 4
    return x, x.sum(1, keepdim=True)


def loss(model: Any, x: Any, y: Any) -> Any:
    return 0.5 * (y - model(x)).pow(2).sum()


def flat(run: Run, tensors: Any) -> Any:
    """All numbers in one row."""
    return run.torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def digest(tensor: Any) -> str:
    """Of the bits, without NumPy, which an environment need not have: hex() of a float is exact."""
    return hashlib.sha256(" ".join(float(number).hex() for number in tensor.tolist()).encode()).hexdigest()
