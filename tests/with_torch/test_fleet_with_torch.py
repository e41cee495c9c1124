"""Ranks of a fleet check under a real torch: nodes are threads here, each with the processes that the module starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import fleet_ranks, script_archive
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_fleet import main as fleet_script
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_verdict import make_verdict, name_of
from ansible_collections.gpufleet.stack.tests.unit.plugins.plugin_utils.fleets import brief

if TYPE_CHECKING:
    from collections.abc import Callable

AT = "2026-11-25T18:00:00Z"
SIZES = [4, 4100, 1048576]
MANY_SIZES = [1048576 + 4 * number for number in range(2000)]

# In place of the script on one node: something of torch is replaced, then the script runs.
WRAPPER = """
import runpy
import torch
import torch.distributed as dist
{fault}
runpy.run_path({script!r}, run_name="__main__")
"""
WRONG_SUM = """
right = dist.all_reduce
def wrong(tensor, *arguments, **more):
    tensor[0] += 1
    return right(tensor, *arguments, **more)
dist.all_reduce = wrong
"""
WRONG_RESULT = """
right = dist.all_reduce
def wrong(tensor, *arguments, **more):
    done = right(tensor, *arguments, **more)
    tensor[-1] += 1
    return done
dist.all_reduce = wrong
"""
WRONG_LAYER = """
right = torch.nn.Linear.forward
torch.nn.Linear.forward = lambda self, x: right(self, x) * 1.001
"""
NAN = WRONG_LAYER.replace("1.001", "float('nan')")
OWN_PARAMETERS = """
right = torch.optim.Adam.step
def wrong(self, *arguments, **more):
    right(self, *arguments, **more)
    with torch.no_grad():
        self.param_groups[0]["params"][0].add_(1e-3)
torch.optim.Adam.step = wrong
"""
CHANGED_ON_ITS_WAY = """
right = dist.send
def wrong(tensor, *arguments, **more):
    if tensor.numel() > 1:
        tensor[7] ^= 1
    return right(tensor, *arguments, **more)
