#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long wheels take to reach a fleet, and what crosses the uplink: plain pip on every node, one cache host, and several.

    sudo tests/benchmarks/fleet_wheels.py [--nodes 24] [--caches 4] [--waves 4] [--mib 2]

Every host is a network namespace on one bridge of its own, with a shaped link. Everything is a hundredth of a site with an uplink of
1 Gbit/s and cards of 10 Gbit/s: 10 and 100 Mbit/s, and wheels of 4 x MIB in place of 2.3 GB. pip and the controller's store
are the real ones; the index is a stand-in, a plain web server stands for nginx and for the copy over SSH, and curl for uv.
Each figure comes with what the formula of docs/offline.md says for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/tools"), str(ROOT / "collections")]
import wheel_index  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.module_utils import wheelhouse  # noqa: E402

UPLINK, CARD = 10, 100  # Mbit/s
OURS = f"gfb{os.getpid() % 10000}"
NET = "10.213.77"
BRING = """
import json, sys
sys.path[:0] = {path!r}
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store
print(Store({store!r}, {scratch!r}).bring(json.load(open({files!r})), []))
"""


def sh(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


class Network:
    """Namespaces on a bridge that is in a namespace too, so that nothing of the host's network is touched."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.number = 1
        sh("ip", "netns", "add", OURS)
        self.inside(OURS, "ip", "link", "add", "br0", "type", "bridge")
        self.inside(OURS, "ip", "link", "set", "br0", "up")

    def inside(self, name: str, *command: str) -> str:
        return sh("ip", "netns", "exec", name, *command)

    def host(self, name: str, mbit: int) -> str:
        """A host with a link of this rate in both directions; its address."""
        self.number += 1
        space, port, address = f"{OURS}-{name}", f"p{self.number}", f"{NET}.{self.number}"
        self.names.append(space)
        sh("ip", "netns", "add", space)
        sh("ip", "-n", OURS, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        sh("ip", "-n", OURS, "link", "set", port, "master", "br0", "up")
        for where, link in ((OURS, port), (space, "eth0")):
            shape = f"qdisc add dev {link} root tbf rate {mbit}mbit burst 64kb latency 400ms"
            self.inside(where, "tc", *shape.split())
        for command in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            sh("ip", "-n", space, *command.split())
        return address

    def sent(self, name: str) -> int:
        return int(self.inside(f"{OURS}-{name}", "cat", "/sys/class/net/eth0/statistics/tx_bytes"))

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        inside = ["ip", "netns", "exec", f"{OURS}-{name}", *command]
        return subprocess.Popen(inside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self, name: str, address: str, port: int) -> None:
        """Until the server that was started there answers."""
        ask = f"import socket; socket.create_connection(({address!r}, {port}), 1)"
        while subprocess.run(
            ["ip", "netns", "exec", f"{OURS}-{name}", sys.executable, "-c", ask], capture_output=True, check=False
        ).returncode:
            time.sleep(0.05)

    def down(self) -> None:
        for name in [*self.names, OURS]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Bench:
    """The hosts, the wheels, and one way after the other."""

    def __init__(self, network: Network, work: Path, nodes: int, mib: int) -> None:
        self.network, self.work = network, work
        self.wheels = work / "wheels"
        wheel_index.build(self.wheels, mib)
        for path in self.wheels.glob("uv-*.whl"):
            path.unlink()
        self.index = network.host("upstream", UPLINK)
        network.host("controller", CARD)
        self.nodes = [f"n{number}" for number in range(nodes)]
        for node in self.nodes:
            network.host(node, CARD)
        self.serving = [
            network.start(
                "upstream",
                sys.executable,
                str(ROOT / "tests/tools/wheel_index.py"),
                str(self.wheels),
                self.index,
                "--port",
                "8000",
            )
        ]
        network.wait("upstream", self.index, 8000)
        self.files = [self._file(path) for path in sorted(self.wheels.glob("*.whl"))]
        self.bytes = sum(each["size"] for each in self.files)
        (work / "files.json").write_text(json.dumps(self.files), encoding="utf-8")

    def _file(self, path: Path) -> dict[str, object]:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        url = f"http://{self.index}:8000/files/{path.name}"
        return {"name": path.name, "url": url, "sha256": sha256, "size": path.stat().st_size}

    def pip(self) -> list[float]:
        """What people do: pip on every node, all at once."""
        urls = [str(each["url"]) for each in self.files]
        command = (
            sys.executable,
            "-m",
            "pip",
            "--isolated",
            "--no-cache-dir",
            "download",
            "--quiet",
            "--no-deps",
            "--no-index",
        )
        begun = time.monotonic()
        self._on_all(lambda node: (*command, "--dest", str(self.work / node), *urls), len(self.nodes))
        return [time.monotonic() - begun]

    def ours(self, caches: int, waves: int) -> list[float]:
        """The controller fetches, the caches get a copy each, the nodes take theirs from these in waves; seconds of each step."""
        store, scratch = str(self.work / f"store-{caches}-{waves}"), str(self.work / f"scratch-{caches}-{waves}")
        os.makedirs(scratch)
        names = [f"cache{caches}-{waves}-{number}" for number in range(caches)]
        addresses = [self.network.host(name, CARD) for name in names]
        begun = [time.monotonic()]
        code = BRING.format(
            path=[str(ROOT / "collections")], store=store, scratch=scratch, files=str(self.work / "files.json")
        )
        self.network.inside(f"{OURS}-controller", sys.executable, "-c", code)
        begun.append(time.monotonic())
        controller = self._serve("controller", store, f"{NET}.3", 9000 + caches * 10 + waves)
        with ThreadPoolExecutor(max_workers=caches) as pool:
            list(pool.map(lambda name: self._fetch(name, controller, self.work / name), names))
        begun.append(time.monotonic())
        bases = [self._serve(name, str(self.work / name), at, 8400) for name, at in zip(names, addresses, strict=True)]
        turns = {node: bases[number % len(bases)] for number, node in enumerate(self.nodes)}
        self._on_all(
            lambda node: self._fetching(turns[node], self.work / f"{node}-{caches}-{waves}"),
            -(-len(self.nodes) // waves),
        )
        begun.append(time.monotonic())
        return [later - earlier for earlier, later in zip(begun, begun[1:], strict=False)]

    def _serve(self, name: str, folder: str, address: str, port: int) -> str:
        self.serving.append(
            self.network.start(name, sys.executable, "-m", "http.server", str(port), "--directory", folder)
        )
        self.network.wait(name, address, port)
        return f"http://{address}:{port}"

    def _fetching(self, base: str, target: Path) -> tuple[str, ...]:
        """What stands for uv on a node: every file from the wheelhouse, compared with its digest."""
        rows = [
            (wheelhouse.address(base, str(each["url"]), str(each["sha256"])), each["sha256"]) for each in self.files
        ]
        lines = "".join(f"url = {url}\noutput = {target}/{sha256}/{url.rpartition('/')[2]}\n" for url, sha256 in rows)
        target.mkdir()
        (target / "curl.cfg").write_text(lines, encoding="utf-8")
        return ("curl", "--silent", "--fail", "--create-dirs", "--config", str(target / "curl.cfg"))

    def _fetch(self, name: str, base: str, target: Path) -> None:
        self.network.inside(f"{OURS}-{name}", *self._fetching(base, target))

    def _on_all(self, command: object, at_once: int) -> None:
        with ThreadPoolExecutor(max_workers=at_once) as pool:
            list(pool.map(lambda node: self.network.inside(f"{OURS}-{node}", *command(node)), self.nodes))  # type: ignore[operator]

    def measure(self, what: str, run: object, expected: list[float]) -> None:
        before = self.network.sent("upstream")
        took = run()  # type: ignore[operator]
        ratio = (self.network.sent("upstream") - before) / self.bytes
        steps = " + ".join(f"{each:.1f}" for each in took)
        formula = " + ".join(f"{each:.1f}" for each in expected)
        print(f"{what:<34} {sum(took):6.1f} s = {steps} (formula {formula}); uplink {ratio:5.2f} x", flush=True)

    def close(self) -> None:
        for process in self.serving:
            process.terminate()
            process.wait()


def seconds(size: int, nodes: int, caches: int) -> list[float]:
    """The formula of docs/offline.md: over the uplink once, to each cache, and from the caches to the nodes."""
    up, card = UPLINK * 1e6 / 8, CARD * 1e6 / 8
    return [size / up, caches * size / card, nodes * size / (caches * card)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--caches", type=int, default=4)
    parser.add_argument("--waves", type=int, default=4)
    parser.add_argument("--mib", type=int, default=2)
    said = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="gpufleet-fleet-wheels-"))
    network = Network()
    try:
        bench = Bench(network, work, said.nodes, said.mib)
        size, nodes = bench.bytes, said.nodes
        print(f"{nodes} nodes, {size / 1e6:.1f} MB of wheels, uplink {UPLINK} Mbit/s, cards {CARD} Mbit/s")
        bench.measure("pip on every node", bench.pip, [nodes * size / (UPLINK * 1e6 / 8)])
        bench.measure("one cache host, all at once", lambda: bench.ours(1, 1), seconds(size, nodes, 1))
        bench.measure(f"one cache host, {said.waves} waves", lambda: bench.ours(1, said.waves), seconds(size, nodes, 1))
        bench.measure(
            f"{said.caches} cache hosts, all at once",
            lambda: bench.ours(said.caches, 1),
            seconds(size, nodes, said.caches),
        )
        bench.close()
    finally:
        network.down()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
