# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people do with torch beyond a kernel: every kind of training, loading and saving. Private to the collection."""

from __future__ import annotations

import collections
import os
import tempfile
from typing import Any

from . import devices, models
from .expectations import Expectations
from .network import copied, identical
from .outcomes import outcome

# The loss is that of guessing at first (ln 2 and ln 16). With torch 2.0.1 the convolutional model ended below 2e-4 of that
# for 60 seeds, in float32 as in bfloat16, the transformer below 1e-2 for 10.
STEPS = {"convolutional": 40, "transformer": 120}
LOSS_SHARE = 0.25
WORKERS, ITEMS, BATCH = 2, 64, 8


def training(torch: Any, wanted: Expectations, kind: str, device: Any = "cpu", narrow: Any = None) -> dict[str, Any]:
    """Train one of the models; the loss has to fall to a quarter."""
    made = getattr(models, kind)(torch, wanted.seed)
    result = models.train(torch, made, device, STEPS[kind], narrow)
    bound = LOSS_SHARE * result["loss_start"]
    message = f"the loss went from {result['loss_start']:.4g} to {result['loss_end']:.4g} in {result['steps']} steps"
    return outcome(result["loss_end"] < bound, result, {"loss_below": bound}, message)


def gpu_training(torch: Any, wanted: Expectations, kind: str, index: int, narrow: Any = None) -> dict[str, Any]:
    """The same on a GPU."""
    return training(torch, wanted, kind, devices.cuda_device(torch, index), narrow)


def loaded_items(torch: Any, seed: int, workers: int) -> list[int]:
    """The items of a shuffled data set in the order in which a DataLoader with so many processes gives them."""
    items = torch.utils.data.TensorDataset(torch.arange(ITEMS))
    generator = torch.Generator().manual_seed(seed)
    loader = torch.utils.data.DataLoader(items, BATCH, shuffle=True, num_workers=workers, generator=generator)
    return [int(number) for (batch,) in loader for number in batch]


def check_data_loader(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """Worker processes bring every item once, in the order that one process has."""
    alone, shared = loaded_items(torch, wanted.seed, 0), loaded_items(torch, wanted.seed, WORKERS)
    counts = collections.Counter(shared)
    lacking = [number for number in range(ITEMS) if counts[number] != 1]
    measured = {"workers": WORKERS, "items": len(shared), "same_order": shared == alone, "not_once": lacking}
    expected = {"workers": WORKERS, "items": ITEMS, "same_order": True, "not_once": []}
    return outcome(measured == expected, measured, expected, f"{WORKERS} worker processes gave {measured}")


def check_checkpoint(torch: Any, wanted: Expectations, device: Any = "cpu") -> dict[str, Any]:
    """Weights and the optimizer's state are saved and loaded bit for bit, onto the CPU and back onto the device."""
    model, inputs, targets = models.convolutional(torch, wanted.seed)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.nn.functional.cross_entropy(model(inputs.to(device)), targets.to(device)).backward()
    optimizer.step()
    before = [weight.cpu() for weight in copied(model)]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "checkpoint.pt")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
        size = os.path.getsize(path)
        measured = {}
        for where in ("cpu", device):
            other = models.convolutional(torch, wanted.seed + 1)[0].to(where)
            state = torch.load(path, map_location=where)
            other.load_state_dict(state["model"])
            torch.optim.AdamW(other.parameters()).load_state_dict(state["optimizer"])
            after = [weight.cpu() for weight in copied(other)]
            measured[f"identical_on_{torch.device(where).type}"] = identical(torch, before, after)
    good = all(measured.values())
    return outcome(
        good, {**measured, "bytes": size}, dict.fromkeys(measured, True), f"other weights came back: {measured}"
    )


def check_gpu_checkpoint(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """From a GPU onto the CPU, and back."""
    return check_checkpoint(torch, wanted, devices.cuda_device(torch, index))