dist.send = wrong
"""


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def script(folder: Path) -> str:
    """The script as the node has it."""
    path = str(folder / "gpufleet_fleet.pyz")
    script_archive.write(path, fleet_script)
    return path


class Fleet:
    """So many nodes on this machine, and the faults that some of them have."""

    def __init__(self, python: str, work: Path, count: int = 3, **wishes: Any) -> None:
        self.python, self.work = python, work
        self.brief = brief(count, **{"sizes": SIZES, "timeout": 100, **wishes})
        self.brief.update(address="127.0.0.1", port=free_port())
        self.script = script(work)
        self.scripts = dict.fromkeys(self.brief["hosts"], self.script)

    def breaks(self, host: str, fault: str) -> None:
        path = self.work / f"{host}.py"
        path.write_text(WRAPPER.format(fault=fault, script=self.script), encoding="utf-8")
        self.scripts[host] = str(path)

    def part(self, host: str) -> dict[str, Any]:
        return {
            "ranks": self.brief["ranks"][host],
            "world_size": self.brief["world_size"],
            "address": self.brief["address"],
            "port": self.brief["port"],
            "interface": "lo",
            "timeout": self.brief["timeout"],
            "brief": self.brief["script"],
        }

    def node(self, host: str) -> dict[str, Any]:
        return {"ranks": fleet_ranks.run_ranks(self.part(host), self.scripts[host], self.python)}

    def check(self, disturb: Callable[[], None] = lambda: None) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:
            parts = {host: pool.submit(self.node, host) for host in self.brief["hosts"]}
            disturb()
            answers = {host: part.result() for host, part in parts.items()}
        return make_verdict(self.brief, answers, AT)

    def signalled(self, host: str, number: signal.Signals) -> dict[str, Any]:
        """A check in the middle of which the rank of a node gets a signal."""
        rank = self.brief["ranks"][host][0]

        def disturb() -> None:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline:
                time.sleep(0.1)
                for folder in Path("/proc").iterdir():
                    if folder.name.isdigit() and self._is_rank(folder, rank):
                        os.kill(int(folder.name), number)
                        return
            pytest.fail("the rank never came so far")

        return self.check(disturb)

    def _is_rank(self, folder: Path, rank: int) -> bool:
        """Whether this process is the rank, and in the middle of its sums."""
        try:
            environment = dict(
                part.split("=", 1) for part in (folder / "environ").read_bytes().decode().split("\0") if "=" in part
            )
            if (environment.get("RANK"), environment.get("MASTER_PORT")) != (str(rank), str(self.brief["port"])):
                return False
            step = json.loads((Path(environment["HOME"]) / "step.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError):
            return False
        return bool(step["phase"] == "all_reduce")


def named(verdict: dict[str, Any]) -> list[str]:
    """Who is suspected, but for slow links: processes on one busy machine have no speed that means anything."""
    return [name_of(suspect) for suspect in verdict["suspects"] if "GiB/s" not in suspect["why"]]


def failed(verdict: dict[str, Any]) -> list[str]:
    return [check["name"] for check in verdict["checks"] if check["status"] == "failed"]


def problems(verdict: dict[str, Any]) -> list[str]:
    """What failed besides the speed of links."""
    return [name for name in failed(verdict) if name != "pairs"]


@pytest.mark.parametrize("release", ["torch_2_0", pytest.param("torch_1_13", marks=pytest.mark.slow)])
def test_all_is_well(release: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    verdict = Fleet(request.getfixturevalue(release), tmp_path).check()
    assert problems(verdict) == [], verdict
    assert [row["bytes"] for row in verdict["all_reduce"]] == SIZES
    assert len(verdict["pairs"]) == 3
    assert verdict["checks"][3]["measured"]["loss_end"] < verdict["checks"][3]["measured"]["loss_start"] / 2


def test_more_ranks_on_a_node_than_one(torch_2_0: str, tmp_path: Path) -> None:
    """As on nodes with GPUs; the links are measured by one of each."""
    verdict = Fleet(torch_2_0, tmp_path, 2, processes=2).check()
    assert problems(verdict) == [], verdict
    assert (verdict["world_size"], len(verdict["pairs"])) == (4, 1)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (WRONG_SUM, "all_reduce"),
        (WRONG_RESULT, "all_reduce"),
        (WRONG_LAYER, "ddp_equals_single"),
        (NAN, "ddp_equals_single"),
        (OWN_PARAMETERS, "ddp_parameters"),
    ],
    ids=["adds wrongly", "wrong result", "wrong layer", "not a number", "own parameters"],
)
def test_who_computes_wrongly_is_named(torch_2_0: str, tmp_path: Path, fault: str, what: str) -> None:
    fleet = Fleet(torch_2_0, tmp_path)
    fleet.breaks("n2", fault)
    verdict = fleet.check()
    assert what in failed(verdict), verdict
    assert [suspect["host"] for suspect in verdict["suspects"] if "host" in suspect][:1] == ["n2"], verdict


def test_a_link_that_changes_data_is_named(torch_2_0: str, tmp_path: Path) -> None:
    fleet = Fleet(torch_2_0, tmp_path, 2)
    fleet.breaks("n2", CHANGED_ON_ITS_WAY)
    verdict = fleet.check()
    assert (named(verdict), failed(verdict)) == (["the link n2 - n1"], ["pairs"])


@pytest.mark.parametrize("host", ["n1", "n2"], ids=["where they meet", "another"])
def test_a_frozen_rank_is_named_and_ended(torch_2_0: str, tmp_path: Path, host: str) -> None:
    verdict = Fleet(torch_2_0, tmp_path, sizes=MANY_SIZES).signalled(host, signal.SIGSTOP)
    assert named(verdict) == [host], verdict
    assert "its process was stopped" in verdict["suspects"][0]["why"]


def test_a_killed_rank_is_named(torch_2_0: str, tmp_path: Path) -> None:
    started = time.monotonic()
    verdict = Fleet(torch_2_0, tmp_path, sizes=MANY_SIZES).signalled("n3", signal.SIGKILL)
    assert named(verdict) == ["n3"], verdict
    assert time.monotonic() - started < 100


@pytest.mark.slow
def test_a_node_that_never_comes_is_named(torch_2_0: str, tmp_path: Path) -> None:
    fleet = Fleet(torch_2_0, tmp_path, timeout=50)
    fleet.breaks("n2", "import time\ntime.sleep(1000)")
    verdict = fleet.check()
    assert named(verdict) == ["n2"], verdict


def test_torchrun_starts_it_too(torch_2_0: str, tmp_path: Path) -> None:
    torchrun = [torch_2_0, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*torchrun, script(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(answer["rank"] for answer in answers) == [0, 1]
    assert all(answer["error"] is None and answer["training"]["equal"] for answer in answers)
