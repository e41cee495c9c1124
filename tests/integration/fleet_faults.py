"""A world of nodes with a real torch that compute together, and what can go wrong with one of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from .conftest import NODES, ROOT, Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

HOSTS = ("n1", "n2", "n3", "n4")
# Beside the cache of wheels, so that the environments are links into it: four copies would be 18 GB.
CLONE = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]
SHARED = f"/var/cache/gpufleet/fleet-test-{CLONE}"
PREFIX = SHARED + "/{{ inventory_hostname }}"
VERDICT = "/var/lib/gpufleet/fleet-verdict.json"
SCRIPT = "gpufleet_fleet.pyz"
# So many sums that something can go wrong in the middle of them.
MANY_SIZES = [8388608 + 4 * number for number in range(400)]
# Until torch is there and the sums have begun, on a machine that does other things, too.
BEGIN_SECONDS = 240

# Put into an environment: before the ranks' script sees torch.distributed, something of it is replaced.
HOOK = """
import builtins

imported = builtins.__import__

def hook(name, *arguments, **more):
    module = imported(name, *arguments, **more)
    if name == "torch.distributed" and arguments and arguments[0].get("__name__") == "gpufleet_fleet.run":
        builtins.__import__ = imported
        import torch
        import torch.distributed as dist
        break_it(torch, dist)
    return module

def break_it(torch, dist):
    {fault}

builtins.__import__ = hook
"""
# The sum has one unit too many wherever this rank takes part.
WRONG_SUM = """
    right = dist.all_reduce
    def wrong(tensor, *arguments, **more):
        tensor[0] += 1
        return right(tensor, *arguments, **more)
    dist.all_reduce = wrong
"""
# A layer that is one in a thousand off: everything runs, and the gradients are wrong.
WRONG_GRADIENT = """
    right = torch.nn.Linear.forward
    torch.nn.Linear.forward = lambda self, x: right(self, x) * 1.001
"""


@contextlib.contextmanager
def fleet_world(factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four nodes with torch 2.0.1 by the collection's own stages."""
    wishes = {"gpufleet_prefix": PREFIX, "node_stages": ["python", "pytorch"]}
    with fresh("fleetverify", factory.mktemp("fleetverify"), nodes=HOSTS, **wishes) as world:
        try:
            run = world.play(playbook="molecule/shared/stages.yml")
            assert run.rc == 0, run.stdout
            yield world
        finally:
            # What is below the cache outlives the nodes.
            for host in () if os.environ.get("KEEP") else HOSTS:
                world.sh(host, f"rm -rf {SHARED}/{host}", check=False)


def check(world: World, **variables: Any) -> Run:
    """A fleet check as a user asks for it."""
    wishes = {"verify_level": "fleet", "verify_fleet_group": "nodes", **variables}
    return world.play(playbook="playbooks/verify.yml", cmdline="--forks 8", **wishes)


def verdict(world: World, host: str = "n1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.sh(host, f"cat {VERDICT}"))
    return found


def failed(found: dict[str, Any]) -> list[str]:
    return [row["name"] for row in found["checks"] if row["status"] == "failed"]


def container(world: World, host: str) -> str:
    command = [str(NODES), "name", world.name, host]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def inside_network(world: World, host: str, *command: str) -> None:
    """Runs a program of this machine in the network of a node, which has no rights to shape or filter it."""
    inspect = ["podman", "inspect", "--format", "{{.State.Pid}}", container(world, host)]
    pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["nsenter", "--net", "--target", pid, *command], check=True)


@contextlib.contextmanager
def slow_link(world: World, host: str, mbit: int) -> Iterator[None]:
    """A node whose card sends no faster than that."""
    shape = ("tbf", "rate", f"{mbit}mbit", "burst", "64kb", "latency", "400ms")
    inside_network(world, host, "tc", "qdisc", "add", "dev", "eth0", "root", *shape)
    try:
        yield
    finally:
        inside_network(world, host, "tc", "qdisc", "del", "dev", "eth0", "root")


@contextlib.contextmanager
def cut_link(world: World, one: str, other: str) -> Iterator[None]:
    """Two nodes that do not hear each other, while all others hear both."""
    address = world.sh(other, "hostname -I").split()[0]
    rule = ["-s", address, "-j", "DROP"]
    inside_network(world, one, "iptables", "-A", "INPUT", *rule)
    try:
        yield
    finally:
        inside_network(world, one, "iptables", "-D", "INPUT", *rule)


@contextlib.contextmanager
def broken(world: World, host: str, fault: str) -> Iterator[None]:
    """A node whose torch does something wrong."""
    site = world.sh(host, f"echo {SHARED}/{host}/envs/default/current/lib/python3*/site-packages")
    code = HOOK.replace("{fault}", fault.strip())
    world.sh(
        host, f"printf %s {shlex.quote(code)} > {site}/zz_fault.py && echo 'import zz_fault' > {site}/zz_fault.pth"
    )
    try:
        yield
    finally:
        world.sh(host, f"rm {site}/zz_fault.py {site}/zz_fault.pth")


def rank_of(world: World, host: str) -> str:
    """The process of the node's rank."""
    return world.sh(host, f"pgrep -f '[b]in/python .*{SCRIPT}' | head -1", check=False)


def disturbed(world: World, host: str, disturb: Callable[[str], None], **variables: Any) -> tuple[Run, float]:
    """A check in the middle of which something happens to a node; the seconds from there to the end of the run."""
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(check(world, verify_fleet_sizes=MANY_SIZES, **variables)))
    thread.start()
    deadline, pid = time.monotonic() + BEGIN_SECONDS, ""
    in_the_middle = "grep -l all_reduce /tmp/gpufleet-fleet-*/*/step.json"
    while thread.is_alive() and not pid and time.monotonic() < deadline:
        time.sleep(0.2)
        pid = rank_of(world, host) if world.sh(host, in_the_middle, check=False) else ""
    started = time.monotonic()
    if pid:
        disturb(pid)
    thread.join()
    assert pid, found[0].stdout
    return found[0], time.monotonic() - started
