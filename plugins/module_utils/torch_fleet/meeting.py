# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rank comes and reaches every other. Private to the collection."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

from .run import Run
from .store import assemble


class FleetError(Exception):
    """The check can't go on, and why: nobody's computing is at fault."""


def meet(run: Run) -> None:
    """Have every rank come and reach every other, before a collective operation can hang for want of one."""
    start = float(run.brief["start"])
    run.progress.enter("rendezvous", detail=f"at {os.environ['MASTER_ADDR']} port {os.environ['MASTER_PORT']}")
    # torchrun has such a store already, and tells it by this variable.
    ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    run.store = run.dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        run.world,
        ours and run.rank == 0,
        timedelta(seconds=start),
        wait_for_workers=False,
    )
    with listener() as door:
        mine = {"address": own_address(), "port": door.getsockname()[1]}
        others = assemble(run, "here", mine, start)
        everybody_here(run, others)
        run.progress.enter("rendezvous", 1, "reach every other rank")
        unreached = [rank for rank, other in sorted(others.items()) if rank != run.rank and not reaches(other)]
        reports = assemble(run, "reached", unreached, start)
    everybody_here(run, reports)
    links = sorted({tuple(sorted((rank, other))) for rank, unseen in reports.items() for other in unseen})
    if links:
        run.progress.results["unreachable"] = [list(link) for link in links]
        raise FleetError("some ranks cannot reach each other")


def listener() -> socket.socket:
    """A port that others can knock at: whatever the system chooses, as the backends do."""
    family = socket.AF_INET6 if ":" in own_address() else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.bind((own_address(), 0))
    door.listen(1024)
    return door


def own_address() -> str:
    """The address by which this node talks to rank 0's."""
    found = socket.getaddrinfo(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), type=socket.SOCK_DGRAM)
    family, kind, protocol, _name, target = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


def reaches(other: dict[str, Any]) -> bool:
    try:
        socket.create_connection((other["address"], other["port"]), timeout=5).close()
    except OSError:
        return False
    return True


def everybody_here(run: Run, found: dict[int, Any]) -> None:
    missing = sorted(set(range(run.world)) - set(found))
    if missing:
        run.progress.results["missing"] = missing
        raise FleetError("some ranks did not come")


def connect(run: Run) -> None:
    stall = float(run.brief["stall"])
    run.progress.enter("connect", detail=f"{run.brief['backend']}, {run.world} ranks")
    run.progress.limit = stall
    # Longer than our own watch, which knows what was waited for.
    run.dist.init_process_group(
        run.brief["backend"], store=run.store, rank=run.rank, world_size=run.world, timeout=timedelta(seconds=2 * stall)
    )
    run.gather(run.torch.zeros(1, device=run.device))
