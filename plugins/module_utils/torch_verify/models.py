# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small models of the kinds that are trained, with data of their own, and steps of training. Private to the collection."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

CURVE_POINTS = 50


def convolutional(torch: Any, seed: int) -> tuple[Any, Any, Any]:
    """Images of bars that lie or stand, and a network of two convolutions that tells them apart."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(64, 1, 16, 16, generator=generator)
    labels = torch.arange(64) % 2
    places = torch.randint(2, 14, (64,), generator=generator)
    for number in range(64):
        place = int(places[number])
        if labels[number]:
            images[number, 0, place, :] += 2.0
        else:
            images[number, 0, :, place] += 2.0
    torch.manual_seed(seed)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    return model, images, labels


def transformer(torch: Any, seed: int) -> tuple[Any, Any, Any]:
    """Rows of letters, and one layer of attention that learns to say each row from behind."""
    generator = torch.Generator().manual_seed(seed)
    letters = torch.randint(0, 16, (64, 8), generator=generator)
    torch.manual_seed(seed)
    nn = torch.nn

    class Reverser(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.letter, self.place = nn.Embedding(16, 32), nn.Embedding(8, 32)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
            self.head = nn.Linear(32, 16)

        def forward(self, rows: Any) -> Any:
            places = torch.arange(rows.shape[1], device=rows.device)
            return self.head(self.layer(self.letter(rows) + self.place(places))).flatten(0, 1)

    return Reverser(), letters, letters.flip(1).flatten()


@contextlib.contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Models as small as these lose more by waiting for other threads than they win: 40 steps took 20 times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(torch: Any, made: tuple[Any, Any, Any], device: Any, steps: int, narrow: Any = None) -> dict[str, Any]:
    """Train a model with AdamW and cross entropy.

    :param narrow: the type of automatic mixed precision; None trains in float32. float16 needs its loss scaled.
    """
    with one_thread(torch):
        return _trained(torch, made, device, steps, narrow)


def _trained(torch: Any, made: tuple[Any, Any, Any], device: Any, steps: int, narrow: Any) -> dict[str, Any]:
    model, inputs, targets = made[0].to(device), made[1].to(device), made[2].to(device)
    kind = torch.device(device).type
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.cuda.amp.GradScaler(enabled=narrow is torch.float16)
    curve: list[list[float]] = []
    for step in range(steps + 1):
        with torch.autocast(kind, dtype=narrow or torch.bfloat16, enabled=narrow is not None):
            loss = torch.nn.functional.cross_entropy(model(inputs).float(), targets)
        if step % max(1, steps // CURVE_POINTS) == 0 or step == steps:
            curve.append([step, float(loss.item())])
        if step < steps:
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return {"loss_start": curve[0][1], "loss_end": curve[-1][1], "loss_curve": curve, "steps": steps}
