#!/usr/bin/env python
"""The real torch on a few nodes, by plain pip on each and by this collection, side by side: bytes over the uplink, seconds, disk.

    tests/benchmarks/fleet_torch.py [--nodes 4] [--uplink 1000] [--work DIR]

default DIR: .cache/benchmark-fleet; needs 14 GB there and where podman keeps containers, the package index once, and half an hour.

The nodes are systemd containers (tests/tools/nodes), provisioned one after the other, since the disk of a test machine does not hold
all of them at once: what one was given is removed before the next one begins. So the seconds are work, not waiting for each other.
The upstream is a stand-in (tests/tools/wheel_index.py): a web server on this machine with the real wheels, which counts what it
sends, no faster than the uplink. pip, its cache, uv, nginx, SSH and everything of the collection are the real ones. Both ways get
the same wheels of torch and what it needs; ours brings pip, setuptools and uv besides.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
os.environ["PATH"] = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests/tools")]

import wheel_index  # noqa: E402
import yaml  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store  # noqa: E402
from ansible_collections.gpufleet.stack.tests.integration.conftest import World, fresh  # noqa: E402

RELEASE, OTHER = "2.0.1", "2.0.0"
# Debian 12's, which the nodes have.
PYTHON, GLIBC = "3.11", "2.36"
PLAIN, OURS = "/opt/plain", "/opt/measured"
CURRENT = f"{OURS}/envs/default/current"
ENVIRONMENT = {"name": "default", "torchvision": "none", "torchaudio": "none"}
PARTS = ("torch/__init__.py", "torch/lib/libtorch_cpu.so", "torch/lib/libtorch_cuda.so")
# How long torch is not whole at a path, looked at a few hundred times a second until a file tells it to stop.
WATCH = """
import os, sys, time
site, missing, last = sys.argv[1], 0.0, time.monotonic()
while not os.path.exists('/tmp/stop'):
    time.sleep(0.003)
    now = time.monotonic()
    missing += 0 if all(os.path.exists(site + '/' + part) for part in {parts!r}) else now - last
    last = now
open('/tmp/missing', 'w').write('%.3f' % missing)
"""


class Handler(wheel_index.Handler):
    """Files may be kept for ever, as the package index says of its own."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=365000000, immutable, public")
        super().end_headers()


class Upstream(wheel_index.Index):
    """No faster than the uplink, which all share."""

    def __init__(self, folder: Path, address: str, mbit: int) -> None:
        super().__init__(folder, address)
        self.RequestHandlerClass = Handler
        self.sent = Paced(mbit * 1e6 / 8)  # type: ignore[assignment]

    def total(self) -> int:
        return sum(self.sent.values())


