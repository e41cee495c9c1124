# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute together with the same script on other nodes, and say what of it was right: one rank of a fleet check.

It is told its part by the variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), so it
runs by hand, too, with the Python of an environment; it needs that environment's torch and nothing else::

    torchrun --nnodes 2 --node_rank 0 --nproc_per_node 1 --master_addr n1 --master_port 29511 gpufleet_fleet.pyz

Every rank leaves one JSON document, on standard output or in ``--out DIRECTORY``, where it also says from moment to
moment what it is doing: ``step.json`` is the step it is in, and ``beat.json`` is written twice a second for as long as
the process lives. A rank that waits too long for the others ends by itself and says for what it waited. It names nobody:
what the ranks say is compared by those who started them (plugin_utils/fleet_verdict.py).

It exits 0 when it came to its end, whatever it measured, and 1 when it did not.

``--brief`` names a JSON object, in which every key may be left out::

    {"backend": "gloo",      or "nccl"
     "sizes": [4, 4100],     bytes of what is summed over all ranks
     "seed": 0,
     "stall": 30,            seconds that a rank waits for another in one step
     "start": 60,            and for all of them to come at the beginning
     "leaders": [0, 8]}      the first rank of each node, between which links are measured; null: every rank
"""

from __future__ import annotations

import argparse
import os
import time
import traceback

from . import brief, links, meeting, store, sums, training
from .progress import Progress
from .run import Run, load

# The package is called so in the archive.
NAME = "gpufleet_fleet"

# What libraries say when a peer has gone or does not answer. After that it is not known which one.
LOST = ("connection", "timed out", "timeout", "peer", "socket", "broken pipe", "remote process", "nccl")


def finish(run: Run) -> None:
    """Nobody leaves before all are done: a connection that is closed looks like a peer that died."""
    run.progress.enter("finish")
    store.assemble(run, "done", True, run.brief["stall"])
    if run.rank == 0:
        # It serves the store, which the others have to hear from once more.
        time.sleep(1)


def work(run: Run) -> None:
    """All of it, in the order of progress.PHASES."""
    load(run)
    meeting.meet(run)
    meeting.connect(run)
    links.measure_pairs(run, "pairs")
    sums.check_sums(run)
    # What else goes on at one time makes a link look slow; hardly at two.
    links.measure_pairs(run, "pairs again")
    training.check_training(run)
    finish(run)


def kind_of(text: str) -> str:
    """Whether an error says that others were lost, or is this rank's own."""
    return "lost" if any(word in text.lower() for word in LOST) else "own"


def main(arguments: list[str] | None = None) -> None:
    """Do this rank's part; the process ends with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brief", metavar="FILE.json", help="what is checked; see above")
    parser.add_argument("--out", metavar="DIRECTORY", help="leave the answer there, and the step this rank is in")
    options = parser.parse_args(arguments)
    progress = Progress(options.out, int(os.environ["RANK"]))
    run = Run(brief.read(options.brief), progress)
    progress.watch()
    try:
        work(run)
    except meeting.FleetError as error:
        progress.end({"kind": "stopped", "text": str(error)})
    except Exception as error:  # whatever a broken torch or a lost peer raises is the finding
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        progress.end({"kind": kind_of(text), "text": text[:1000]})
    progress.end(None)
