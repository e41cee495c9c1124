# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of the check needs. Private to the collection."""

from __future__ import annotations

import os
from typing import Any

from .progress import Progress


class Run:
    """What every part needs: torch, the ranks and where this one computes."""

    def __init__(self, brief: dict[str, Any], progress: Progress) -> None:
        self.brief, self.progress = brief, progress
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.leaders = brief["leaders"] or list(range(self.world))
        self.torch: Any = None
        self.dist: Any = None
        self.store: Any = None
        self.device: Any = None

    def decide(self, number: int) -> int:
        """What rank 0 has decided."""
        tensor = self.torch.tensor([number], dtype=self.torch.int64, device=self.device)
        self.dist.broadcast(tensor, 0)
        return int(tensor.item())

    def gather(self, tensor: Any) -> list[Any]:
        """The tensor of every rank."""
        others = [self.torch.empty_like(tensor) for _rank in range(self.world)]
        self.dist.all_gather(others, tensor)
        return others

    def wait_for_device(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)


def load(run: Run) -> None:
    """Import torch, and choose where this rank computes."""
    run.progress.limit = float(run.brief["start"] + run.brief["stall"])
    run.progress.enter("import")
    import torch  # pylint: disable=import-outside-toplevel
    import torch.distributed as dist  # pylint: disable=import-outside-toplevel

    run.torch, run.dist = torch, dist
    run.device = torch.device("cpu")
    if run.brief["backend"] == "nccl":
        run.device = torch.device("cuda", run.local_rank)
        torch.cuda.set_device(run.device)
    run.progress.results["torch"] = str(torch.__version__)