class Paced(wheel_index.Counter[str]):
    """Counts bytes, and lets nobody go on before they would have crossed the uplink."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.free, self.lock = rate, 0.0, threading.Lock()

    def __setitem__(self, client: str, value: int) -> None:
        more = value - self.get(client, 0)
        super().__setitem__(client, value)
        with self.lock:
            self.free = max(self.free, time.monotonic()) + more / self.rate
            wait = self.free - time.monotonic()
        time.sleep(max(0.0, wait))


def bring_wheels(work: Path) -> Path:
    """The real wheels of both releases, fetched from the package index once."""
    store, flat = Store(str(work / "store"), str(work / "scratch")), work / "wheels"
    for folder in (work / "scratch", flat):
        folder.mkdir(parents=True, exist_ok=True)
    for release in (RELEASE, OTHER):
        lock = locks.ensure_lock(
            [f"torch=={release}", "numpy<2", "pip", "setuptools<82"], python=PYTHON, architecture=platform.machine(), glibc=GLIBC,
            lock_directory=str(work / "locks"), name=f"upstream-{release}",
        )  # fmt: skip
        files = [{**each, "name": each["url"].rpartition("/")[2]} for each in lock.wheels]
        store.bring(files, [])
        for each in files:
            if not (flat / each["name"]).exists():
                os.link(store.path(each), flat / each["name"])
    wheel_index.bring_uv(flat)
    return flat


class Cost(NamedTuple):
    """What something took."""

    seconds: float
    busy: float
    bytes: int


class Bench:
    """The nodes, the upstream, and what was measured."""

    def __init__(self, world: World, upstream: Upstream, nodes: list[str], work: Path) -> None:
        self.world, self.upstream, self.nodes, self.work = world, upstream, nodes, work
        cache = {"gpufleet_cache": {"hosts": {"cache": {"gpufleet_cache_address": self.address("cache")}}}}
        self.inventory = work / "cache.yml"
        self.inventory.write_text(yaml.safe_dump(cache), encoding="utf-8")

    def address(self, node: str) -> str:
        return self.world.sh(node, "hostname -I").split()[0]

    def measured(self, what: str, node: str, run: Callable[[], Any]) -> Cost:
        """What it costs; of processors those of the node, the cache host and the controller."""
        sent, busy, began = self.upstream.total(), self.busy(node), time.monotonic()
        run()
        took, crossed = time.monotonic() - began, self.upstream.total() - sent
        cost = Cost(took, self.busy(node) - busy, crossed)
        print(
            f"  {what:<36} {took:6.1f} s, {cost.busy:6.1f} s of a processor, {crossed / 1e6:7.1f} MB over the uplink",
            flush=True,
        )
        return cost

    def busy(self, node: str) -> float:
        """Seconds of a processor: the containers' by their control groups, and the controller's programs."""
        look = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || sed -n 's/usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat"
        return sum(int(self.world.sh(each, look)) / 1e9 for each in (node, "cache")) + sum(os.times()[2:4])

    def disk(self, node: str, *paths: str) -> float:
        """Megabytes, each file once however many names it has."""
        return sum(int(line.split()[0]) for line in self.world.sh(node, f"du -sm {' '.join(paths)}").splitlines())

    def pip(self, node: str, release: str) -> None:
        index = f"--index-url {self.upstream.simple} --trusted-host {self.upstream.server_address[0]!s}"
        make = f"test -d {PLAIN} || python3 -m venv {PLAIN}"
        # /tmp of a test node is memory.
        install = f"TMPDIR=/var/tmp {PLAIN}/bin/pip install -q {index} torch=={release} 'numpy<2'"
        self.world.sh(node, f"{make}; {install}")
        self.torch(node, f"{PLAIN}/bin/python", release)

    def play(self, node: str, release: str, *environments: str) -> str:
        """The stages python and pytorch, with a cache host; the output with every module's result."""
        run = self.world.play(
            self.inventory,
            playbook="molecule/shared/stages.yml",
            cmdline=f"--limit {node} -v",
            node_stages=["python", "pytorch"],
            gpufleet_prefix=OURS,
            gpufleet_cache_dir=f"{OURS}/cache",
            gpufleet_wheelhouse_directory=str(self.work / "controller"),
            gpufleet_lock_directory=str(self.work / "controller-locks"),
            gpufleet_facts_directory=str(self.work / "facts"),
            pytorch_index_url=self.upstream.simple,
            pytorch_version=release,
            pytorch_cuda="cu117",
            pytorch_environments=[{**ENVIRONMENT, "name": name} for name in environments or ("default",)],
        )
        if run.rc != 0:
            sys.exit(run.stdout)
        self.torch(node, f"{CURRENT}/bin/python", release)
        return run.stdout

    def torch(self, node: str, python: str, release: str) -> None:
        said = self.world.sh(node, f"{python} -c 'import torch; print(torch.__version__)'")
        if not said.startswith(release):
            sys.exit(f"{node}: {python} has torch {said}, not {release}")

    def watched(self, node: str, site: str, run: Callable[[], Any]) -> float:
        """Seconds in which torch was not whole at a path while something ran."""
        code = WATCH.format(parts=PARTS)
        self.world.sh(
            node,
            f"cat > /tmp/watch.py <<'END'\n{code}END\nrm -f /tmp/stop; python3 /tmp/watch.py {site} >/dev/null 2>&1 &",
        )
        run()
        self.world.sh(node, "touch /tmp/stop; sleep 1")
        return float(self.world.sh(node, "cat /tmp/missing"))

    def plain_way(self) -> dict[str, float]:
        """What people do: pip on every node. The last node keeps it, for a second environment and another release."""
        print(f"plain pip install torch=={RELEASE} on every node", flush=True)
        rows = []
        for node in self.nodes:
            self.world.sh(node, "DEBIAN_FRONTEND=noninteractive apt-get install -qq python3-venv >/dev/null 2>&1")
            rows.append(self.measured(node, node, lambda node=node: self.pip(node, RELEASE)))  # type: ignore[misc]
            if node != self.nodes[-1]:
                self.world.sh(node, f"rm -rf {PLAIN} /root/.cache/pip")
        node, first = self.nodes[-1], self.disk(self.nodes[-1], PLAIN)
        # pip would take nothing of the first one, which makes room for it.
        self.world.sh(node, f"rm -rf {PLAIN}")
        second = self.measured("a second environment, wheels cached", node, lambda: self.pip(node, RELEASE))
        more = self.disk(node, PLAIN)
        site = f"{PLAIN}/lib/python{PYTHON}/site-packages"
        missing = self.watched(node, site, lambda: self.measured(f"to {OTHER}", node, lambda: self.pip(node, OTHER)))
        back = self.measured(f"back to {RELEASE}", node, lambda: self.pip(node, RELEASE))
        print(
            f"  the second environment {100 * more / first:.0f} % more disk; {missing:.2f} s without torch", flush=True
        )
        self.world.sh(node, f"rm -rf {PLAIN} /root/.cache/pip")
        return {
            **added(rows),
            "second": second.seconds,
            "share": more / first,
            "missing": missing,
            "back": back.seconds,
        }

    def our_way(self) -> dict[str, float]:
        """Each wheel once over the uplink, then from the cache host."""
        print("this collection, with a cache host", flush=True)
        rows = []
        for node in self.nodes:
            rows.append(self.measured(node, node, lambda node=node: self.play(node, RELEASE)))  # type: ignore[misc]
            if node != self.nodes[-1]:
                self.world.sh(node, f"rm -rf {OURS} /var/lib/gpufleet")
        node, said = self.nodes[-1], [""]
        first = self.disk(node, f"{OURS}/envs")
        course = ("default", "course")
        self.measured(
            "a second environment, the whole run", node, lambda: said.append(self.play(node, RELEASE, *course))
        )
        more, second = self.disk(node, f"{OURS}/envs") - first, built(said[-1])
        site = f"{CURRENT}/lib/python{PYTHON}/site-packages"
        missing = self.watched(node, site, lambda: self.measured(f"to {OTHER}", node, lambda: self.play(node, OTHER)))
        back = self.measured(f"back to {RELEASE} (rollback.yml)", node, lambda: self.back(node))
        print(
            f"  the second environment itself {second:.1f} s, {100 * more / first:.2f} % more disk; {missing:.2f} s without torch"
        )
        self.world.sh(node, f"rm -rf {OURS}")
        return {**added(rows), "second": second, "share": more / first, "missing": missing, "back": back.seconds}

    def back(self, node: str) -> None:
        run = self.world.play(
            self.inventory,
            playbook="playbooks/rollback.yml",
            cmdline=f"--limit {node}",
            gpufleet_rollback="pytorch",
            gpufleet_prefix=OURS,
            gpufleet_cache_dir=f"{OURS}/cache",
        )
        if run.rc != 0:
            sys.exit(run.stdout)
        self.torch(node, f"{CURRENT}/bin/python", RELEASE)


