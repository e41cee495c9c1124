# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start this node's ranks of a fleet check, watch them, and say how each ended. Private to the collection.

The ranks are started as torchrun would, with its variables, but each as the leader of a process group of its own and
without torchrun's agent: the agent would wait minutes for the agent of a node that has died, and does not see a rank
that was stopped. So every rank that was started here ends here, and no other process does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import fleet_network, verify_account
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_process import script_environment, start

LOOK_SECONDS = 0.2
# A rank whose watch has been silent for so long is frozen: it says something twice a second.
SILENT_SECONDS = 10.0
TAIL_CHARACTERS = 2000


class Rank:
    """One rank: its process, its directory and how it ended."""

    def __init__(self, rank: int, folder: str, process: subprocess.Popen[bytes]) -> None:
        self.rank, self.folder, self.process = rank, folder, process
        self.started = time.monotonic()
        self.ended: str | None = None
        self.state: str | None = None
        self.seconds = 0.0

    def read(self, name: str) -> Any:
        """A JSON file that the rank has left, or None."""
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def silent(self) -> float:
        """Seconds since the rank last said that it lives; 0 while torch loads, which may keep everything else waiting."""
        step, beat = self.read("step.json"), self.read("beat.json")
        if step is None or beat is None or step["phase"] == "import":
            return 0.0
        # One clock for all processes of a machine, which nobody sets.
        return time.monotonic() - float(beat)

    def end(self, how: str) -> None:
        """End the rank, and keep what its process was doing then."""
        self.state = process_state(self.process.pid)
        self.ended = how
        self.kill()

    def kill(self) -> None:
        """Nothing of the rank's own process group stays; a process that can't even be killed is left to the kernel."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(3)

    def report(self) -> dict[str, Any]:
        """What became of the rank."""
        code = self.process.poll()
        with open(os.path.join(self.folder, "stderr"), "rb") as file:
            errors = file.read().decode("utf-8", "replace")
        return {
            "rank": self.rank,
            "ended": self.ended or ("signal" if code is not None and code < 0 else "exit"),
            "rc": code,
            "state": self.state,
            "step": self.read("step.json"),
            "answer": self.read("answer.json"),
            "stderr": errors.strip()[-TAIL_CHARACTERS:],
            "seconds": round(self.seconds, 3),
        }


def process_state(pid: int, proc: str = "/proc") -> str | None:
    """The letter by which the kernel says what a process does: T is stopped, D waits for a device."""
    try:
        with open(os.path.join(proc, str(pid), "stat"), encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None


def variables(part: dict[str, Any], rank: int, local_rank: int, interface: str | None) -> dict[str, str]:
    """What torchrun would set for a rank, and the interface: without it gloo goes by the name of the host."""
    found = {
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(part["world_size"]),
        "LOCAL_WORLD_SIZE": str(len(part["ranks"])),
        "MASTER_ADDR": part["address"],
        "MASTER_PORT": str(part["port"]),
    }
    if interface:
        found.update(dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"), interface))
    return found


def run_ranks(part: dict[str, Any], script: str, interpreter: str, user: str = "") -> list[dict[str, Any]]:
    """Run this node's part to its end, or to the end of its time.

    :param part: {ranks[], world_size, address, port, interface, timeout, brief{}}.
    :raises GpufleetError: GF-VERIFY-USER, GF-FLEET-NOT-RUN.
    """
    account = verify_account.find(user)
    folder = tempfile.mkdtemp(prefix="gpufleet-fleet-")
    started: list[Rank] = []
    try:
        brief = os.path.join(folder, "brief.json")
        with open(brief, "w", encoding="utf-8") as file:
            json.dump(part["brief"], file)
        found = fleet_network.addresses()
        interface = part["interface"] or fleet_network.interface_towards(part["address"], part["port"], found)
        for local_rank, number in enumerate(part["ranks"]):
            home = os.path.join(folder, str(number))
            os.mkdir(home, 0o700)
            for path in (folder, brief, home):
                verify_account.give(path, account)
            environment = script_environment([], home, account)
            environment.update(variables(part, number, local_rank, interface))
            argv = [interpreter, script, "--brief", brief, "--out", home]
            started.append(Rank(number, home, _start(argv, home, environment, account)))
        _watch(started, part["timeout"])
        return [rank.report() for rank in started]
    finally:
        for rank in started:
            rank.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    argv: list[str], home: str, environment: dict[str, str], account: verify_account.Account | None
) -> subprocess.Popen[bytes]:
    """Output goes to a file: a pipe would keep this waiting for as long as any descendant holds it open."""
    try:
        with open(os.path.join(home, "stderr"), "wb") as err:
            return start(argv, environment, home, err, err, account)
    except (OSError, subprocess.SubprocessError) as error:
        raise GpufleetError(
            "GF-FLEET-NOT-RUN",
            f"{argv[0]} cannot be run: {error}",
            "the environment is not there, is damaged, or may not be used by verify_user",
            "run site.yml for this node, then check the fleet again",
        ) from error


def _watch(ranks: list[Rank], timeout: float) -> None:
    """Wait for all ranks of this node; end what is frozen, and what is still there when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        running = [rank for rank in ranks if rank.ended is None and rank.process.poll() is None]
        now = time.monotonic()
        for rank in running:
            rank.seconds = now - rank.started
            if now > deadline:
                rank.end("timeout")
            elif rank.silent() > SILENT_SECONDS:
                rank.end("frozen")
        if not running:
            return
        time.sleep(LOOK_SECONDS)
