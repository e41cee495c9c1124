#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute together with the same script on other nodes, and say what of it was right: one rank of a fleet check.

It is told its part by the variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), so it
runs by hand, too, with the Python of an environment; it needs that environment's torch and nothing else::

    torchrun --nnodes 2 --node_rank 0 --nproc_per_node 1 --master_addr n1 --master_port 29511 gpufleet_fleet.py

Every rank leaves one JSON document, on standard output or in ``--out DIRECTORY``, where it also says from moment to
moment what it is doing: ``step.json`` is the step it is in, and ``beat.json`` is written twice a second for as long as
the process lives. A rank that waits too long for the others ends by itself and says for what it waited. It names nobody:
what the ranks say is compared by those who started them (plugin_utils/fleet_verdict.py).

It exits 0 when it came to its end, whatever it measured, and 1 when it did not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import socket
import sys
import threading
import time
import traceback
from datetime import timedelta
from typing import Any, Iterator

DEFAULTS: dict[str, Any] = {
    "backend": "gloo",
    # Bytes of what is summed over all ranks.
    "sizes": [4, 4100, 1048576, 16777216],
    "seed": 0,
    # Seconds that a rank waits for another in one step, and for all of them to come at the beginning.
    "stall": 30,
    "start": 60,
    # The first rank of each node: links between nodes are measured by these.
    "leaders": None,
}
BEAT_SECONDS = 0.5
MIB = 1 << 20
GIB = float(1 << 30)

# A size that would take longer than this, going by the last one's bandwidth, is left out.
SIZE_SECONDS = 10.0
# Repeated where the first sum took less than this.
REPEAT_SECONDS = 0.5
REPEATS = 3

# Each node exchanges with every other, or with this many where there are more.
PAIR_ROUNDS = 32
# An exchange takes as many bytes as go in this time, and so many at most.
PAIR_SECONDS = 0.25
PAIR_BYTES = {"gloo": 4 * MIB, "nccl": 64 * MIB}
PAIR_FIRST_BYTES = MIB // 4

# Ranks train the tutorial's network on three points each, y = x1 + x2.
POINTS, TRAINING_STEPS, LEARNING_RATE = 3, 40, 0.05
# Largest difference from the training in one process, in float64: adding in another order gives 1e-13.
TRAINING_BOUND = 1e-7
# Largest integer up to which every integer is a float32.
EXACT = 1 << 24

# What libraries say when a peer has gone or does not answer. After that it is not known which one.
LOST = ("connection", "timed out", "timeout", "peer", "socket", "broken pipe", "remote process", "nccl")

PHASES = ("import", "rendezvous", "connect", "pairs", "all_reduce", "halves", "pairs again", "training", "finish")


class FleetError(Exception):
    """The check can't go on, and why: nobody's computing is at fault."""


# ---- what this rank is doing ----------------------------------------------------------------------------------------