def added(rows: list[Cost]) -> dict[str, float]:
    """The sums over all nodes, and what each node but the first costs the uplink."""
    sums = {key: sum(getattr(row, key) for row in rows) for key in ("seconds", "busy", "bytes")}
    return {**sums, "further": sum(row.bytes for row in rows[1:]) / max(1, len(rows) - 1)}


def built(output: str) -> float:
    """The module's own seconds for the environment that it built."""
    results = re.findall(r'\baction"?: "?built\b.*?\bseconds"?: ([\d.]+)', output, re.DOTALL)
    return float(results[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--uplink", type=int, default=1000, help="Mbit/s")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/benchmark-fleet")
    said = parser.parse_args()
    work, nodes = said.work.resolve(), [f"n{number + 1}" for number in range(said.nodes)]
    wheels = bring_wheels(work)
    shutil.rmtree(work / "controller", ignore_errors=True)
    shutil.rmtree(work / "controller-locks", ignore_errors=True)
    with fresh("bench", work, nodes=(*nodes, "cache")) as world:
        upstream = Upstream(wheels, world.sh("n1", "ip route show default").split()[2], said.uplink)
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        bench = Bench(world, upstream, nodes, work)
        print(
            f"{len(nodes)} nodes one after the other, uplink {said.uplink} Mbit/s, torch {RELEASE} ({PYTHON}, CUDA 11.7)"
        )
        ours, plain = bench.our_way(), bench.plain_way()
    print(f"\n{'':<44} {'plain pip':>10} {'ours':>10}   ours / plain")
    for key, unit, what in (
        ("bytes", 1e6, "MB over the uplink"),
        ("seconds", 1, "seconds of all nodes, one after the other"),
        ("busy", 1, "seconds of a processor for that"),
        ("second", 1, "seconds for a second environment on a node"),
        ("share", 0.01, "% more disk for it"),
        ("missing", 1, f"seconds without a whole torch, to {OTHER}"),
        ("back", 1, f"seconds back to {RELEASE}"),
    ):
        share = f"{ours[key] / plain[key]:.4f}" if plain[key] else "-"
        print(f"{what:<44} {plain[key] / unit:10.2f} {ours[key] / unit:10.2f}   {share}")
    once = plain["bytes"] / len(nodes)
    print(f"\nof one node's wheels: plain {plain['bytes'] / once:.2f} x, ours {ours['bytes'] / once:.3f} x")
    for number in (4, 1000):
        total = ours["bytes"] + (number - len(nodes)) * ours["further"]
        print(
            f"computed for {number} nodes: plain {number * once / 1e9:.1f} GB, ours {total / 1e9:.2f} GB over the uplink"
        )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