class Progress:
    """The step this rank is in, told to those who watch, and a watch over the time it takes."""

    def __init__(self, folder: str | None, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.limit: float | None = None
        self.step: dict[str, Any] = {}
        self.since = time.monotonic()
        self.answered = threading.Lock()
        self.results: dict[str, Any] = {}

    def enter(self, phase: str, index: int = 0, detail: str = "") -> None:
        """Say what comes now; ``at`` orders the steps, so that the one who is behind can be told."""
        self.step = {"at": [PHASES.index(phase), index], "phase": phase, "detail": detail}
        self.since = time.monotonic()
        self.put("step.json", self.step)

    def put(self, name: str, content: Any) -> None:
        if self.folder is None:
            return
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)
        os.replace(path + ".new", path)

    def watch(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            if self.folder is not None:
                self.put("beat.json", time.monotonic())
            waited = time.monotonic() - self.since
            if self.limit is not None and waited > self.limit:
                self.end({"kind": "waited", "text": f"nothing came for {self.limit:g} seconds"})
            time.sleep(BEAT_SECONDS)

    def end(self, error: dict[str, str] | None) -> None:
        """Leave the answer and the process, without waiting for threads of a library that never end."""
        with self.answered:
            answer = {"rank": self.rank, "error": error, "step": self.step, **self.results}
            if self.folder is None:
                print(json.dumps(plain(answer), sort_keys=True))
                sys.stdout.flush()
            self.put("answer.json", plain(answer))
            sys.stderr.flush()
            os._exit(0 if error is None else 1)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity, which it can't, become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


# ---- meeting --------------------------------------------------------------------------------------------------------


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


def assemble(run: Run, name: str, mine: Any, seconds: float) -> dict[int, Any]:
    """What every rank has put under the name; rank 0 collects it for all, so that the store answers few questions.

    Counters say what is there: adding 0 asks without waiting, in every release of torch.
    """
    put(run, f"{name}/{run.rank}", json.dumps(mine))
    if run.rank == 0:
        deadline = time.monotonic() + seconds
        missing = set(range(run.world))
        while missing and time.monotonic() < deadline:
            missing = {rank for rank in missing if not is_there(run, f"{name}/{rank}")}
            time.sleep(0.05)
        there = sorted(set(range(run.world)) - missing)
        found = {rank: json.loads(run.store.get(f"gpufleet/{name}/{rank}").decode()) for rank in there}
        put(run, f"{name}/all", json.dumps(found))
    run.store.wait([f"gpufleet/{name}/all"], timedelta(seconds=seconds + run.brief["stall"]))
    found = json.loads(run.store.get(f"gpufleet/{name}/all").decode())
    return {int(rank): value for rank, value in found.items()}


def put(run: Run, key: str, value: str) -> None:
    run.store.set(f"gpufleet/{key}", value)
    run.store.add(f"gpufleet/{key}/there", 1)


def is_there(run: Run, key: str) -> bool:
    return int(run.store.add(f"gpufleet/{key}/there", 0)) > 0


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


# ---- links ----------------------------------------------------------------------------------------------------------


def rounds(members: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Who exchanges with whom, as in a tournament: in every round each member has one partner, or none."""
    ring: list[int | None] = [*members, *([None] if len(members) % 2 else [])]
    half = len(ring) // 2
    for _round in range(len(ring) - 1):
        pairs = zip(ring[:half], reversed(ring[half:]))
        yield [(min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None]
        ring = [ring[0], ring[-1], *ring[1:-1]]


def measure_pairs(run: Run, phase: str) -> None:
    """Exchange with one rank of each other node. What comes is compared with what was sent."""
    found: list[dict[str, Any]] = run.progress.results.setdefault("pairs", [])
    for index, pairs in enumerate(rounds(run.leaders)):
        if index == PAIR_ROUNDS:
            break
        for low, high in pairs:
            if run.rank in (low, high):
                peer = high if run.rank == low else low
                run.progress.enter(phase, index, f"with rank {peer}")
                found.append(measure_link(run, peer))


def measure_link(run: Run, peer: int) -> dict[str, Any]:
    """The first exchange waits until both are there, the second tells how many bytes are worth while.

    Only the times of the lower rank mean something: the other's last bytes may still be on their way.
    """
    exchange(run, peer, PAIR_FIRST_BYTES)
    seconds = exchange(run, peer, PAIR_FIRST_BYTES)[0]
    most = PAIR_BYTES[run.brief["backend"]]
    wanted = int(PAIR_FIRST_BYTES * PAIR_SECONDS / max(seconds, 1e-9))
    length = run.torch.tensor([max(PAIR_FIRST_BYTES // 4, min(most, wanted))], dtype=run.torch.int64, device=run.device)
    (run.dist.send if run.rank < peer else run.dist.recv)(length, peer)
    size = int(length.item())
    results = [exchange(run, peer, size) for _repeat in range(REPEATS)]
    rates = [2 * size / seconds / GIB for seconds, _right in results]
    return {"peer": peer, "bytes": size, "gib_s": rates, "right": all(right for _seconds, right in results)}


def exchange(run: Run, peer: int, size: int) -> tuple[float, bool]:
    """Send and receive; the seconds of both, and whether what came is what the peer sends."""
    mine, theirs = letter(run, run.rank, size), letter(run, peer, size)
    came = run.torch.zeros_like(theirs)
    run.wait_for_device()
    started = time.monotonic()
    if run.rank < peer:
        run.dist.send(mine, peer)
        run.dist.recv(came, peer)
    else:
        run.dist.recv(came, peer)
        run.dist.send(mine, peer)
    run.wait_for_device()
    seconds = time.monotonic() - started
    return seconds, bool(run.torch.equal(came, theirs))


def letter(run: Run, sender: int, size: int) -> Any:
    numbers = run.torch.arange(max(1, size // 4), dtype=run.torch.int32, device=run.device)
    return numbers * 31 + sender


# ---- sums -----------------------------------------------------------------------------------------------------------


def pattern(run: Run, count: int) -> Any:
    """Whole numbers so small that every sum over all ranks is exact in float32."""
    most = max(1, min(1021, EXACT // (run.world * (run.world + 1) // 2)))
    numbers = run.torch.arange(count, dtype=run.torch.int64, device=run.device)
    return (numbers % most + 1).to(run.torch.float32)


def summed(run: Run, numbers: Any, members: list[int], group: Any = None) -> tuple[float, bool]:
    """Sum ``numbers`` times rank + 1 over the members; the seconds, and whether it came out right."""
    tensor = numbers * (run.rank + 1)
    run.wait_for_device()
    started = time.monotonic()
    if group is None:
        run.dist.all_reduce(tensor)
    else:
        run.dist.all_reduce(tensor, group=group)
    run.wait_for_device()
    seconds = time.monotonic() - started
    return seconds, bool(run.torch.equal(tensor, numbers * sum(rank + 1 for rank in members)))


def check_sums(run: Run) -> None:
    """All-reduce of every size, compared with the sum that is known."""
    found: list[dict[str, Any]] = run.progress.results.setdefault("all_reduce", [])
    everyone = list(range(run.world))
    right, rate = True, None
    for index, size in enumerate(run.brief["sizes"]):
        run.progress.enter("all_reduce", index, f"{size} bytes")
        if run.decide(int(rate is not None and size / rate > SIZE_SECONDS)):
            found.append({"bytes": size, "seconds": None, "gib_s": None, "right": None})
            continue
        numbers = pattern(run, max(1, size // 4))
        seconds, good = summed(run, numbers, everyone)
        for _repeat in range(run.decide(REPEATS if seconds < REPEAT_SECONDS else 0)):
            again, still_good = summed(run, numbers, everyone)
            seconds, good = min(seconds, again), good and still_good
        # Of small sums it is the latency that is measured.
        rate = size / seconds if size >= MIB else None
        found.append({"bytes": size, "seconds": seconds, "gib_s": size / seconds / GIB, "right": good})
        right = right and good
    flags = run.gather(run.torch.tensor([float(right)], device=run.device))
    if not all(flag.item() == 1.0 for flag in flags):
        check_halves(run)


def check_halves(run: Run) -> None:
    """Sum over halves of the ranks, two for every bit of a rank's number: the wrong ones spell the rank at fault."""
    found: list[dict[str, Any]] = run.progress.results.setdefault("halves", [])
    numbers = pattern(run, 1024)
    for bit in range(max(1, (run.world - 1).bit_length())):
        for value in (0, 1):
            members = [rank for rank in range(run.world) if rank >> bit & 1 == value]
            run.progress.enter("halves", 2 * bit + value, f"ranks with bit {bit} = {value}")
            group = run.dist.new_group(members)
            if run.rank in members:
                found.append({"bit": bit, "value": value, "right": summed(run, numbers, members, group)[1]})


# ---- training -------------------------------------------------------------------------------------------------------


def network(run: Run, seed: int) -> Any:
    run.torch.manual_seed(seed)
    nn = run.torch.nn
    return nn.Sequential(nn.Linear(2, 5), nn.Sigmoid(), nn.Linear(5, 1)).double()


def points(run: Run, rank: int) -> tuple[Any, Any]:
    """The points of a rank: the same on every machine, as they are made on the CPU."""
    generator = run.torch.Generator().manual_seed(run.brief["seed"] * 1000003 + rank)
    x = run.torch.rand(POINTS, 2, generator=generator, dtype=run.torch.float64) * 4
    return x, x.sum(1, keepdim=True)


def loss_of(model: Any, x: Any, y: Any) -> Any:
    return 0.5 * (y - model(x)).pow(2).sum()


def flat(run: Run, tensors: Any) -> Any:
    return run.torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def train_together(run: Run) -> tuple[Any, Any]:
    """DistributedDataParallel: the parameters at the end, and this rank's own gradients of every step."""
    seed = run.brief["seed"]
    # Another start on every rank: DDP has to give them that of rank 0.
    model = network(run, seed + run.rank).to(run.device)
    own: dict[int, Any] = {}
    for index, parameter in enumerate(model.parameters()):
        parameter.register_hook(lambda gradient, index=index: own.__setitem__(index, gradient.detach().clone()))
    on_gpu = {"device_ids": [run.device.index]} if run.device.type == "cuda" else {}
    parallel = run.torch.nn.parallel.DistributedDataParallel(model, **on_gpu)
    optimizer = run.torch.optim.Adam(parallel.parameters(), lr=LEARNING_RATE)
    x, y = (tensor.to(run.device) for tensor in points(run, run.rank))
    gradients = []
    for step in range(TRAINING_STEPS):
        run.progress.enter("training", step, f"step {step + 1} of {TRAINING_STEPS}")
        optimizer.zero_grad()
        loss_of(parallel, x, y).backward()
        gradients.append(flat(run, [own[index] for index in sorted(own)]))
        optimizer.step()
    return flat(run, model.parameters()), run.torch.stack(gradients)


def train_alone(run: Run) -> tuple[Any, float, float]:
    """The same in this process, with the points of all ranks: the parameters, and the loss before and after."""
    model = network(run, run.brief["seed"])
    optimizer = run.torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    shares = [points(run, rank) for rank in range(run.world)]
    x, y = (run.torch.cat([share[part] for share in shares]) for part in (0, 1))
    losses = []
    for _step in range(TRAINING_STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, x, y) / run.world
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    losses.append((loss_of(model, x, y) / run.world).item())
    return flat(run, model.parameters()), losses[0], losses[-1]


def strangers(run: Run, gradients: list[Any]) -> list[int]:
    """The ranks whose gradients are not what this process computes for them, in the first step that has such."""
    model = network(run, run.brief["seed"])
    optimizer = run.torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    shares = [points(run, rank) for rank in range(run.world)]
    for step in range(TRAINING_STEPS):
        wrong = []
        for rank, (x, y) in enumerate(shares):
            optimizer.zero_grad()
            loss_of(model, x, y).backward()
            expected = flat(run, [parameter.grad for parameter in model.parameters()])
            # A comparison with NaN is false.
            near = difference(gradients[rank][step], expected) < TRAINING_BOUND
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


def digest(tensor: Any) -> str:
    """Of the bits, without NumPy, which an environment need not have: hex() of a float is exact."""
    return hashlib.sha256(" ".join(float(number).hex() for number in tensor.tolist()).encode()).hexdigest()


def check_training(run: Run) -> None:
    parameters, gradients = train_together(run)
    run.progress.enter("training", TRAINING_STEPS, "compare gradients")
    all_gradients = [tensor.cpu() for tensor in run.gather(gradients)]
    parameters = parameters.cpu()
    run.progress.enter("training", TRAINING_STEPS + 1, "train in one process")
    alone, first, last = train_alone(run)
    apart = difference(parameters, alone)
    run.progress.results["training"] = {
        "parameters": digest(parameters),
        "difference": apart,
        "equal": apart < TRAINING_BOUND,
        "bound": TRAINING_BOUND,
        "strangers": [] if apart < TRAINING_BOUND else strangers(run, all_gradients),
        "loss_start": first,
        "loss_end": last,
    }


# ---- all together ---------------------------------------------------------------------------------------------------


def finish(run: Run) -> None:
    """Nobody leaves before all are done: a connection that is closed looks like a peer that died."""
    run.progress.enter("finish")
    assemble(run, "done", True, run.brief["stall"])
    if run.rank == 0:
        # It serves the store, which the others have to hear from once more.
        time.sleep(1)


def work(run: Run) -> None:
    load(run)
    meet(run)
    connect(run)
    measure_pairs(run, "pairs")
    check_sums(run)
    # What else goes on at one time makes a link look slow; hardly at two.
    measure_pairs(run, "pairs again")
    check_training(run)
    finish(run)


def kind_of(text: str) -> str:
    """Whether an error says that others were lost, or is this rank's own."""
    return "lost" if any(word in text.lower() for word in LOST) else "own"


def read_brief(path: str | None) -> dict[str, Any]:
    if path is None:
        return dict(DEFAULTS)
    with open(path, encoding="utf-8") as file:
        return {**DEFAULTS, **json.load(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description="One rank of a fleet check.")
    parser.add_argument("--brief", metavar="FILE.json", help="what is checked; see DEFAULTS in this file")
    parser.add_argument("--out", metavar="DIRECTORY", help="leave the answer there, and the step this rank is in")
    options = parser.parse_args()
    progress = Progress(options.out, int(os.environ["RANK"]))
    run = Run(read_brief(options.brief), progress)
    progress.watch()
    try:
        work(run)
    except FleetError as error:
        progress.end({"kind": "stopped", "text": str(error)})
    except Exception as error:  # whatever a broken torch or a lost peer raises is the finding
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        progress.end({"kind": kind_of(text), "text": text[:1000]})
    progress.end(None)


if __name__ == "__main__":
    main()
